"""IDQL's networks against numpy in double precision (arXiv 2304.10573)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowpolicies.networks import InputNormValue, ResidualNoisePrediction


def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def transcription(
    w: dict[str, np.ndarray], s: np.ndarray, x: np.ndarray, t: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    dense = lambda name, y: y @ w[f"{name}.weight"] + w[f"{name}.bias"]
    angles = 2 * np.pi * t * w["embed.frequencies"]
    time = np.concatenate([np.cos(angles), np.sin(angles)], -1)
    time = dense("time.output", silu(dense("time.layers.0", time)))
    h = dense("input", np.concatenate([x, s, time], -1))
    for i in range(masks.shape[-2]):
        normed = layer_norm(h * masks[:, i]) * w[f"blocks.{i}.norm.weight"] + w[f"blocks.{i}.norm.bias"]
        h = h + dense(f"blocks.{i}.narrow", silu(dense(f"blocks.{i}.widen", normed)))
    return dense("output", silu(h))


def test_residual_network_written_out() -> None:
    torch.manual_seed(0)
    network = ResidualNoisePrediction(3, 2, hidden_dims=(8, 8), time_dim=6, time_hidden_dims=(5, 4)).double()
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    s, x, t = torch.randn(7, 3).double(), torch.randn(7, 2).double(), torch.arange(7.0).double()[:, None]
    masks = (torch.rand(7, 2, 8) > 0.5).double() * 2
    weights = {key: p.detach().numpy() for key, p in network.named_parameters()}
    written = lambda m: transcription(weights, s.numpy(), x.numpy(), t.numpy(), m)
    np.testing.assert_allclose(network(s, x, t, masks).detach(), written(masks.numpy()), rtol=1e-10)
    np.testing.assert_allclose(network(s, x, t).detach(), written(np.ones((7, 2, 8))), rtol=1e-10)
    assert weights["blocks.1.widen.weight"].shape == (8, 32)


def test_initialisation_and_widths() -> None:
    torch.manual_seed(0)
    network = ResidualNoisePrediction(17, 6)
    assert network.blocks[0].widen.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    assert network.blocks[0].narrow.weight.std().item() == pytest.approx(1024**-0.5, rel=0.02)
    assert network.input.weight.abs().max().item() == pytest.approx((6 / (17 + 6 + 256 + 256)) ** 0.5, rel=1e-3)
    assert len(network.blocks) == 3
    assert network.embed.frequencies.shape == (64,)
    with pytest.raises(ValueError, match=r"one width, such as \(256, 256, 256\), got \(256, 128\)"):
        ResidualNoisePrediction(3, 2, hidden_dims=(256, 128))


def test_value_normalises_its_input_and_nothing_else() -> None:
    torch.manual_seed(0)
    value = InputNormValue(5, 2, hidden_dims=(8, 8)).double()
    s = torch.randn(6, 5).double() * 3 + 2
    w = {key: p.detach().numpy() for key, p in value.named_parameters()}
    h = layer_norm(s.numpy())
    for i in range(2):
        h = np.maximum(h @ w[f"net.layers.{i}.weight"] + w[f"net.layers.{i}.bias"], 0)
    expected = (h @ w["net.output.weight"] + w["net.output.bias"])[:, 0]
    np.testing.assert_allclose(value(s).detach(), expected, rtol=1e-10)
    torch.testing.assert_close(value(7 * s - 3), value(s), atol=1e-5, rtol=0)
    assert [key for key in w if "norm" in key] == ["norm.weight", "norm.bias"]
