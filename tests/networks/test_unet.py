"""QGPO's U-net and the values of noisy actions: sizes of the spec, and what the members share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from flowpolicies.networks import NoisyValue, UNet


def linear(i: int, o: int) -> int:
    return i * o + o


def block(i: int, o: int) -> int:
    return linear(i, o) + linear(o, o) + linear(128, o) + (linear(i, o) if i != o else 0)


def test_unet_has_the_blocks_of_the_spec() -> None:
    net = UNet(17, 6)
    blocks = [(6, 512), (512, 256), (256, 128), (128, 128), (256, 256), (512, 512)]
    condition = linear(32, 32) + linear(17, 32) + linear(64, 128) + linear(128, 128)
    assert sum(p.numel() for p in net.parameters()) == condition + sum(block(*b) for b in blocks) + linear(1024, 6)


@pytest.mark.parametrize("hidden_dims", [(8,), (8, 6), (12, 8, 4)])
def test_unet_of_any_depth(hidden_dims: tuple[int, ...]) -> None:
    net = UNet(3, 2, hidden_dims=hidden_dims)
    assert net(torch.randn(5, 4, 3), torch.randn(5, 4, 2), torch.rand(5, 4, 1)).shape == (5, 4, 2)


def test_unet_equals_its_formula() -> None:
    torch.manual_seed(0)
    net = UNet(3, 2, hidden_dims=(8, 4)).double()
    s, x, t = torch.randn(5, 3).double(), torch.randn(5, 2).double(), torch.rand(5, 1).double()
    w = dict(net.named_parameters())
    dense = lambda name, y: y @ w[f"{name}.weight"] + w[f"{name}.bias"]
    angles = 2 * torch.pi * t * net.embed.frequencies
    phi = dense("time", torch.cat([angles.cos(), angles.sin()], -1))
    c = dense("mix.output", F.silu(dense("mix.layers.0", torch.cat([phi, F.silu(dense("observe", s))], -1))))

    def apply(name: str, y: torch.Tensor) -> torch.Tensor:
        h = F.silu(dense(f"{name}.entry", y)) + dense(f"{name}.condition", F.silu(c))
        skip = dense(f"{name}.skip", y) if f"{name}.skip.weight" in w else y
        return F.silu(dense(f"{name}.output", h)) + skip

    d1 = apply("down.0", x)
    d2 = apply("down.1", d1)
    u1 = apply("up.0", torch.cat([d2, apply("bottom", d2)], -1))
    torch.testing.assert_close(net(s, x, t), dense("output", torch.cat([d1, u1], -1)))
    assert not net.embed.frequencies.requires_grad


def test_noisy_value_of_an_ensemble_and_of_one() -> None:
    s, x, t = torch.randn(5, 4, 3), torch.randn(5, 4, 2), torch.rand(5, 4, 1)
    many = NoisyValue(3, 2, ensemble=7, layer_norm=True, norm_first=True, time_activate_last=True)
    assert many(s, x, t).shape == (7, 5, 4)
    assert many.time.output.weight.shape == (128, 64)
    assert many.net.layers[0].weight.shape == (7, 2 + 3 + 64, 256)
    one = NoisyValue(3, 2, hidden_dims=(256,) * 4, activation="silu", time_dim=32, time_hidden_dims=(32,))
    assert one(s, x, t).shape == (5, 4)
    assert [tuple(p.shape) for p in one.time.parameters()] == [(32, 32), (32,)]
    assert len({float(v) for v in many(s, x, t)[:, 0, 0].detach()}) == 7


def test_members_of_a_noisy_value_may_have_features_of_the_level_of_their_own() -> None:
    """A member is the network of its own weights, with one row of inputs and with several axes of them."""
    options: dict[str, Any] = {"hidden_dims": (8,), "layer_norm": True, "time_dim": 4, "time_hidden_dims": (6, 5)}
    many, alone = NoisyValue(3, 2, ensemble=3, own_levels=True, **options), NoisyValue(3, 2, **options)
    for rows in ((1,), (5, 4)):
        s, x, t = torch.randn(*rows, 3), torch.randn(*rows, 2), torch.rand(*rows, 1)
        together = many(s, x, t)
        for member in range(3):
            own = {key: p[member].reshape(alone.state_dict()[key].shape) for key, p in many.named_parameters()}
            alone.load_state_dict(own)
            torch.testing.assert_close(together[member], alone(s, x, t), atol=1e-6, rtol=1e-5)
