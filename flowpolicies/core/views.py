"""Named networks, the three views of them that a loss has (online, frozen, target), and loss terms.

A loss term is an equation and the names of the networks that it trains; an `UpdateSpec` says what one update does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch, Loss

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
"""All names that networks may have."""


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Attributes of modules that hold their hooks."""


def is_transformed() -> bool:
    """Whether the present code is being compiled, or runs inside functorch (`vmap`, `grad`, `vjp`).

    Such code must not choose by the values of tensors, write into its inputs, or call autograd.
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()


@final
@dataclass(frozen=True)
class Network:
    """The declaration of a named network: how it is built and how it is trained.

    Examples:
        >>> from functools import partial
        >>> from flowpolicies.core import Network
        >>> from flowpolicies.networks import Critic
        >>> critic = Network(partial(Critic, ensemble=10), target_rate=0.005, learning_rate=1e-4)
    """

    factory: Callable[[int, int], nn.Module]
    """Function (observation_dim, action_dim) -> module. A `partial` of a class of `flowpolicies.networks` can be saved
    in a policy file."""
    target_rate: float | None = None
    """Polyak rate of the target copy; None: no target copy."""
    learning_rate: float | None = None
    """Learning rate of this network; None: the common learning_rate."""
    decay_updates: int | None = None
    """Cosine decay of the learning rate to 0 over so many updates of this network; None: constant."""
    weight_decay: float = 0.0
    """Decoupled weight decay, as in AdamW."""
    clip_grad_norm: float | None = None
    """Norm to which the gradient of this network alone is clipped, outside the joint clip; None: joint clip."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Optimiser of this network. sgd subtracts learning rate times gradient, outside the joint clip; it is meant for
    numbers whose step size has a meaning, such as a Lagrange multiplier."""


@final
class BoundNetwork:
    """A module together with the weights that it uses; called like the module.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import BoundNetwork
        >>> from flowpolicies.networks import VelocityField
        >>> network = BoundNetwork(VelocityField(3, 1, hidden_dims=(32,)))
        >>> field = network.given(torch.zeros(256, 3))  # (x, t) -> dx/dt at these observations
        >>> field(torch.zeros(256, 1), torch.zeros(256, 1)).shape
        torch.Size([256, 1])
    """

    __slots__ = ("_bound", "module", "weights")

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor] | None = None) -> None:
        self.module, self.weights = module, weights
        self._bound = module if weights is None else None

    def __call__(self, *inputs: Tensor) -> Tensor:
        if torch.compiler.is_compiling() and self.weights is not None:
            return functional_call(self.module, dict(self.weights), inputs)  # type: ignore[no-any-return]
        return self._eager()(*inputs)  # type: ignore[no-any-return]

    def _eager(self) -> Any:
        """The module that computes with these weights."""
        if self._bound is None:
            assert self.weights is not None
            self._bound = with_weights(self.module, self.weights)
        return self._bound

    def given(self, observations: Tensor) -> GivenObservations:
        """The network as a function of its other inputs; images are encoded once, however often it is called.

        `nets.frozen.actor_flow.given(observations)` is the velocity field (x, t) -> dx/dt at these observations.
        """
        encoder, head = getattr(self.module, "encoder", None), getattr(self.module, "head", None)
        if encoder is None or head is None:
            return GivenObservations(self._function(), observations)
        encoded = self._part("encoder", encoder)(observations)
        return GivenObservations(self._part("head", head)._function(), encoded)

    def _function(self) -> Callable[..., Tensor]:
        """The network for many calls in a row: what the method `function` of the module returns, if it has one."""
        if torch.compiler.is_compiling() or not hasattr(self.module, "function") or has_hooks(self.module):
            return self
        return self._eager().function()  # type: ignore[no-any-return]

    def _part(self, name: str, module: nn.Module) -> BoundNetwork:
        if self.weights is None:
            return BoundNetwork(module)
        prefix = f"{name}."
        weights = {key.removeprefix(prefix): value for key, value in self.weights.items() if key.startswith(prefix)}
        return BoundNetwork(module, weights)


@final
class GivenObservations:
    """A network at given observations, called with its other inputs: (x `[*, A]`, t `[*, 1]`) -> `[*, A]`."""

    __slots__ = ("network", "observations")

    def __init__(self, network: Callable[..., Tensor], observations: Tensor) -> None:
        self.network, self.observations = network, observations

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's output. For x with further leading axes, `[T, *, A]`, the observations are those of each T."""
        observations = self.observations
        if inputs and inputs[0].ndim > observations.ndim:
            observations = observations.expand(*inputs[0].shape[:-1], observations.shape[-1])
        return self.network(observations, *inputs)

    def rows(self, rows: Tensor | slice) -> GivenObservations:
        """The network at some of the observations, by index along their first axis."""
        return GivenObservations(self.network, self.observations[rows])


def with_weights(module: nn.Module, weights: Mapping[str, Tensor], prefix: str = "") -> nn.Module:
    """A shallow copy of a module that computes with `weights`.

    It is made once per update and called many times. `functional_call` would exchange the weights at every call, which
    takes about 150 us for a small critic, more than its arithmetic.
    """
    clone = object.__new__(type(module))
    # Written to the dict, because nn.Module checks every assignment, which takes longer than everything else here.
    clone.__dict__.update(
        module.__dict__,
        _parameters={name: weights[prefix + name] for name in module._parameters},
        _buffers={name: weights.get(prefix + name, constant) for name, constant in module._buffers.items()},
        _modules={
            name: None if part is None else with_weights(part, weights, f"{prefix}{name}.")
            for name, part in module._modules.items()
        },
    )
    return clone


def has_hooks(module: nn.Module) -> bool:
    """Whether something is to be called when the module, or a part of it, is."""
    own = any(module.__dict__.get(name) for name in HOOKS)
    return own or any(part is not None and has_hooks(part) for part in module._modules.values())


def set_mode(module: nn.Module, training: bool) -> None:
    """As `module.train(training)`, in a fifth of the time; online training does it twice per environment step.

    `nn.Module` checks every assignment. Modules that have their own `train`, or keep their mode elsewhere, as scripted
    and compiled ones do, are left to it.
    """
    if type(module).train is not nn.Module.train or "training" not in module.__dict__:
        module.train(training)
        return
    module.__dict__["training"] = training
    for part in module._modules.values():
        if part is not None:
            set_mode(part, training)


@final
class View(Mapping[str, BoundNetwork]):
    """Network names and networks: `view.critic(observations, actions)`. Views are joined with `|`; the right side
    wins.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import View
        >>> from flowpolicies.networks import Critic, Value
        >>> view = View.of({"critic": Critic(3, 1, hidden_dims=(32,)), "value": Value(3, 1, hidden_dims=(32,))})
        >>> view.value(torch.zeros(256, 3)).shape
        torch.Size([256])
    """

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
    """Three views of the same networks, and how many updates each network has had.

    Examples:
        >>> from flowpolicies.core import Networks, View
        >>> from flowpolicies.networks import Critic
        >>> online = View.of({"critic": Critic(3, 1, hidden_dims=(32,))})
        >>> nets = Networks(online=online, frozen=online, target=View.of({"critic": Critic(3, 1, hidden_dims=(32,))}))
        >>> [name for name in nets.target]
        ['critic']
    """

    online: View
    """Gradient reaches the parameters, but only of the networks that this loss term trains."""
    frozen: View
    """The same weights; gradient reaches the inputs, never the parameters."""
    target: View
    """Slow copies, which are never trained by gradient."""
    updates: Mapping[str, Tensor] = MappingProxyType({})
    """Number of optimiser steps that each network has had, `[]`; it drives curricula (docs/adr/0008)."""

    def restricted(self, names: tuple[str, ...], hint: str) -> Networks:
        """The same views, with `online` reduced to `names`."""
        return self._replace(online=View({name: self.online[name] for name in names}, hint))


Config = Any
"""A frozen dataclass of one algorithm; each loss term knows its own class."""


def is_zero(number: float | Tensor) -> bool:
    """Whether a hyperparameter is 0. One that differs between vectorised seeds is a tensor there, and is not 0."""
    return not isinstance(number, Tensor) and number == 0


LossFn = Callable[[Networks, Batch, Noise, Config], Loss]


@final
@dataclass(frozen=True)
class LossTerm:
    """A loss function, and the networks that it trains. Its `nets.online` holds only these, so a gradient leak raises
    an error.

    Examples:
        >>> from flowpolicies.core import loss_term
        >>> from flowpolicies.losses import flow_matching
        >>> @loss_term(trains="actor_flow")
        ... def cloning_loss(nets, batch, noise, cfg):
        ...     return flow_matching(nets.online.actor_flow, batch, noise), {}
        >>> cloning_loss.name, cloning_loss.trains
        ('cloning', ('actor_flow',))
    """

    fn: LossFn
    trains: tuple[str, ...]
    """Names of the networks that receive the gradient of the loss."""
    same_draws_as: str | None = None
    """Name of a term of an earlier stage whose draws the stage of this term uses again; None: fresh draws."""

    @property
    def name(self) -> str:
        """The function's name without `_loss`; the prefix of its metrics."""
        return self.fn.__name__.removesuffix("_loss")

    def __call__(self, nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
        hint = f"{self.fn.__name__} trains only {self.trains}; use frozen.<name> to stop gradients."
        return self.fn(nets.restricted(self.trains, hint), batch, noise, cfg)


def loss_term(*, trains: str | Sequence[str], same_draws_as: str | None = None) -> Callable[[LossFn], LossTerm]:
    """Declares a function as a loss term that trains the named networks.

    Args:
        trains: name or names of the networks that receive its gradient.
        same_draws_as: a term of an earlier stage whose draws the stage of this term uses again, for a quantity that is
            computed once more on the same samples after an optimiser step; it must ask for the same draws in the same
            order.
    """
    names = (trains,) if isinstance(trains, str) else tuple(trains)
    return lambda fn: LossTerm(fn, names, same_draws_as)


class UpdateSpec(NamedTuple):
    """What one update does. It is static: each distinct stage is compiled once.

    Examples:
        >>> from flowpolicies.core import UpdateSpec
        >>> only_critic = UpdateSpec(stages=(("critic",),), target_updates=("critic",))  # between actor updates
    """

    stages: tuple[tuple[str, ...], ...] | None = None
    """Names of loss terms per stage. The terms of one stage are summed and differentiated together; stages run in
    order, each at the weights that the stage before it left. None: one stage with all terms."""
    target_updates: tuple[str, ...] | None = None
    """Names of the networks whose target copies are updated; None: all that have one. A target copy is updated in the
    last stage that trains its network, or in the last stage of all if none does."""
    targets_first: bool = True
    """Whether target copies move before the optimiser's step of their stage, and so towards the weights before it, as
    in the authors' JAX code; otherwise they move after the step."""
    copy_weights: tuple[tuple[str, str], ...] = ()
    """Pairs (destination, source) of networks: before the update, the weights and the target copy of the destination
    are set to the target copy of the source, or to its weights if it has no target copy. An algorithm uses it where a
    new phase of training begins."""
