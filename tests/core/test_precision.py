"""What is rounded to bfloat16, and where it is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import toy_learner as toy
from trees import flat

from flowpolicies.core import precision
from flowpolicies.core.matmul import tf32_products
from flowpolicies.core.precision import check_precision, factors_of, rounded
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.networks.encoders import ObservationEncoder, ObservationPart
from flowpolicies.networks.mlp import Dense, LayerNorm

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def _has_units(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products in bfloat16 are emulated where there are no units, so that these tests run everywhere."""
    monkeypatch.setattr(precision, "has_bfloat16", lambda device: True)


@pytest.mark.parametrize("ensemble", [None, 3])
def test_a_product_of_rounded_factors_has_a_float32_result_and_a_float32_bias(ensemble: int | None) -> None:
    torch.manual_seed(0)
    layer, x = Dense(64, 32, ensemble), torch.randn(16, 64)
    torch.nn.init.constant_(layer.bias, 1000.1)  # In bfloat16 it would be 1000.
    exact = layer(x)
    layer.weight.data = layer.weight.data.to(torch.bfloat16)
    found = layer(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0)
    assert not torch.equal(found, exact)


def test_only_factors_of_products_are_rounded() -> None:
    for module in (Critic(3, 2, hidden_dims=(8, 8)), VelocityField(3, 2, hidden_dims=(8, 8), layer_norm=True)):
        weights = dict(module.named_parameters())
        owners = {f"{path}.{name}": part for path, part in module.named_modules() for name in part._parameters}
        found = rounded(weights, factors_of(module))
        for key, value in found.items():
            is_factor = isinstance(owners[key], Dense) and key.endswith("weight")
            assert value.dtype == (torch.bfloat16 if is_factor else torch.float32), key
            assert isinstance(owners[key], Dense | LayerNorm)
        assert {value.dtype for value in found.values()} == {torch.bfloat16, torch.float32}


def test_convolutions_of_images_are_rounded_too() -> None:
    encoder = ObservationEncoder([ObservationPart((3, 16, 16), True)], "impala_debug")
    images = torch.randint(256, (2, 3 * 16 * 16), dtype=torch.uint8)
    exact = encoder(images)
    weights = rounded(dict(encoder.named_parameters()), factors_of(encoder))
    found = torch.func.functional_call(encoder, weights, (images,))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)
    assert any(value.dtype == torch.bfloat16 and value.ndim == 4 for value in weights.values())


@pytest.mark.usefixtures("_has_units")
def test_an_update_in_bfloat16_is_near_one_in_float32_and_leaves_everything_float32() -> None:
    found: dict[str, Any] = {}
    for kind in ("fp32", "bf16"):
        learner, state = toy.make(precision=kind)
        before = flat(state.params)
        toy.run(learner, state, steps=5)
        found[kind] = flat(state.params) - before
        tensors = [value for part in (state.params, state.targets, *state.moments) for value in toy.leaves(part)]
        assert {value.dtype for value in tensors} == {torch.float32}
    assert not torch.equal(found["fp32"], found["bf16"])
    assert float(torch.cosine_similarity(found["fp32"], found["bf16"], 0)) > 0.95


@pytest.mark.usefixtures("_has_units")
def test_gradient_reaches_the_float32_weights() -> None:
    learner, state = toy.make(precision="bf16")
    batch = toy.make_batch(0)
    draws = learner.draws(state, batch, toy.EVERY, [torch.Generator().manual_seed(0)])[0]
    grads, _ = learner.gradients(state, batch, draws, ("critic", "actor"))
    for tree in grads.values():
        assert all(gradient.dtype == torch.float32 and gradient.abs().sum() > 0 for gradient in tree.values())


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.usefixtures("_has_units")
def test_autocast_of_the_caller_does_not_change_an_update(kind: str) -> None:
    plain, inside = toy.make(precision=kind), toy.make(precision=kind)
    toy.run(*plain, steps=2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        toy.run(*inside, steps=2)
    assert torch.equal(flat(plain[1].params), flat(inside[1].params))


def test_a_device_without_units_is_refused_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    with pytest.raises(ValueError, match=r'precision="bf16" needs units.*cpu has none.*avx512_bf16.*precision="fp32"'):
        check_precision("bf16", CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    with pytest.raises(ValueError, match=r"compute capability 8\.0"):
        check_precision("bf16", CUDA)
    with pytest.raises(ValueError, match=r'precision="tf32" needs an NVIDIA GPU'):
        check_precision("tf32", CUDA)
    with pytest.raises(ValueError, match="the device is cpu"):
        check_precision("tf32", CPU)
    with pytest.raises(ValueError, match="one of 'fp32', 'tf32', 'bf16', got 'fp16'"):
        check_precision("fp16", CPU)


def test_devices_with_units_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    for kind, device in (("fp32", CPU), ("bf16", CPU), ("bf16", CUDA), ("tf32", CUDA)):
        check_precision(kind, device)


def test_tf32_leaves_the_settings_of_torch_as_they_were() -> None:
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [part.fp32_precision for part in settings]
    with tf32_products():
        assert [part.fp32_precision for part in settings] == ["tf32", "tf32"]
    assert [part.fp32_precision for part in settings] == before
