"""Asserts the shapes that networks, samplers and losses document, while a model trains and acts.

A specification is a text such as "E * A": names of sizes, where `*` is any number of leading axes, the same for all
tensors of one call. Sizes that are not known beforehand are taken from the first tensor that has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import flowpolicies.samplers
from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core import Batch, Learner, LossTerm
from flowpolicies.networks import (
    Critic,
    Encoded,
    Gaussian,
    InputNormValue,
    Multiplier,
    NoisePrediction,
    NoisyValue,
    ResidualNoisePrediction,
    TanhNormal,
    Temperature,
    UNet,
    Value,
    VelocityField,
)

Sizes = dict[str, Any]
"""Name -> size; `*` -> a tuple of sizes."""

FIELD = ("* O", "* A", "* 1")
"""Inputs of a network that sees an observation, an action and perhaps a time."""

NETWORKS: dict[type[nn.Module], tuple[tuple[str, ...], tuple[str, ...]]] = {
    Critic: (FIELD, ("E *",)),
    NoisyValue: (FIELD, ("E *",)),
    Value: (("* O",), ("*",)),
    InputNormValue: (("* O",), ("*",)),
    VelocityField: (FIELD, ("* A",)),
    NoisePrediction: (FIELD, ("* A",)),
    ResidualNoisePrediction: ((*FIELD, "* blocks width"), ("* A",)),
    UNet: (FIELD, ("* A",)),
    Gaussian: (("* O",), ("* A", "* A")),
    TanhNormal: (("* O", "* A", "* A"), ("* A", "*")),
    Temperature: ((), ("",)),
    Multiplier: ((), ("",)),
}
"""What each class of network takes at most, and gives. E is left out where there is no ensemble."""

BATCH = Batch("B O", "B A", "B O", "B N", "B", "B", "B", "B A")
"""The columns of a batch; N is A, or 0 if the algorithm does not use next actions."""


@dataclass
class Seen:
    """Names of what was called, so that a test can tell that the checks have run."""

    networks: set[str] = field(default_factory=set)
    terms: set[str] = field(default_factory=set)
    samplers: set[str] = field(default_factory=set)


def expect(what: str, tensor: Any, spec: str, sizes: Sizes) -> None:
    """Asserts the shape of a tensor, and adds the sizes that were unknown. Only observations (O) may be uint8."""
    assert isinstance(tensor, Tensor), f"{what} is a {type(tensor).__name__}, not a tensor"
    names, shape = spec.split(), list(tensor.shape)
    assert tensor.dtype == torch.float32 or ("O" in names and tensor.dtype == torch.uint8), f"{what}: {tensor.dtype}"
    free = len(shape) - len([name for name in names if name != "*"])
    wanted: list[int] = []
    for name in names:
        if name.isdigit():
            wanted.append(int(name))
        elif name == "*":
            wanted += sizes.setdefault("*", tuple(shape[len(wanted) : len(wanted) + max(free, 0)]))
        else:
            here = shape[len(wanted)] if len(wanted) < len(shape) else 0
            wanted.append(sizes.setdefault(name, here))
    known = ", ".join(f"{name}={sizes[name]}" for name in dict.fromkeys(names) if name in sizes)
    assert shape == wanted, f"{what} has shape {shape}, which is not [{spec}] with {known}"


@contextmanager
def checked_shapes(model: OfflineAlgorithm) -> Iterator[Seen]:
    """Checks every call of the model's networks, samplers and losses while the context lasts."""
    seen = Seen()
    sizes = {"O": flat_size(model), "A": model.policy.chunk_dim}
    with ExitStack() as stack:
        for modules in (model.policy.networks, model.policy.targets):
            for name, module in modules.items():
                for handle in watch_network(name, module, sizes, seen):
                    stack.callback(handle.remove)
        for kind in sampler_classes(model):
            stack.enter_context(patch.object(kind, "__call__", watch_sampler(kind, sizes, seen)))
        stack.enter_context(patch.object(LossTerm, "__call__", watch_loss(model, sizes, seen)))
        stack.enter_context(patch.object(Learner, "update", watch_update()))
        yield seen


def flat_size(model: OfflineAlgorithm) -> int:
    """Width of a flat observation."""
    return int(model.transitions.sample(1).observations.shape[-1])


def watch_network(name: str, module: nn.Module, sizes: Sizes, seen: Seen) -> list[Any]:
    """Hooks, which the copies with other weights that losses call share."""
    if not isinstance(module, Encoded):
        return [module.register_forward_hook(network_hook(name, module, sizes, seen))]
    encoder, head, features = module.encoder, module.head, {**sizes, "O": module.encoder.out_dim}

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        call = dict(sizes, F=encoder.out_dim)
        expect(f"{name}, images", inputs[0], "* O", call)
        expect(f"{name}, features", output, "* F", call)

    return [encoder.register_forward_hook(hook), *watch_network(name, head, features, seen)]


def network_hook(name: str, module: nn.Module, sizes: Sizes, seen: Seen) -> Callable[..., None]:
    assert type(module) in NETWORKS, f"tests/support/shapes.py does not know the shapes of {type(module).__name__}"
    takes, gives = NETWORKS[type(module)]
    ensemble = getattr(getattr(module, "net", None), "ensemble", None)

    def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        seen.networks.add(name)
        call = {**sizes} if ensemble is None else {**sizes, "E": ensemble}
        outputs = output if isinstance(output, tuple) else (output,)
        assert len(inputs) <= len(takes), f"{name} takes {len(takes)} inputs at most, got {len(inputs)}"
        assert len(outputs) == len(gives), f"{name} gives {len(gives)} outputs, got {len(outputs)}"
        for i, (tensor, spec) in enumerate(zip(inputs, takes, strict=False)):
            expect(f"{name}, input {i}", tensor, spec, call)
        for i, (tensor, spec) in enumerate(zip(outputs, gives, strict=True)):
            spec = spec if ensemble is not None else spec.removeprefix("E ")
            expect(f"{name}, output {i}", tensor, spec, call)

    return hook


def sampler_classes(model: OfflineAlgorithm) -> set[type]:
    """The samplers of the package, and those of the policy."""
    public = {kind for kind in vars(flowpolicies.samplers).values() if isinstance(kind, type)}
    found = {kind for kind in public if "__call__" in vars(kind) and not getattr(kind, "_is_protocol", False)}
    return found | {type(s) for s in (model.policy.sampler, model.policy.explorer) if s is not None}


def watch_sampler(kind: type, sizes: Sizes, seen: Seen) -> Callable[..., Tensor]:
    call: Any = kind.__call__

    @functools.wraps(call)
    def checked(sampler: Any, nets: Any, observations: Tensor, noise: Any) -> Tensor:
        seen.samplers.add(kind.__name__)
        here = dict(sizes)
        expect(f"{kind.__name__}, observations", observations, "* O", here)
        actions: Tensor = call(sampler, nets, observations, noise)
        expect(f"{kind.__name__}, actions", actions, "* A", here)
        assert actions.abs().max() <= 1, f"{kind.__name__}: actions leave [-1, 1]"
        return actions

    return checked


def watch_loss(model: OfflineAlgorithm, sizes: Sizes, seen: Seen) -> Callable[..., Any]:
    call: Any = LossTerm.__call__

    @functools.wraps(call)
    def checked(term: LossTerm, nets: Any, batch: Batch, noise: Any, cfg: Any) -> Any:
        seen.terms.add(term.name)
        check_batch(model, batch, sizes)
        loss, metrics = call(term, nets, batch, noise, cfg)
        expect(f"{term.name} loss", loss, "", {})
        assert loss.requires_grad == torch.is_grad_enabled(), f"{term.name} loss: no gradient reaches the networks"
        for key, value in metrics.items():
            expect(f"metric {term.name}/{key}", value, "", {})
        return loss, metrics

    return checked


def check_batch(model: OfflineAlgorithm, batch: Batch, sizes: Sizes) -> None:
    """Shapes of the columns, and the ranges that `Batch` documents."""
    here = {**sizes, "N": sizes["A"] if model.uses_next_actions else 0}
    for name, column, spec in zip(Batch._fields, batch, BATCH, strict=True):
        expect(f"batch.{name}", column, spec, here)
    for name in ("actions", "next_actions"):
        assert bool((getattr(batch, name).abs() <= 1).all()), f"batch.{name} leaves [-1, 1]"
    assert bool(((batch.discounts >= 0) & (batch.discounts <= 1)).all()), "batch.discounts leaves [0, 1]"
    for name in ("valid", "action_mask"):
        column = getattr(batch, name)
        assert bool(((column == 0) | (column == 1)).all()), f"batch.{name} is neither 0 nor 1"


def watch_update() -> Callable[..., Any]:
    call: Any = Learner.update

    @functools.wraps(call)
    def checked(*args: Any, **kwargs: Any) -> Any:
        metrics = call(*args, **kwargs)
        for key, value in metrics.items():
            expect(f"logged metric {key}", value, "", {})
            assert not value.requires_grad, f"logged metric {key} is not detached"
        return metrics

    return checked
