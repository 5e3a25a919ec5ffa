"""The Stable-Baselines3 class that every algorithm extends. It connects SB3's methods to the functional core."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, StopTrainingOnMaxEpisodes
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from flowpolicies.artifacts import reading
from flowpolicies.choices import (
    CompileChoice,
    Precision,
    check_compile,
    choice_of_backend,
    deprecated_backend,
    require_device,
)
from flowpolicies.containers import name_of
from flowpolicies.core import Batch, Learner, LossTerm, UpdateSpec
from flowpolicies.core.learner import MetricMeans
from flowpolicies.core.views import set_mode
from flowpolicies.data import TransitionDataset
from flowpolicies.data.dataset.scaling import RewardScaling, fit_reward_factor, fit_scaling
from flowpolicies.data.replay.buffer import TransitionBuffer, WindowScheme
from flowpolicies.plugins import package_of
from flowpolicies.policies import Evaluation, FlowPolicy, evaluate
from flowpolicies.policies.aliases import check_policy_alias
from flowpolicies.policies.building import limited
from flowpolicies.policies.declaration import check_declared
from flowpolicies.shell.catalog import FAMILIES, REGISTRY, AlgorithmFamily
from flowpolicies.shell.changes import changed_config, sort_changes
from flowpolicies.shell.config import CriticConfig, PolicyConfig, configure
from flowpolicies.shell.exceptions import ATTRIBUTES, CONFORMANCE_EXCEPTIONS, OF_CLASS, WITHOUT_CRITICS
from flowpolicies.shell.fields import NonNegativeInt, PositiveFloat, check_value, hints_of
from flowpolicies.shell.hyperparameters import check_hyperparameters
from flowpolicies.shell.no_environment import AnyEnv, SpacesOnlyVecEnv, require_environment
from flowpolicies.shell.policy_kwargs import check_not_twice, translate, with_activation, with_extractor
from flowpolicies.shell.saved import blaming, check_owner, open_model, read_buffer
from flowpolicies.shell.setup import (
    AUTO,
    as_dataset,
    buffer_class,
    check_environment_fits,
    check_fits,
    copied_environment,
    given_address,
    in_order_of,
    open_env,
    record_of,
    recorded_address,
    spaces_of,
    warn_of_missing_dataset,
    warn_of_other_dataset,
)
from flowpolicies.shell.state import (
    Generators,
    Owners,
    adopt_moments,
    global_generators,
    initial_state,
    set_global_generators,
    spawn,
    without_slices,
)

ALGORITHMS: dict[str, type[OfflineAlgorithm]] = REGISTRY.declared
"""Every algorithm class by its name. A class is added when it is declared; classes of other packages are declared when
they are first used (`flowpolicies.get_algorithm`)."""

REBUILT = ("_learner", "_built", "_state", "_rate", "_noise_generators", "_translated")
"""Attributes that are made from the others, and never saved or copied."""

SETTABLE = ("replay_buffer", "lr_schedule", "num_timesteps", "offline_steps", "dataset_record", "n_envs", "start_time")
"""Attributes that `load` can set, besides the arguments of the constructor."""

OUTPUT_FORMATS = ("stdout", "log", "json", "csv", "tensorboard")
"""Names of all output formats of Stable-Baselines3's logger."""

_POLICIES = ("FlowPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy")


class OfflineAlgorithm(OffPolicyAlgorithm):
    """Abstract: the base of all algorithms. A subclass is final, and declares `Config` and `losses`.

    Args:
        policy: "FlowPolicy"; the names of Stable-Baselines3's policies are aliases of it.
        env: environment, its id, or a VecEnv; None: train offline only, until `set_env`.
        learning_rate: learning rate of Adam; a number, or a schedule of the remaining progress from 1 to 0.
        buffer_size: largest number of online transitions in the replay buffer; those of the dataset do not count.
        learning_starts: number of environment steps before online updates begin. Until then a model that was never
            trained acts at random, a trained one with its policy.
        batch_size, tau, gamma, train_freq, gradient_steps, action_noise: as in Stable-Baselines3.
        n_steps: number of steps of n-step returns without chunks (for chunks see the hyperparameter `horizon`).
        dataset: offline data, or its address ("ogbench:..."); with `env=None` it also determines the spaces.
        compile: whether losses are compiled by torch.compile: True, False, or "auto", which measures a few updates and
            compiles if that repays in the updates to come. Compiled updates differ from eager ones in the last bits, so
            runs with "auto" are not repeatable bit by bit (docs/guides/speed.md).
        precision: number type of the factors of matrix products in updates: "fp32"; "bf16" where the processor has
            units for it, which is faster and not yet recommended; "tf32" on NVIDIA GPUs. All else is float32.
        compile_backend: deprecated; `compile=True` takes the place of `compile_backend="inductor"`.
        **hyperparameters: fields of the algorithm's `Config`.

    Raises:
        ValueError: without environment and dataset, for spaces that do not match, unsupported action spaces, or a
            number out of its range.
        TypeError: for an unknown hyperparameter.

    Examples:
        >>> from flowpolicies import make
        >>> model = make("qflow", env="Pendulum-v1", dataset="pendulum:mixed", guidance_lambda=5.0, seed=0)
        >>> model.learn_offline(1_000).learn(1_000).save("model.zip")
        >>> model = type(model).load("model.zip", env="Pendulum-v1")
        >>> action, _ = model.predict(model.observation_space.sample())
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(_POLICIES, FlowPolicy)
    name: ClassVar[str]
    """Name in the registry, on the command line and in run folders; by default the class name in lower case."""
    family: ClassVar[AlgorithmFamily] = "other"
    """AlgorithmFamily under which the documentation lists it, a key of `flowpolicies.shell.catalog.FAMILIES`."""
    reward_factor: float = 1.0
    """What the rewards of batches are multiplied by, as `reward_scaling` and `reward_gain` of the config decide."""
    Config: ClassVar[type[PolicyConfig]]
    """Hyperparameters, networks, sampler, and what an update does."""
    losses: ClassVar[tuple[LossTerm, ...]]
    """All loss terms, in the order in which they draw noise."""
    act_with: ClassVar[tuple[str, ...]] = ()
    """Networks whose slow copy is used by `predict` and in evaluation."""
    explore_with: ClassVar[tuple[str, ...]] = ()
    """Networks whose slow copy is used while collecting online."""
    windows: ClassVar[WindowScheme] = "uniform"
    """How the replay buffer samples windows of transitions."""
    offline_share: ClassVar[float | None] = None
    """Share of each batch that is sampled from the dataset, once there are online transitions; None: uniform over
    all."""
    uses_next_actions: ClassVar[bool] = False
    """Whether a loss reads `batch.next_actions`; otherwise they are left out of batches, with width 0."""
    parity: ClassVar[tuple[str, ...]] = ()
    """Names of the recordings of the authors' code in tests/golden that tests replay with this algorithm."""

    conformance_exceptions: ClassVar[dict[str, str]] = CONFORMANCE_EXCEPTIONS
    """Checks of `flowpolicies.conformance` that do not apply, each with its reason."""

    policy: FlowPolicy
    action_space: spaces.Box
    compile: CompileChoice = False  # Files of earlier versions have neither.
    precision: Precision = "fp32"
    _stored_steps: int = 0
    """Value of `num_timesteps` when the newest transition was stored."""
    _interrupted: dict[str, Any] | None = None
    """State of the loop that the next `learn` continues."""
    _trained_at: int = 0
    """Value of `num_timesteps` at the newest call of `train`."""
    _fields: ClassVar[frozenset[str]] = frozenset()
    """Names of the fields of `Config`, which are read and set as attributes of the model, too."""

    def __init_subclass__(cls) -> None:
        """Adds the class to ALGORITHMS. The module that declared it may declare it again, as happens in a notebook.

        Raises:
            TypeError: if it lacks a declaration, or another module has an algorithm of its name.
        """
        super().__init_subclass__()
        cls.name = cls.__dict__.get("name", cls.__name__.lower())
        missing = [part for part in ("Config", "losses") if not hasattr(cls, part)]
        if missing:
            raise TypeError(
                f"{cls.__name__} must declare {', '.join(missing)}; see CONTRIBUTING.md, 'Adding an algorithm'"
            )
        if not issubclass(cls.Config, PolicyConfig):
            raise TypeError(
                f"{cls.__name__}.Config must extend PolicyConfig (or CriticConfig) of flowpolicies.shell.config, which "
                f"declares networks() and sampler(); {cls.Config.__name__} does not"
            )
        if cls.family not in FAMILIES:
            raise TypeError(f"{cls.__name__}.family must be one of {', '.join(FAMILIES)}, got {cls.family!r}")
        if (taken := REGISTRY.home(cls.name)) is not None and taken[0] != cls.__module__:
            raise TypeError(
                f"{cls.__name__} of {cls.__module__} would be the algorithm {cls.name!r}, which is the name of "
                f"{'.'.join(taken)}. Declare another one: name = ..."
            )
        ALGORITHMS[cls.name] = cls
        with suppress(NameError):  # Evaluated now, so that nothing is evaluated while a file is read.
            hints_of(cls.Config)
        cls._fields = frozenset(field.name for field in dataclasses.fields(cls.Config))
        critics = {} if issubclass(cls.Config, CriticConfig) else WITHOUT_CRITICS
        cls.conformance_exceptions = {**cls.conformance_exceptions, **critics, **OF_CLASS.get(cls.__name__, {})}

    def __init__(
        self,
        policy: str | type[BasePolicy] = "FlowPolicy",
        env: GymEnv | str | None = None,
        learning_rate: float | Schedule = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 1,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
        *,
        dataset: TransitionDataset | str | os.PathLike[str] | None = None,
        compile: CompileChoice = False,
        precision: Precision = "fp32",
        compile_backend: str | None = None,
        **hyperparameters: Any,
    ) -> None:
        compile = compile if compile_backend is None else deprecated_backend(compile_backend)
        check_compile(compile)
        shared = [name for name in inspect.signature(OfflineAlgorithm).parameters if name != "hyperparameters"]
        policy_kwargs = with_extractor(policy, policy_kwargs)
        implied = translate(policy_kwargs, self.Config, type(self).__name__).hyperparameters
        check_not_twice(implied, hyperparameters)
        self.cfg = configure(self.Config, {**implied, **hyperparameters}, type(self).__name__, shared)
        super().__init__(
            policy,
            open_env(env, type(self).__name__, verbose),  # type: ignore[arg-type]  # None: no environment.
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            action_noise,
            replay_buffer_class,
            replay_buffer_kwargs,
            optimize_memory_usage,
            n_steps,
            policy_kwargs,
            stats_window_size,
            tensorboard_log,
            verbose,
            require_device(device),
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.compile, self.precision = compile, precision
        self.package = package_of(type(self))  # Saved, so that a process without the package can say what is missing.
        self.offline_steps = 0
        self._environment_steps: int | None = None
        self._chunk_state: tuple[np.ndarray, ...] | None = None
        self._is_collecting = self._is_saving = False
        self.dataset_record: dict[str, Any] | None = None
        if _init_setup_model:
            loaded = None if dataset is None else as_dataset(dataset)
            if self.env is None:
                found = spaces_of(loaded, type(self).__name__, self._frame_stack)
                self.observation_space, self.action_space = found
            check_policy_alias(policy, self.observation_space)
            self._setup_model()
            if self.cfg.observation_scaling != "none":
                self._fit_scaling(loaded)
            if loaded is not None:
                self._attach(loaded, given_address(dataset))
            if isinstance(self.cfg, CriticConfig):
                self._fit_reward_factor(loaded, self.cfg.reward_scaling, self.cfg.reward_gain)

    @classmethod
    def from_config(cls, config: PolicyConfig, env: GymEnv | str | None = None, **sb3_hyperparameters: Any) -> Self:
        """A model from an instance of its Config, which a type checker can check.

        `FQL.from_config(FQLConfig(alpha=3.0), env, gamma=0.995)`
        """
        fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        return cls("FlowPolicy", env, **sb3_hyperparameters, **fields)

    @classmethod
    def load(
        cls,
        path: Any,
        env: GymEnv | str | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        *,
        dataset: TransitionDataset | str | os.PathLike[str] | None = None,
        trust: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Loads a model that `save` wrote. Nothing in the file is executed, unless `trust` is set.

        Args:
            path: path (the suffix .zip may be left out) or file object.
            env: environment to continue in.
            device: device of the networks.
            custom_objects: objects that replace those of the file, as in Stable-Baselines3; fields of the Config may be
                among them.
            print_system_info: whether to print the versions that the file was saved with, and the present ones.
            force_reset: whether the environment is reset before training continues.
            dataset: a dataset, its address, or "auto" for the one that the model was trained on, by its address.
            trust: whether to run code in the file. It is needed for models with functions or classes that were saved as
                code, such as a lambda as a schedule of the learning rate, and only for files whose author you trust.
            **kwargs: hyperparameters to change: those of Stable-Baselines3 (gamma, learning_rate, seed, ...) and fields
                of the Config that the networks do not depend on. With a seed, all random numbers from now on follow it.

        Raises:
            FileNotFoundError: if there is no such file.
            ArtifactError: if the file is damaged, holds another algorithm's model, needs `trust`, or declares what its
                weights do not fit.
            ValueError: if a hyperparameter cannot be changed.
            TypeError: for an unknown keyword.
        """
        who, known = cls.__name__, [*inspect.signature(OfflineAlgorithm).parameters, *SETTABLE]
        changes, device = sort_changes(who, cls.Config, kwargs, custom_objects, known), require_device(device)
        saved, replaced = open_model(path), dict(changes.custom_objects or {})
        private: dict[str, Any] = {"_changes": changes.hyperparameters}
        if "compile" in changes.attributes:
            private["compile_backend"] = None  # That of a file of an earlier version does not count.
        if not trust:
            given = {*replaced, *changes.attributes} - {"policy_kwargs"}
            replaced = {**dict.fromkeys(given), **saved.attributes(cls, given), **replaced}
            private["_weights"] = saved.weights()
        with blaming(saved.path, changed=bool(kwargs or custom_objects)):
            # Stable-Baselines3 unpickles only what is not replaced.
            model = super().load(
                saved.file(), None, device, replaced, print_system_info, force_reset, **private, **changes.attributes
            )
        if env is not None:
            model.set_env(env, force_reset)
        if changes.attributes.get("seed") is not None:
            model.set_random_seed(changes.attributes["seed"])
        if dataset is not None:
            model.set_dataset(dataset)
        return model

    def __getattr__(self, name: str) -> Any:
        """The value of a field of the config: `model.alpha` is `model.cfg.alpha`."""
        if name in type(self)._fields and "cfg" in self.__dict__:
            return getattr(self.cfg, name)
        hint = f". {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets an attribute. A field of the config is changed there, for all updates to come.

        Raises:
            ValueError: for a field that the networks depend on.
        """
        if name in type(self)._fields:
            self.cfg = changed_config(self.cfg, {name: value}, type(self).__name__)
        else:
            super().__setattr__(name, value)

    def _setup_model(self) -> None:
        check_owner(type(self).__name__, self.Config, type(self.cfg), self.policy_class)
        self._translated = translate(self.policy_kwargs, self.Config, type(self).__name__)
        # A zip brings fields that were not checked, or a copy of a class that was declared in a notebook.
        if "_weights" in self.__dict__ or type(self.cfg) is not self.Config:
            self.cfg = self.Config(**vars(self.cfg))
        if changes := self.__dict__.pop("_changes", None):  # Of `load`.
            self.cfg = changed_config(self.cfg, changes, type(self).__name__)
        check_hyperparameters(lambda name: getattr(self, name))
        check_value("reward_factor", PositiveFloat, self.reward_factor)
        if self.env is None:
            self.env = SpacesOnlyVecEnv(self.observation_space, self.action_space)
            self.n_envs = self.__dict__.get("n_envs", 1)  # A file brings its number of environments.
        noise_seed, buffer_seed, act_seed, explore_seed = spawn(self.seed, 4)
        if self.replay_buffer is None:
            self._setup_buffer(buffer_seed)
        self._connect_buffer()
        self._setup_policy(act_seed)
        self._apply_reward_factor()
        self._explore = np.random.default_rng(explore_seed)
        self._means = MetricMeans()
        self._setup_training(noise_seed)

    def _setup_training(self, noise_seed: int) -> None:
        """Makes what belongs to this model alone: generators, optimiser, learner."""
        owners: Owners = {"buffer": lambda: self.transitions, "policy": lambda: self.policy}
        self.generators = Generators(self.device, {"noise": noise_seed}, owners)
        self._noise_generators = [self.generators["noise"]]
        self.optimizer = torch.optim.Adam(self.policy.networks.parameters(), lr=self.lr_schedule(1.0))
        self._setup_learner()

    def _setup_buffer(self, seed: int) -> None:
        """Builds the replay buffer."""
        self.replay_buffer_class = buffer_class(self.replay_buffer_class)
        self.replay_buffer = self._make_buffer(seed)

    def buffer_of(self, dataset: TransitionDataset, seed: int = 0) -> TransitionBuffer:
        """Another buffer like that of the model, for another dataset, such as held-out episodes.

        Args:
            dataset: its dataset.
            seed: seed of its batches.

        Raises:
            ValueError: if the dataset does not fit the model, as for `set_dataset`.
        """
        check_fits(dataset, self.observation_space, self.action_space, self.cfg.horizon, self._frame_stack)
        made = self._make_buffer(seed)
        made.attach(dataset)
        return made

    def _make_buffer(self, seed: int) -> TransitionBuffer:
        """A replay buffer as the algorithm declares it; the user's `replay_buffer_kwargs` override it."""
        declared = {
            "horizon": self.cfg.horizon,
            "n_steps": self.n_steps,
            "gamma": self.gamma,
            "windows": self.windows,
            "next_actions": self.uses_next_actions,
            "offline_share": self.offline_share,
            "reward_factor": self.reward_factor,
            "seed": seed,
        }
        return buffer_class(self.replay_buffer_class)(
            self.buffer_size,
            self.observation_space,
            self.action_space,
            self.device,
            self.n_envs,
            self.optimize_memory_usage,
            **{**declared, **self.replay_buffer_kwargs},
        )

    def _setup_policy(self, seed: int) -> None:
        """Builds the policy through SB3 with the arguments that the config implies.

        They are not stored in `policy_kwargs`, which stays what the user gave.
        """
        given, n_steps = self.policy_kwargs, self.n_steps
        implied = {
            "networks": with_activation(self.cfg.networks(self.tau), self._translated.activation),
            "sampler": self.cfg.sampler(),
            "explorer": self.cfg.explorer(),
            "act_with": self.act_with,
            "explore_with": self.explore_with,
            "horizon": self.cfg.horizon,
            "execute": self.cfg.execute,
            "encoder": self.cfg.encoder,
            "scaled": self.cfg.observation_scaling != "none",
            "reward_factor": self.reward_factor,
            "seed": seed,
        }
        self.policy_kwargs = {**implied, **self._translated.own}
        weights: dict[str, torch.Tensor] | None = self.__dict__.pop("_weights", None)  # Of `load`.
        if weights is not None:
            check_declared(self.observation_space, self.action_space, self.policy_kwargs, weights)
        self.n_steps = 1  # SB3 warns of n-step returns with any buffer but its own.
        with nullcontext() if weights is None else limited(sum(tensor.numel() for tensor in weights.values())):
            super()._setup_model()
        self.policy_kwargs, self.n_steps = given, n_steps

    def _setup_learner(self) -> None:
        self._state = state = initial_state(self.policy, self.optimizer)
        self._rate = torch.zeros((), dtype=torch.float32, device=self.device)
        self.optimizer.register_load_state_dict_post_hook(lambda optimizer: adopt_moments(state, optimizer))
        self._build_learner()

    def _build_learner(self) -> None:
        backend = self.__dict__.pop("compile_backend", None)  # The former name, in a file or as a keyword of `load`.
        if backend is not None:
            self.compile = choice_of_backend(backend)
        self._built = self._learned_with()
        self._learner = self._make_learner()

    def _make_learner(self, **seeds: Any) -> Learner:
        """A learner of this model, or of several that differ in `seeds`, the arguments of `Learner` for them."""
        return Learner(
            dict(self.policy.networks.items()),
            self.policy.specs,
            self.losses,
            self.cfg,
            action_dim=self.policy.chunk_dim,
            clip_grad_norm=self.cfg.clip_grad_norm,
            compile=self.compile,
            precision=self.precision,
            **seeds,
        )

    def _learned_with(self) -> tuple[Any, ...]:
        """What the learner was built with, or has to be built with now."""
        return self.cfg, self.gamma, self.tau, self.n_steps, self.compile, self.precision

    def _apply_changes(self) -> None:
        """Rebuilds what depends on hyperparameters that were assigned since the last update."""
        if self._built == self._learned_with():
            return
        check_hyperparameters(lambda name: getattr(self, name))
        before, policy = self._built[0], self.policy
        if policy.sampler == before.sampler():  # Otherwise the user has exchanged it.
            policy.sampler = self.cfg.sampler()
        if policy.explorer == before.explorer():
            policy.explorer = self.cfg.explorer()
        policy.execute = self.cfg.execute or self.cfg.horizon
        policy.specs = with_activation(self.cfg.networks(self.tau), self._translated.activation)
        if (self.gamma, self.n_steps) != (self._built[1], self._built[3]):
            self.transitions.set_discount(self.gamma, self.n_steps)
        self._build_learner()

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seeds everything that draws from now on: batches, noise, acting, exploration, spaces and environments.

        Args:
            seed: a seed as of the constructor; None: nothing is seeded.
        """
        super().set_random_seed(seed)
        if seed is not None and "generators" in self.__dict__:
            noise_seed, buffer_seed, act_seed, explore_seed = spawn(seed, 4)
            self.generators["noise"].manual_seed(noise_seed)
            self.transitions.generator.manual_seed(buffer_seed)
            self.policy.seed(act_seed)
            self._explore = np.random.default_rng(explore_seed)

    @property
    def _frame_stack(self) -> int:
        """Number of consecutive images that the model sees as one observation."""
        return int((self.replay_buffer_kwargs or {}).get("frame_stack", 1))

    @property
    def transitions(self) -> TransitionBuffer:
        """The replay buffer, which holds the dataset and the online transitions."""
        if not isinstance(self.replay_buffer, TransitionBuffer):
            raise TypeError(
                f"{type(self).__name__}.replay_buffer must be a TransitionBuffer, got {self.replay_buffer!r}. "
                "load_replay_buffer makes an empty one first if it is None."
            )
        return self.replay_buffer

    def set_dataset(self, dataset: TransitionDataset | str | os.PathLike[str]) -> None:
        """Makes a dataset the offline part of the replay buffer.

        Args:
            dataset: a dataset, its address, or "auto" for the address of the one that the model was trained on.

        Raises:
            ValueError: if its spaces are not the model's, an episode is shorter than an action chunk, or "auto" has no
                address to load.
        """
        if isinstance(dataset, str) and dataset == AUTO:
            dataset = recorded_address(self.dataset_record, type(self).__name__)
        self._attach(as_dataset(dataset), given_address(dataset))

    def _attach(self, dataset: TransitionDataset, address: str | None) -> None:
        check_fits(dataset, self.observation_space, self.action_space, self.cfg.horizon, self._frame_stack)
        if self._n_updates > 0:
            warn_of_other_dataset(self.dataset_record, dataset)
        self.transitions.attach(dataset)
        self.transitions.start_statistics(self._vec_normalize_env)
        self.dataset_record = record_of(dataset, address)

    def _fit_scaling(self, dataset: TransitionDataset | None) -> None:
        """Measures the observations of the dataset that the model is built with, once for all time."""
        scaling, statistics = self.cfg.observation_scaling, self._vec_normalize_env
        if dataset is None:
            raise ValueError(
                f"pass dataset= to {type(self).__name__}(...): observation_scaling={scaling!r} measures it. Without a "
                "dataset, wrap the environment in Stable-Baselines3's VecNormalize."
            )
        if statistics is not None and statistics.norm_obs:
            raise ValueError(
                f"observations would be scaled twice, by VecNormalize and by observation_scaling={scaling!r}: pass "
                "norm_obs=False to VecNormalize, or observation_scaling='none'."
            )
        self.policy.set_scaling(*fit_scaling(dataset, scaling, self.cfg.observation_gain))

    def _fit_reward_factor(self, dataset: TransitionDataset | None, scaling: RewardScaling, gain: float) -> None:
        """Measures the rewards of the dataset that the model is built with, once for all time."""
        if scaling == "none":
            self.reward_factor = gain
        elif dataset is None:
            raise ValueError(
                f"pass dataset= to {type(self).__name__}(...): reward_scaling={scaling!r} measures it. Without a "
                "dataset, pass the factor as reward_gain, or wrap the environment in Stable-Baselines3's VecNormalize."
            )
        elif self.transitions.hindsight is not None:
            raise ValueError(
                f"reward_scaling={scaling!r} measures the rewards that a dataset stores, but those of '{dataset.name}' "
                "are 0 or -1 for goals that are drawn: pass the factor as reward_gain."
            )
        else:
            self.reward_factor = fit_reward_factor(dataset, scaling, gain)
        self._apply_reward_factor()

    def _apply_reward_factor(self) -> None:
        """Tells buffer and policy of the factor of rewards.

        Raises:
            ValueError: if VecNormalize scales rewards as well.
        """
        statistics = self._vec_normalize_env
        if self.reward_factor != 1 and statistics is not None and statistics.norm_reward:
            raise ValueError(
                f"rewards would be scaled twice, by VecNormalize and by a factor of {self.reward_factor:.6g} "
                "(reward_scaling, reward_gain): pass norm_reward=False to VecNormalize, or build the model without "
                "the factor."
            )
        self.transitions.reward_factor = self.policy.reward_factor = self.reward_factor

    def set_env(self, env: GymEnv | str, force_reset: bool = True) -> None:
        """Attaches an environment (or its id, or a VecEnv of any size) for online training and evaluation.

        Bounds of observations that the model does not know, as with data without a space, become the environment's.

        Raises:
            ValueError: if the spaces of the environment do not fit those of the model.
        """
        opened = open_env(env, type(self).__name__, self.verbose)
        assert opened is not None
        wrapped = self._wrap_env(opened, self.verbose)
        check_environment_fits(self.observation_space, self.action_space, wrapped)
        self._adopt_spaces(wrapped)
        if wrapped.num_envs != self.n_envs:
            self.transitions.set_n_envs(wrapped.num_envs)
            self.n_envs = wrapped.num_envs
        super().set_env(wrapped, force_reset)
        self._connect_buffer()
        self._apply_reward_factor()

    def _connect_buffer(self) -> None:
        """Tells the buffer of the environment, which judges relabelled goals, and of statistics to start."""
        assert self.env is not None
        self.transitions.set_env(self.env)
        self.transitions.start_statistics(self._vec_normalize_env)

    def _adopt_spaces(self, env: VecEnv) -> None:
        """Takes over the bounds of an environment's spaces, which Stable-Baselines3 compares exactly.

        The keys of a Dict keep their order, which is that of the networks' inputs.
        """
        adopted = in_order_of(self.observation_space, env.observation_space)
        for owner in (self, self.policy, self.transitions):
            owner.observation_space, owner.action_space = adopted, env.action_space

    def get_env(self) -> VecEnv | None:
        """The environment, or None if the model has none. While `learn_offline` runs, a stand-in with the spaces."""
        return None if isinstance(self.env, SpacesOnlyVecEnv) and not self.is_offline else self.env

    def train(self, gradient_steps: int = 1, batch_size: int | None = None) -> None:
        """Updates on batches of the buffer. Does nothing as long as an online buffer holds no complete window.

        Args:
            gradient_steps: number of updates.
            batch_size: rows per update; None: the model's `batch_size`.
        """
        self._apply_changes()
        buffer = self.transitions
        if buffer.num_windows() == 0 and buffer.offline is None and self.num_timesteps > 0:
            return
        set_mode(self.policy, True)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self._rate.fill_(learning_rate)  # A new tensor would make the host wait for the GPU.
        if self._learner.compiler is not None:
            self._learner.compiler.updates_to_come = self._updates_to_come(gradient_steps)
        buffer.updates = self._n_updates
        for _ in range(gradient_steps):
            batch = buffer.sample(batch_size or self.batch_size, env=self._vec_normalize_env)
            spec = self.cfg.update_spec(self._n_updates)
            draws = self._learner.draws(self._state, batch, spec, self._noise_generators)
            self._means.add(self._learner.update(self._state, batch, draws, spec, self._rate))
            self._n_updates += 1
        if "_logger" in self.__dict__:
            self._record_newest(learning_rate)

    def probe(self, batch: Batch, generator: torch.Generator) -> dict[str, float]:
        """The losses of a batch, their metrics, and the norms of their gradients, without an update.

        Args:
            batch: transitions, as the replay buffer samples them.
            generator: source of the noise in the losses, on the device of the model.

        Returns:
            The metrics of training by name, such as `critic/loss`, and `critic/grad_norm`: the norm of the gradient of
            each loss before clipping.
        """
        self._apply_changes()
        set_mode(self.policy, False)
        specs = {name: dataclasses.replace(spec, clip_grad_norm=None) for name, spec in self.policy.specs.items()}
        networks = dict(self.policy.networks.items())
        learner = Learner(networks, specs, self.losses, self.cfg, action_dim=self.policy.chunk_dim)
        found: dict[str, torch.Tensor] = {}
        for term in self.losses:
            stages = ((term.name,),) if term.same_draws_as is None else ((term.same_draws_as,), (term.name,))
            draws = learner.draws(self._state, batch, UpdateSpec(stages), [generator])[-1]
            grads, metrics = learner.gradients(self._state, batch, draws, (term.name,))
            squares = [gradient.square().sum() for tree in grads.values() for gradient in tree.values()]
            found |= metrics | {f"{term.name}/grad_norm": torch.stack(squares).sum().sqrt()}
        values = torch.stack([value.float() for value in found.values()]).tolist()
        return dict(zip(found, values, strict=True))

    def _updates_to_come(self, gradient_steps: int) -> int:
        """Estimated number of updates until the end of `learn_offline` or `learn`, and at least `gradient_steps`."""
        steps, self._trained_at = self.num_timesteps - self._trained_at, self.num_timesteps
        left = max(self._total_timesteps - self.num_timesteps, 0)
        return max(gradient_steps, gradient_steps * left // steps if steps > 0 else 0)

    def _record_newest(self, learning_rate: float) -> None:
        """Records the values of the newest update, for callbacks. A dump of the model's own replaces them by means."""
        newest = self._means.newest
        # Offline, values stay tensors, since reading them would wait for the GPU after each update; no format can show
        # tensors as numbers. Online, acting waits in any case.
        shown: list[Any] = list(newest.values()) if self.is_offline else self._means.newest_values()
        exclude = OUTPUT_FORMATS if self.is_offline else None
        for name, value in zip(newest, shown, strict=True):
            self.logger.record(f"train/{name}", value, exclude=exclude)
        self.logger.record("train/learning_rate", learning_rate)
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def learn_offline(
        self,
        gradient_steps: int,
        dataset: TransitionDataset | str | os.PathLike[str] | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "offline",
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
    ) -> Self:
        """Trains on the dataset, without any environment.

        Callbacks are called once per gradient step. Meanwhile `num_timesteps` is the number of offline gradient steps
        so far; afterwards it is again the number of environment steps. `offline_steps` always counts gradient steps.

        Args:
            gradient_steps: number of updates.
            dataset: a dataset, or its address, that replaces the attached one; None: the attached one.
            callback: any Stable-Baselines3 callback; training stops when it returns False.
            log_interval: gradient steps between two dumps of the log; each reports means over the interval.
            tb_log_name: name of the run for TensorBoard.
            progress_bar: whether to show a progress bar.
            reset_num_timesteps: whether a schedule of the learning rate starts again: its progress then falls from 1 to
                0 within this call. False: it continues, and reaches 0 after all offline gradient steps so far and those
                of this call, as with `learn`. `offline_steps` counts on in both cases.

        Raises:
            ValueError: if there is no dataset, or a callback needs episodes, of which there are none.
        """
        if dataset is not None:
            self.set_dataset(dataset)
        names = (tb_log_name, progress_bar, reset_num_timesteps)
        with closing(self.offline_updates(gradient_steps, callback, log_interval, *names)) as steps:
            for _ in steps:
                self.train(gradient_steps=1, batch_size=self.batch_size)
        return self

    def offline_updates(
        self,
        gradient_steps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "offline",
        progress_bar: bool = False,
        reset_num_timesteps: bool = True,
    ) -> Generator[None]:
        """The loop of `learn_offline` without its updates: it stops before each, and the caller makes the update.

        So several models can learn side by side. Close it when it is left early: it then completes the log.

        Yields:
            None, once for each gradient step.
        """
        check_value("gradient_steps", NonNegativeInt, gradient_steps)
        check_value("log_interval", int, log_interval)
        first, total_timesteps = self.offline_steps, self.offline_steps + gradient_steps
        begin = first if reset_num_timesteps else 0
        hooks = self._setup_learn_offline(total_timesteps, callback, tb_log_name, progress_bar)
        hooks.on_training_start(locals(), globals())
        try:
            for _ in range(gradient_steps):
                self._update_current_progress_remaining(self.num_timesteps - begin, total_timesteps - begin)
                yield
                self.offline_steps += 1
                self.num_timesteps = self.offline_steps
                if self.offline_steps % log_interval == 0:
                    self._dump_offline_logs(first)
                hooks.update_locals(locals())
                if not hooks.on_step():
                    break
        finally:  # Completes the log and restores the counters also after Ctrl-C or an error.
            if self.offline_steps % log_interval != 0 and self.offline_steps > first:
                self._dump_offline_logs(first)
            self.num_timesteps, self._environment_steps = self.environment_steps, None
            hooks.on_training_end()

    def _setup_learn_offline(
        self, total: int, callback: MaybeCallback, tb_log_name: str, progress_bar: bool
    ) -> BaseCallback:
        """Does for `learn_offline` what `_setup_learn` does for `learn`; `num_timesteps` now counts gradient steps."""
        if self.transitions.offline is None:
            raise ValueError(
                f"{type(self).__name__} has no dataset (saved models do not contain it). "
                "Call learn_offline(steps, dataset=...) or set_dataset(...)."
            )
        _check_callbacks(callback)
        self.start_time = time.time_ns()
        self._total_timesteps = total
        self.ep_info_buffer = self.ep_info_buffer or deque(maxlen=self._stats_window_size)
        self.ep_success_buffer = self.ep_success_buffer or deque(maxlen=self._stats_window_size)
        if not self._custom_logger:
            fresh = self.offline_steps == 0
            self._logger = configure_logger(self.verbose, self.tensorboard_log, tb_log_name, fresh)
        self._environment_steps, self.num_timesteps = self.num_timesteps, self.offline_steps
        return self._init_callback(callback, progress_bar)

    def _dump_offline_logs(self, first: int) -> None:
        elapsed = max((time.time_ns() - self.start_time) / 1e9, sys.float_info.epsilon)
        self.record_training()
        self.logger.record("time/steps_per_second", (self.offline_steps - first) / elapsed)
        self.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        self.logger.record("time/offline_steps", self.offline_steps, exclude="tensorboard")
        self.logger.dump(step=self.offline_steps)

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Trains online, from scratch or after `learn_offline`, on the union of the dataset and the collected
        transitions.

        The arguments are those of Stable-Baselines3; without `tb_log_name` the run has the name of the class.
        """
        otherwise = "train with learn_offline(gradient_steps)"
        require_environment(self.env, type(self).__name__, "collect from", otherwise)
        if self.transitions.offline is None:
            warn_of_missing_dataset(self.dataset_record)
        name = type(self).__name__ if tb_log_name is None else tb_log_name
        self._is_collecting = True
        try:
            return super().learn(total_timesteps, callback, log_interval, name, reset_num_timesteps, progress_bar)
        finally:
            self._is_collecting = False

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self._n_updates == 0 and self.num_timesteps < learning_starts:
            scaled = self._explore.uniform(-1, 1, (n_envs, *self.action_space.shape)).astype(np.float32)
            return self.policy.unscale_action(scaled), scaled
        assert self._last_obs is not None
        actions, self._chunk_state = self.policy.predict(
            self._last_obs, self._chunk_state, self._last_episode_starts, deterministic=False, explore=True
        )
        scaled = self.policy.scale_action(actions)
        if action_noise is not None:
            scaled = np.clip(scaled + action_noise(), -1, 1)
            actions = self.policy.unscale_action(scaled)
        return actions, scaled

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        self._last_episode_starts, self._stored_steps = dones, self.num_timesteps

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any, **kwargs: Any
    ) -> Any:
        resets = self._last_obs is None or reset_num_timesteps  # SB3 resets the environment then.
        if resets:
            self._chunk_state = None
            self.transitions.end_episodes()
        interrupted, self._interrupted = self._interrupted, None
        noise = self.action_noise
        if interrupted is not None and not resets:
            self.action_noise = None  # SB3 would reset it, in the middle of an episode.
        try:
            found = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)
        finally:
            self.action_noise = noise if self.action_noise is None else self.action_noise
        self._stored_steps = self.num_timesteps
        if interrupted is not None and not reset_num_timesteps:
            set_global_generators(interrupted["random"])  # Last, as the set-up may have drawn from them.
        return found

    @property
    def is_between_steps(self) -> bool:
        """Whether `learn` has begun and the transition of its newest step is stored, so that the next step can begin.

        In a callback's `_on_step` it is not stored yet.
        """
        return self._last_obs is not None and self._stored_steps == self.num_timesteps

    def loop_state(self) -> dict[str, Any]:
        """What the next step of `learn` depends on besides the model, its buffer and the environment.

        These are the last observations, the actions that are left of chunks, and random generators. The values are
        plain data and NumPy's generators; `continue_loop` takes them.
        """
        return {
            "last_obs": self._last_obs,
            "last_original_obs": self._last_original_obs,
            "last_episode_starts": self._last_episode_starts,
            "chunks": self._chunk_state,
            "explore": self._explore,
            "random": global_generators(),
        }

    def continue_loop(self, state: dict[str, Any], *, exact: bool) -> None:
        """Lets the next `learn(..., reset_num_timesteps=False)` continue where `loop_state` was called.

        Call it after `set_env` and `set_dataset`.

        Args:
            state: what `loop_state` returned.
            exact: whether the environment continues, too; otherwise `learn` begins with a reset.
        """
        self._explore, self._interrupted = state["explore"], state
        if exact:
            self._last_obs, self._last_original_obs = state["last_obs"], state["last_original_obs"]
            self._last_episode_starts, self._chunk_state = state["last_episode_starts"], state["chunks"]
            self._stored_steps = self.num_timesteps

    def dump_logs(self) -> None:
        """Writes the log, with the means of the losses since the last time."""
        self.record_training()
        super().dump_logs()

    def record_training(self) -> None:
        """Records the learning rate, the number of updates, and the means of the losses."""
        for key, mean in self._means.pop().items():
            self.logger.record(f"train/{key}", mean)
        self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @property
    def is_offline(self) -> bool:
        """Whether `learn_offline` is running, while `num_timesteps` counts its gradient steps."""
        return self._environment_steps is not None

    @property
    def environment_steps(self) -> int:
        """Environment steps so far, also while `learn_offline` is running."""
        return self.num_timesteps if self._environment_steps is None else self._environment_steps

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Within this context `num_timesteps` has environment steps, where `learn_offline` counts gradient steps."""
        steps, self.num_timesteps = self.num_timesteps, self.environment_steps
        try:
            yield
        finally:
            self.num_timesteps = steps

    def evaluate(
        self,
        env: AnyEnv | None = None,
        episodes: int = 50,
        *,
        deterministic: bool = False,
        seed: int | None = None,
        max_steps: int | None = None,
    ) -> Evaluation:
        """Evaluates the policy in an environment, by default that of the model; see `flowpolicies.evaluate`.

        In a callback of `learn` a copy of the model's environment is used, and the random numbers of exploration stay
        as they are, so that collection continues as if there had been no evaluation.

        Raises:
            ValueError: if there is no environment, or it cannot be copied while `learn` collects in it.
        """
        who, chosen = type(self).__name__, self.env if env is None else env
        env = require_environment(chosen, who, "evaluate in", "pass env=")
        options: dict[str, Any] = {"deterministic": deterministic, "seed": seed, "max_steps": max_steps}
        if not self._is_collecting:
            found = evaluate(self.policy, env, episodes, **options)
            if env is self.env:
                self._last_obs = None  # The training environment was stepped, so collection must begin with a reset.
            return found
        state = self.policy.generator.get_state()
        try:
            apart = copied_environment(env, who) if env is self.env else env
            return evaluate(self.policy, apart, episodes, **options)
        finally:
            self.policy.generator.set_state(state)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """See `FlowPolicy.predict`."""
        return self.policy.predict(observation, state, episode_start, deterministic)

    def _excluded_save_params(self) -> list[str]:
        counting = [
            "_environment_steps",
            "_is_collecting",
            "_is_saving",
            "_means",
            "_stored_steps",
            "_interrupted",
            "_trained_at",
        ]
        return [*super()._excluded_save_params(), *counting, *REBUILT, "optimizer", "generators"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "optimizer", "generators"], []

    def save(self, path: Any, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """Writes a zip that `load` reads, as in Stable-Baselines3; it also holds the state of the random generators."""
        self._is_saving = True
        try:
            super().save(path, exclude, include)
        finally:
            self._is_saving = False

    def get_parameters(self) -> dict[str, dict[str, Any]]:
        """Weights and optimiser, as in Stable-Baselines3; `set_parameters` takes them."""
        found: dict[str, dict[str, Any]] = super().get_parameters()
        if not self._is_saving:
            del found["generators"]
        return without_slices(found) if self._is_saving else found

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """As in Stable-Baselines3. The random generators stay as they are, unless their states are given too.

        Args:
            load_path_or_dict: what `get_parameters` returned, or the path or file object of a model zip, of which only
                the tensors are read.
            exact_match: whether all parameters must be given.
            device: device on which the tensors are loaded.

        Raises:
            ArtifactError: if the file is damaged, or its tensors are not those of this model.
            ValueError: if parameters are missing or unknown.
        """
        if not isinstance(load_path_or_dict, dict):
            saved = open_model(load_path_or_dict)
            saved.weights()
            with blaming(saved.path, changed=False):
                super().set_parameters(saved.file(), exact_match, device)  # type: ignore[arg-type]
            return
        if isinstance(load_path_or_dict, dict) and "generators" not in load_path_or_dict:
            load_path_or_dict = {**load_path_or_dict, "generators": self.generators.state_dict()}
        super().set_parameters(load_path_or_dict, exact_match, device)

    def load_replay_buffer(self, path: Any, truncate_last_traj: bool = True, *, trust: bool = False) -> None:
        """Takes over the online transitions of a buffer that `save_replay_buffer` wrote, as in Stable-Baselines3.

        The dataset stays attached, and gamma, horizon and seed stay those of the model. The file is a pickle. It is
        read without executing anything in it, unless `trust` is set.

        Args:
            path: path or file object.
            truncate_last_traj: whether the episode that was in progress ends where it was saved; otherwise the next
                transition continues it.
            trust: whether to run code in the file, for buffers with objects that replay buffers do not consist of.

        Raises:
            ArtifactError: if the file is damaged or needs `trust`, or the buffer holds transitions of other spaces, or
                is of a class that cannot be read.
        """
        buffer = read_buffer(path, trust=trust, verbose=self.verbose)
        if self.replay_buffer is None:  # Removed to free memory.
            self._setup_buffer(spawn(self.seed, 4)[1])
            self._connect_buffer()
            self._apply_reward_factor()
        self.transitions.device = self.device
        with reading(name_of(path)):
            self.transitions.adopt(buffer)
        if truncate_last_traj:
            self.transitions.end_episodes()

    def __getstate__(self) -> dict[str, Any]:
        """A pickle is complete, but for the environment and the logger, which belong to the process."""
        state = {name: value for name, value in self.__dict__.items() if name not in REBUILT}
        state |= {"env": None, "_logger": None, "_custom_logger": False, "_vec_normalize_env": None, "_last_obs": None}
        state["_interrupted"] = None
        state["optimizer"], state["generators"] = self.optimizer.state_dict(), self.generators.state_dict()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        optimizer, generators = state.pop("optimizer"), state.pop("generators")
        self.__dict__.update(state)
        self.env = SpacesOnlyVecEnv(self.observation_space, self.action_space)
        del self._logger
        self._setup_training(spawn(self.seed, 4)[0])
        self.optimizer.load_state_dict(optimizer)
        self.generators.load_state_dict(generators)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy that shares nothing with its original, with a copy of the environment if that can be copied."""
        twin = type(self).__new__(type(self))
        twin.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        if not isinstance(self.env, SpacesOnlyVecEnv | None):
            try:
                twin.env = env = copied_environment(self.env, type(self).__name__)
            except ValueError as error:
                warnings.warn(f"the copy has no environment; call set_env on it. {error}", stacklevel=3)
            else:
                twin._vec_normalize_env = unwrap_vec_normalize(env)
                twin._last_obs = copy.deepcopy(self._last_obs)
        return twin

    def __copy__(self) -> Self:
        """As `copy.deepcopy`: a shallow copy would share networks, buffer and generators."""
        return copy.deepcopy(self)


def _check_callbacks(callback: MaybeCallback) -> None:
    """Raises a ValueError if a callback of `learn_offline` counts episodes, which only an environment has."""
    for part in _parts(callback):
        if isinstance(part, StopTrainingOnMaxEpisodes):
            raise ValueError(
                "StopTrainingOnMaxEpisodes counts episodes of the environment, and learn_offline has none. Limit "
                "gradient_steps instead, or use the callback with learn()."
            )


def _parts(callback: MaybeCallback) -> list[Any]:
    inside = callback.callbacks if isinstance(callback, CallbackList) else callback
    return [part for child in inside for part in _parts(child)] if isinstance(inside, list) else [callback]
