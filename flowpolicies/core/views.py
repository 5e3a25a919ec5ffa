"""Named networks, and the three ways in which a loss may look at them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

GLOSSARY = (
    "critic",
    "value",
    "inner_value",
    "actor",
    "actor_flow",
    "actor_onestep",
    "actor_slow",
    "actor_fast",
    "actor_diffusion",
    "edit_actor",
    "latent_actor",
    "latent_critic",
    "temperature",
)
"""The closed list of network names."""


@final
@dataclass(frozen=True)
class Network:
    """Everything there is to say about one named network, in one place."""

    factory: Callable[[int, int], nn.Module]
    """(observation_dim, action_dim) -> module; a `partial` of a class of `flowpolicies.networks` can be saved."""
    target_rate: float | None = None
    """Polyak rate of the target copy; None: no target copy."""
    learning_rate: float | None = None
    """None: the algorithm's."""
    decay_updates: int | None = None
    """Cosine decay of the learning rate to 0 over so many updates of this network; None: no decay."""
    weight_decay: float = 0.0
    """Decoupled weight decay, as in AdamW."""
    clip_grad_norm: float | None = None
    """Clip the gradient of this network alone to this norm, which takes it out of the joint clip; None: joint."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """sgd: weights less learning rate times gradient, outside the joint clip; for numbers whose step has a size."""


@final
class BoundNetwork:
    """A module with the weights that it is to use; called like the module."""

    __slots__ = ("_bound", "module", "weights")

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
        self.module, self.weights = module, weights
        self._bound = module if weights is None else None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and self.weights is not None:
            return functional_call(self.module, dict(self.weights), inputs)  # type: ignore[no-any-return]
        if self._bound is None:
            assert self.weights is not None
            self._bound = with_weights(self.module, self.weights)
        return self._bound(*inputs)  # type: ignore[no-any-return]

    def given(self, observations: Tensor) -> Callable[..., Tensor]:
        """The network as a function of its other inputs; an image is encoded once, however often it is called.

        `nets.frozen.actor_flow.given(observations)` is the velocity field (x, t) -> dx/dt at these observations.
        """
        encoder, head = getattr(self.module, "encoder", None), getattr(self.module, "head", None)
        if encoder is None or head is None:
            return partial(self, observations)
        return partial(self._part("head", head), self._part("encoder", encoder)(observations))

    def _part(self, name: str, module: nn.Module) -> BoundNetwork:
        if self.weights is None:
            return BoundNetwork(module)
        prefix = f"{name}."
        weights = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
        return BoundNetwork(module, weights)


def with_weights(module: nn.Module, weights: Mapping[str, Tensor], prefix: str = "") -> nn.Module:
    """A shallow copy of a module that computes with `weights`.

    Made once per update and called many times, where `functional_call` would exchange the weights at every call
    (about 150 us for a small critic, more than its arithmetic).
    """
    clone = object.__new__(type(module))
    clone.__dict__ = module.__dict__.copy()
    clone._parameters = {name: weights[prefix + name] for name in module._parameters}  # type: ignore[misc]
    clone._modules = {
        name: None if part is None else with_weights(part, weights, f"{prefix}{name}.")
        for name, part in module._modules.items()
    }
    return clone


@final
class View(Mapping[str, BoundNetwork]):
    """Name -> network: `view.critic(observations, actions)`. Views are joined with `|`; the right side wins."""

    def __init__(self, networks: Mapping[str, BoundNetwork], hint: str = "") -> None:
        self._networks, self._hint = dict(networks), hint

    def __getitem__(self, name: str) -> BoundNetwork:
        if name not in self._networks:
            raise KeyError(
                f"no network {name!r} in this view (it has: {', '.join(self._networks)}). {self._hint}".strip()
            )
        return self._networks[name]

    def __getattr__(self, name: str) -> BoundNetwork:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(error.args[0]) from None

    def __contains__(self, name: object) -> bool:
        return name in self._networks

    def __or__(self, other: Mapping[str, BoundNetwork]) -> View:
        return View({**self._networks, **other}, self._hint)

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    @classmethod
    def of(cls, modules: Mapping[str, nn.Module], weights: Mapping[str, Mapping[str, Tensor]] | None = None) -> View:
        """Modules with their own weights, or with those of `weights` (then only the networks named there)."""
        if weights is None:
            return cls({name: BoundNetwork(module) for name, module in modules.items()})
        return cls({name: BoundNetwork(modules[name], tree) for name, tree in weights.items()})


class Networks(NamedTuple):
    """Three views of the same names, and how long each network was trained."""

    online: View
    """Gradient reaches the parameters, but only of the networks that this loss term trains."""
    frozen: View
    """The same weights; gradient reaches the inputs, never the parameters."""
    target: View
    """Slow copies, never trained by gradient."""
    updates: Mapping[str, Tensor] = MappingProxyType({})
    """Optimiser steps that each network has had, `[]`: the clock of a curriculum (docs/adr/0008)."""

    def restricted(self, names: tuple[str, ...], hint: str) -> Networks:
        """`online` cut down to `names`."""
        return self._replace(online=View({name: self.online[name] for name in names}, hint))


Config = Any
"""A frozen dataclass of one algorithm; each loss term knows its own."""
