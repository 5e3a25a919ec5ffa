"""Configurations that algorithms share. The Config of an algorithm extends one of them.

A Config is the declaration of its algorithm: hyperparameters, networks, how the policy acts, and what an update does.
"""

from __future__ import annotations

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from flowpolicies.core import Network, UpdateSpec, is_zero
from flowpolicies.data.dataset.scaling import RewardScaling, Scaling
from flowpolicies.flows import BetaSchedule, Diffusion, ReverseRule
from flowpolicies.losses import QAggregation
from flowpolicies.messages import did_you_mean
from flowpolicies.networks import (
    ENCODERS,
    Critic,
    GaussianNetwork,
    NoisePrediction,
    NoisyValue,
    TanhNormal,
    Value,
    VelocityField,
)
from flowpolicies.plugins import home_of
from flowpolicies.samplers import Denoise, Integrate, IntegrateResidual, Sampler, SoftmaxOfN
from flowpolicies.shell.exceptions import ARGUMENTS
from flowpolicies.shell.fields import Bounds, NonNegativeInt, PositiveFloat, UnitInterval, added_fields, check_config


def _is_encoder(name: Any) -> bool:
    ENCODERS.check_known(name)  # Its error lists the known names.
    return True


EncoderName = Annotated[str, Bounds("be the name of an encoder", _is_encoder)]
"""Name of an image encoder, built in or registered; see `flowpolicies.networks.register_encoder`."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig(ABC):
    """Abstract: hyperparameters that every algorithm has.

    Examples:
        >>> from flowpolicies import BC
        >>> model = BC(dataset="pendulum:mixed", horizon=4, execute=2, observation_scaling="standard")
        >>> model.cfg.execute
        2
    """

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of fields and their present names. Old names work until 1.0, with a deprecation warning."""
    added: ClassVar[Mapping[str, Any]] = {"observation_scaling": "none", "observation_gain": 1.0}
    """Fields of this class that models and runs of version 0.1.0 lack, and the values that act as that version did."""

    horizon: int = 1
    """Length H of an action chunk, in environment steps: the policy plans H actions and executes them open loop."""
    execute: int | None = None
    """Number of actions of a chunk that are executed before the policy plans again; None: all of them."""
    actor_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)
    """Hidden widths of actors and velocity fields."""
    actor_layer_norm: bool = False
    """Whether actors and velocity fields have LayerNorm after each activation."""
    encoder: EncoderName = "impala_small"
    """Encoder of the images in an observation, such as impala_small, impala or impala_large. Observations without
    images do not use it."""
    observation_scaling: Scaling = "none"
    """How networks see the numbers of an observation (not images, not categories): as they are (none), with mean 0 and
    standard deviation 1 (standard), or from -1 to 1 (min_max), as measured in the dataset that the model is built with.
    The measured numbers are part of the model and of its policy files."""
    observation_gain: PositiveFloat = 1.0
    """Factor of scaled observations. Values above 1 let small networks tell places apart that are close to each other,
    such as the two sides of a wall."""
    clip_grad_norm: float | None = None
    """Largest norm of the joint gradient of all networks, which is clipped to it; None: no clipping."""

    def __post_init__(self) -> None:
        check_config(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Unpickles a config, also one of an earlier version in which a field had another name or did not exist."""
        self.__dict__.update(added_fields(type(self)) | current_names(type(self), state))

    def __reduce__(self) -> tuple[Any, ...]:
        """A config is pickled by the name of its class, also where that is declared in a notebook or a function."""
        return restore_config, (*home_of(type(self)), dict(vars(self)))

    @abstractmethod
    def networks(self, tau: float) -> dict[str, Network]:
        """The named networks of the algorithm.

        Args:
            tau: Polyak rate in (0, 1], for target copies that move at the algorithm's `tau`.
        """

    @abstractmethod
    def sampler(self) -> Sampler:
        """How the policy acts in evaluation, and in losses that need the policy's actions."""

    def explorer(self) -> Sampler | None:
        """How the policy acts while it collects online. None: as in `sampler`."""
        return None

    def update_spec(self, step: int) -> UpdateSpec:
        """What update number `step`, counted from 0, does. By default all loss terms are trained together.

        An algorithm with delayed, sequential or phased updates defines its own.
        """
        return UpdateSpec()


def config_at(module: str, name: str) -> type[PolicyConfig] | None:
    """The Config of a module and qualified name, the newest one if it was declared again; None if there is none."""
    todo, found = [PolicyConfig], None
    while todo:
        cls = todo.pop(0)
        todo += cls.__subclasses__()
        found = cls if home_of(cls) == (module, name) else found
    return found


def restore_config(module: str, name: str, state: dict[str, Any]) -> PolicyConfig:
    """The config that was pickled by the name of its class. Its module is imported if the class is not known yet.

    Raises:
        ImportError: if there is no such class.
    """
    if (cls := config_at(module, name)) is None:
        importlib.import_module(module)
        cls = config_at(module, name)
    if cls is None:
        raise ImportError(f"the module {module} declares no Config named {name}")
    made = cls.__new__(cls)
    made.__setstate__(state)
    return made


@dataclass(frozen=True, kw_only=True)
class CriticConfig(PolicyConfig):
    """Abstract: hyperparameters that every algorithm with a critic has.

    Examples:
        >>> from flowpolicies import FQL
        >>> model = FQL(dataset="pendulum:mixed", ensemble=10, q_agg="mean", rho=0.5)  # a pessimistic ensemble
    """

    added: ClassVar[Mapping[str, Any]] = {"reward_scaling": "none", "reward_gain": 1.0}

    value_hidden_dims: tuple[int, ...] = (512, 512, 512, 512)
    """Hidden widths of critics and value functions."""
    value_layer_norm: bool = True
    """Whether critics and value functions have LayerNorm after each activation."""
    ensemble: int = 2
    """Number K of critics."""
    q_agg: QAggregation = "mean"
    """How the target critics become one value: their mean minus rho standard deviations, or their minimum."""
    rho: float = 0.0
    """Pessimism rho: the critics' value is mean - rho * std over them; needs q_agg="mean"."""
    reward_scaling: RewardScaling = "none"
    """What rewards are divided by, as measured in the dataset that the model is built with: their standard deviation
    (standard), the largest absolute reward (max_abs), the difference between the largest and the smallest return of an
    episode (return_range), or nothing (none). It also applies to rewards that are collected online; evaluations report
    original rewards. The measured number is part of the model and of its policy files."""
    reward_gain: PositiveFloat = 1.0
    """Factor of the rewards after reward_scaling; 1000 with return_range is what IQL does on locomotion tasks."""

    uses_rho_with_min: ClassVar[bool] = False
    """Whether a loss uses rho although q_agg="min"."""


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(CriticConfig):
    """Abstract: hyperparameters of algorithms whose policy is a diffusion with finitely many noise levels."""

    first_index: ClassVar[Literal[0, 1]] = 1
    """Index of the least noisy level, as the network receives it."""

    diffusion_steps: int = 5
    """Number T of noise levels of the diffusion, and so of network calls per action."""
    beta_schedule: BetaSchedule = "vp"
    """Noise schedule of the diffusion: how noise grows with the level."""

    @property
    def diffusion(self) -> Diffusion:
        """The noising process of the configured levels."""
        return Diffusion(self.diffusion_steps, self.beta_schedule, self.first_index)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig(DiffusionConfig):
    """Abstract: hyperparameters that DAC and QSM share in the form of QAM's code."""

    diffusion_steps: int = 10
    """Number T of noise levels of the diffusion, and so of network calls per action."""
    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho: the critics' value is mean - rho * std over them (the authors use 0 on humanoidmaze)."""
    clip_grad_norm: float | None = 1.0
    """Largest norm of the joint gradient of all networks, which is clipped to it; None: no clipping."""
    time_dim: int = 64
    """Number of Fourier features of the noise level; their frequencies are trained."""

    def networks(self, tau: float) -> dict[str, Network]:
        # The embedded noise level passes through an MLP that is as wide as the policy's own, as in QAM's code.
        level: dict[str, Any] = {"time_embedding": "learned_fourier", "time_dim": self.time_dim}
        actor = noise_prediction(self, **level, time_hidden_dims=self.actor_hidden_dims)
        return {"critic": critic(self, target_rate=tau), "actor_diffusion": actor}


@dataclass(frozen=True, kw_only=True)
class FineTunedConfig(CriticConfig):
    """Abstract: hyperparameters of algorithms that fine-tune a flow along the memoryless SDE."""

    ensemble: int = 10
    """Number K of critics."""
    rho: float = 0.5
    """Pessimism rho: the critics' value is mean - rho * std over them (the authors use 0 on humanoidmaze)."""
    clip_grad_norm: float | None = 1.0
    """Largest norm of the joint gradient of all networks, which is clipped to it; None: no clipping."""
    inv_temp: float = 0.3
    """Weight of Q, the paper's tau; tune this one first (0.1 to 30). At 0 the policy is the behaviour flow."""
    flow_steps: int = 10
    """Number T of Euler steps of the flows and of the SDE."""
    best_of_n: int = 1
    """Number of candidates per action, when acting and in TD targets; the critics' mean chooses the best."""
    target_actor: bool = True
    """Whether the fine-tuning loss uses the slow copy of the behaviour flow; otherwise it uses the current weights."""
    residual: bool = False
    """Whether the trained network is added to the behaviour flow; otherwise it is the fine-tuned flow itself."""

    def fine_tuned_networks(self, tau: float) -> dict[str, Network]:
        """Critics and a behaviour flow with slow copies, and the network that fine-tuning trains."""
        flows = {"actor_slow": velocity(self, target_rate=tau), "actor_fast": velocity(self)}
        return {"critic": critic(self, target_rate=tau), **flows}

    def fine_tuned_flow(self) -> Sampler:
        """The fine-tuned flow, without a choice among candidates."""
        if is_zero(self.inv_temp):  # Q has no weight: as in QAM's code, the behaviour flow acts.
            return Integrate("actor_slow", steps=self.flow_steps)
        if self.residual:
            return IntegrateResidual("actor_slow", "actor_fast", steps=self.flow_steps)
        return Integrate("actor_fast", steps=self.flow_steps)


@dataclass(frozen=True, kw_only=True)
class BackpropagatedConfig(CriticConfig):
    """Abstract: hyperparameters of Diffusion-QL and CAC, whose actor climbs Q through all steps of its sampler."""

    actor_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the actor."""
    value_hidden_dims: tuple[int, ...] = (256, 256, 256)
    """Hidden widths of the critics."""
    value_layer_norm: bool = False
    """Whether the critics have LayerNorm after each activation."""
    q_agg: QAggregation = "min"
    """How the target critics become one value: their minimum, or their mean minus rho standard deviations."""
    clip_grad_norm: float | None = 1.0
    """Largest norm of each network's gradient, the papers' gn (1 to 10 on D4RL); None: no clipping."""
    critic_learning_rate: float | None = 3e-4
    """Learning rate of the critics; None: the common learning_rate."""
    eta: float = 1.0
    """Weight of Q against behaviour cloning; tune this one first (the authors use 0.005 to 4.5)."""
    max_q_backup: bool = False
    """Whether each target critic takes the best of 10 next actions; otherwise there is one next action."""
    ema: UnitInterval = 0.995
    """Decay per move of the slow actor, whose actions are in the TD targets."""
    ema_every: int = 5
    """Number of updates between two moves of the slow actor."""
    ema_start: NonNegativeInt = 1000
    """Number of updates before the slow actor moves for the first time; until then it is the untrained actor."""
    num_samples: int = 50
    """Number N of candidates per action; one is drawn with probability softmax(min_e Qbar_e)."""

    @abstractmethod
    def actor(self) -> Sampler:
        """The policy's sampler of one action, without a choice among candidates."""

    def sampler(self) -> Sampler:
        return SoftmaxOfN(self.actor(), self.num_samples)

    def update_spec(self, step: int) -> UpdateSpec:
        """First the critics, then the actor, whose loss sees the updated critics."""
        # As in the authors' code, targets take their actions from the untrained slow actor until `ema_start`, and slow
        # copies move after the step (docs/algorithms/diffusion_ql.md, "Where code and paper differ").
        actor_is_due = step >= self.ema_start and step % self.ema_every == 0
        target_updates = None if actor_is_due else ("critic",)
        return UpdateSpec((("critic",), ("actor",)), target_updates, targets_first=False)

    def backpropagated_networks(self, tau: float, actor: str) -> dict[str, Network]:
        """Critics and an actor with slow copies, each with a gradient clip of its own, in PyTorch's default
        initialisation."""
        common: dict[str, Any] = {"activation": "mish", "initialization": "torch"}
        own_rate = replace(critic(self, tau, **common), learning_rate=self.critic_learning_rate)
        networks = {"critic": own_rate, actor: noise_prediction(self, 1 - self.ema, **common)}
        return {name: replace(network, clip_grad_norm=self.clip_grad_norm) for name, network in networks.items()}


def denoise(cfg: DiffusionConfig, rule: ReverseRule = "ancestral") -> Denoise:
    """The sampler of the reverse chain of `actor_diffusion`."""
    return Denoise("actor_diffusion", cfg.diffusion_steps, cfg.beta_schedule, cfg.first_index, rule)


def velocity(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A velocity field of the configured size."""
    factory = partial(VelocityField, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def gaussian(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A Gaussian policy of the configured size."""
    factory = partial(GaussianNetwork, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def noise_prediction(cfg: PolicyConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A noise-prediction network of the configured size."""
    factory = partial(NoisePrediction, hidden_dims=cfg.actor_hidden_dims, layer_norm=cfg.actor_layer_norm, **options)
    return Network(factory, target_rate)


def critic(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """An ensemble of critics of the configured size."""
    options = {"ensemble": cfg.ensemble, **options}
    factory = partial(Critic, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)


def noisy_value(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """An ensemble of values of noisy actions of the configured size."""
    options = {"ensemble": cfg.ensemble, "layer_norm": cfg.value_layer_norm, **options}
    return Network(partial(NoisyValue, hidden_dims=cfg.value_hidden_dims, **options), target_rate)


def value(cfg: CriticConfig, target_rate: float | None = None, **options: Any) -> Network:
    """A state value of the configured size."""
    factory = partial(Value, hidden_dims=cfg.value_hidden_dims, layer_norm=cfg.value_layer_norm, **options)
    return Network(factory, target_rate)


def edit_actor(cfg: PolicyConfig) -> Network:
    """A tanh-normal policy of the configured size that takes an action and returns an edit of it."""
    sizes: dict[str, Any] = {"hidden_dims": cfg.actor_hidden_dims, "layer_norm": cfg.actor_layer_norm}
    return Network(partial(TanhNormal, **sizes, takes_action=True))


def current_names(config: type[PolicyConfig], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of fields by name, with old names replaced by present ones."""
    return {config.renamed.get(name, name): value for name, value in values.items()}


def configure(
    config: type[PolicyConfig], hyperparameters: Mapping[str, Any], who: str, shared: Iterable[str]
) -> PolicyConfig:
    """An instance of an algorithm's config.

    Args:
        config: class of the config.
        hyperparameters: values of its fields by name; the other fields have their defaults.
        who: name of the algorithm, for the error.
        shared: keywords that every algorithm takes, which an unknown name is compared with too.

    Raises:
        TypeError: for an unknown hyperparameter, with the nearest name.
    """
    for old in config.renamed.keys() & hyperparameters.keys():
        warnings.warn(
            f"the hyperparameter {old} is now {config.renamed[old]}; the old name works until 1.0.",
            DeprecationWarning,
            stacklevel=3,
        )
    hyperparameters = current_names(config, hyperparameters)
    known = [field.name for field in fields(config)]
    for name in hyperparameters:
        if name not in known:
            also = [keyword for keyword in shared if not keyword.startswith("_")]
            if name in ARGUMENTS:
                raise TypeError(f"{who} does not take {name!r}. {ARGUMENTS[name]}")
            hint = did_you_mean({"lr": "learning_rate", "discount": "gamma"}.get(name, name), [*known, *also])
            raise TypeError(
                f"{who} has no hyperparameter {name!r}; it has {', '.join(known)}, and like all algorithms "
                f"{', '.join(also)}.{hint}"
            )
    return config(**hyperparameters)
