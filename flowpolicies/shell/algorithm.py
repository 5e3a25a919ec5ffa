"""The one shell around the functional core: Stable-Baselines3's algorithm class."""

from __future__ import annotations

import dataclasses
import inspect
from abc import abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from flowpolicies.core import Learner, LossTerm, Network, Step
from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer, WindowScheme
from flowpolicies.plugins import package_of
from flowpolicies.policies import Evaluation, FlowPolicy, evaluate
from flowpolicies.policies.devices import check_device
from flowpolicies.samplers import Sampler
from flowpolicies.shell.hyperparameters import check_knobs
from flowpolicies.shell.offline import OfflineLoop, SpacesOnlyVecEnv
from flowpolicies.shell.registry import configure, register
from flowpolicies.shell.saved import check_model_file, check_owner
from flowpolicies.shell.setup import (
    Env,
    check_fits,
    load,
    make_buffer,
    open_env,
    policy_arguments,
    require_environment,
    spaces_of,
)
from flowpolicies.shell.state import Generators, MetricMeans, Owners, adopt_moments, initial_state, spawn

_POLICIES = ("FlowPolicy", "MlpPolicy", "CnnPolicy", "MultiInputPolicy")


class OfflineAlgorithm(OffPolicyAlgorithm):
    """Abstract. A subclass is final and declares `Config`, `losses`, `networks` and `sampler`.

    Args:
        policy: "FlowPolicy"; Stable-Baselines3's names are aliases of it.
        env: environment, its id, or a VecEnv; None: train offline only, until `set_env`.
        learning_rate: of the one Adam; a number, or a schedule of the remaining progress from 1 to 0.
        buffer_size: room for online transitions; the dataset is kept beside it.
        learning_starts: environment steps before online updates begin. A model that was never trained acts at random
            until then, a trained one with its policy.
        batch_size, tau, gamma, train_freq, gradient_steps, action_noise: as in Stable-Baselines3.
        n_steps: length of n-step returns without chunks (for chunks see the hyperparameter `horizon`).
        dataset: offline data, or its address ("ogbench:..."); with `env=None` the spaces come from it.
        compile_backend: a `torch.compile` backend such as "inductor" for the whole update; None: eager.
        **hyperparameters: fields of the algorithm's `Config`.

    Raises:
        ValueError: without environment and dataset, for spaces that do not match, unsupported action spaces, or a
            number out of its range.
        TypeError: for an unknown hyperparameter.
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = dict.fromkeys(_POLICIES, FlowPolicy)
    name: ClassVar[str]
    Config: ClassVar[type]
    losses: ClassVar[tuple[LossTerm, ...]]
    act_with: ClassVar[tuple[str, ...]] = ()
    """Networks whose slow copy acts in `predict` and in evaluation."""
    explore_with: ClassVar[tuple[str, ...]] = ()
    """Networks whose slow copy acts while collecting online."""
    windows: ClassVar[WindowScheme] = "uniform"
    """How the buffer draws windows of transitions."""
    offline_share: ClassVar[float | None] = None
    """Share of each batch that comes from the dataset, once there are online transitions; None: uniform over all."""
    uses_next_actions: ClassVar[bool] = False
    """Whether a loss reads `batch.next_actions`; else they are not gathered, and have width 0."""
    parity: ClassVar[tuple[str, ...]] = ()
    """Recordings of the authors' code that are replayed through it."""

    policy: FlowPolicy
    action_space: spaces.Box

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.name = cls.__dict__.get("name", cls.__name__.lower())
        register(cls)

    @staticmethod
    @abstractmethod
    def networks(cfg: Any, tau: float) -> dict[str, Network]:
        """The named networks; `tau` is the algorithm's Polyak rate."""

    @staticmethod
    @abstractmethod
    def sampler(cfg: Any) -> Sampler:
        """How the policy acts."""

    @staticmethod
    def explorer(cfg: Any) -> Sampler | None:
        """How it acts while collecting online, if evaluation differs; None: as `sampler` says."""
        return None

    @classmethod
    def schedule(cls, step: int, cfg: Any) -> Step:
        """Every term, together, at every step. Override for delayed, sequential or phased updates."""
        return Step((tuple(term.name for term in cls.losses),))

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
        dataset: TransitionDataset | str | None = None,
        compile_backend: str | None = None,
        **hyperparameters: Any,
    ) -> None:
        knobs = [name for name in inspect.signature(OfflineAlgorithm).parameters if name != "hyperparameters"]
        self.cfg = configure(self.Config, hyperparameters, type(self).__name__, knobs)
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
            check_device(device),
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Box,),
            support_multi_env=True,
        )
        self.compile_backend = compile_backend
        self.package = package_of(type(self))  # Saved, so that a process without the package can say what is missing.
        self.offline_steps = 0
        self._set_aside: int | None = None
        self._chunk_state: tuple[np.ndarray, ...] | None = None
        if _init_setup_model:
            dataset = load(dataset)
            if self.env is None:
                self.observation_space, self.action_space = spaces_of(dataset, self)
            self._setup_model()
            if dataset is not None:
                self.set_dataset(dataset)

    @classmethod
    def from_config(cls, config: Any, env: GymEnv | str | None = None, **knobs: Any) -> Self:
        """Type-checked construction: `FQL.from_config(FQLConfig(alpha=3.0), env)`."""
        return cls("FlowPolicy", env, **knobs, **{f.name: getattr(config, f.name) for f in dataclasses.fields(config)})

    @classmethod
    def load(
        cls, path: Any, env: GymEnv | None = None, device: torch.device | str = "auto", *args: Any, **kwargs: Any
    ) -> Self:
        """As Stable-Baselines3's. A zip executes code when it is loaded: load only what you trust.

        Raises:
            ValueError: if the file is damaged, or holds another algorithm's model.
        """
        return super().load(check_model_file(path), env, check_device(device), *args, **kwargs)

    def _setup_model(self) -> None:
        check_owner(self)
        check_knobs(self)
        if self.env is None:
            self.env, self.n_envs = SpacesOnlyVecEnv(self.observation_space, self.action_space), 1
        noise_seed, buffer_seed, act_seed, explore_seed = spawn(self.seed, 4)
        if self.replay_buffer is None:
            self.replay_buffer = make_buffer(self, buffer_seed)
        self._setup_policy(act_seed)
        owners: Owners = {"buffer": lambda: self.transitions, "policy": lambda: self.policy}
        self.generators = Generators(self.device, {"noise": noise_seed}, owners)
        self._explore = np.random.default_rng(explore_seed)
        self.optimizer = torch.optim.Adam(self.policy.networks.parameters(), lr=self.lr_schedule(1.0))
        self._means = MetricMeans()
        self._setup_learner()

    @property
    def transitions(self) -> TransitionBuffer:
        """The replay buffer: the dataset, and what was collected online."""
        assert isinstance(self.replay_buffer, TransitionBuffer)
        return self.replay_buffer

    def _setup_policy(self, seed: int) -> None:
        """Lets the parent build it, with arguments that follow from the config and are not the user's to save."""
        mine, n_steps = self.policy_kwargs, self.n_steps
        self.policy_kwargs = {**policy_arguments(self), "seed": seed, **mine}
        self.n_steps = 1  # The parent warns of n-step returns with a buffer that is not its own.
        super()._setup_model()
        self.policy_kwargs, self.n_steps = mine, n_steps

    def _setup_learner(self) -> None:
        self._state = initial_state(self.policy, self.optimizer)
        self.optimizer.register_load_state_dict_post_hook(lambda optimizer: adopt_moments(self._state, optimizer))
        self._learner = Learner(
            dict(self.policy.networks.items()),
            self.policy.specs,
            self.losses,
            self.cfg,
            action_dim=self.policy.chunk_dim,
            clip_grad_norm=self.cfg.clip_grad_norm,
            compile_backend=self.compile_backend,
        )

    def set_dataset(self, dataset: TransitionDataset | str) -> None:
        """Makes a dataset the offline part of the replay buffer.

        Raises:
            ValueError: if its spaces are not the model's, or an episode is shorter than an action chunk.
        """
        loaded = load(dataset)
        assert loaded is not None
        check_fits(loaded, self)
        self.transitions.attach(loaded)

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """Attaches an environment (or a VecEnv of any size) for online training and evaluation."""
        wrapped = self._wrap_env(env, self.verbose)
        if wrapped.num_envs != self.n_envs:
            self.transitions.set_n_envs(wrapped.num_envs)
            self.n_envs = wrapped.num_envs
        super().set_env(wrapped, force_reset)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """Updates on batches of the buffer; none while an online buffer holds no window yet."""
        buffer = self.transitions
        if buffer.num_windows() == 0 and buffer.offline is None and self.num_timesteps > 0:
            return
        self.policy.set_training_mode(True)
        learning_rate = self.lr_schedule(self._current_progress_remaining)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        rate = torch.tensor(learning_rate, device=self.device)
        buffer.updates = self._n_updates
        for _ in range(gradient_steps):
            batch = buffer.sample(batch_size, env=self._vec_normalize_env)
            step = self.schedule(self._n_updates, self.cfg)
            draws = self._learner.draws(self._state, batch, step, [self.generators["noise"]])
            self._means.add(self._learner.update(self._state, batch, draws, step, rate))
            self._n_updates += 1

    def learn_offline(
        self,
        gradient_steps: int,
        dataset: TransitionDataset | str | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "offline",
        progress_bar: bool = False,
    ) -> Self:
        """Trains on the dataset, without any environment.

        Callbacks see one step per gradient step, with `num_timesteps` the number of offline gradient steps so far;
        afterwards `num_timesteps` is again the number of environment steps, and `offline_steps` keeps the other.

        Args:
            gradient_steps: how many updates.
            dataset: replaces the attached one.
            callback: any Stable-Baselines3 callback; one that returns False stops.
            log_interval: gradient steps between two dumps of the log; each reports means over the interval.

        Raises:
            ValueError: if there is no dataset.
        """
        if dataset is not None:
            self.set_dataset(dataset)
        OfflineLoop(self, gradient_steps, log_interval).run(callback, tb_log_name, progress_bar)
        return self

    def learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> Self:
        """Trains online, from scratch or after `learn_offline`, on the union of the dataset and what it collects."""
        require_environment(self.env, self, "collect from", "train with learn_offline(gradient_steps)")
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

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
        self._last_episode_starts = dones

    def _setup_learn(
        self, total_timesteps: int, callback: Any = None, reset_num_timesteps: bool = True, *args: Any, **kwargs: Any
    ) -> Any:
        if self._last_obs is None or reset_num_timesteps:  # The parent resets the environment.
            self._chunk_state = None
            self.transitions.end_episodes()
        return super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *args, **kwargs)

    def dump_logs(self) -> None:
        """Adds the means of the losses since the last dump."""
        self.record_training()
        super().dump_logs()

    def record_training(self) -> None:
        """Records learning rate, number of updates, and means of the losses."""
        for key, mean in self._means.pop().items():
            self.logger.record(f"train/{key}", mean)
        self.logger.record("train/learning_rate", self.lr_schedule(self._current_progress_remaining))
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    @property
    def is_offline(self) -> bool:
        """Whether `learn_offline` is running, which lends `num_timesteps` to its gradient steps."""
        return self._set_aside is not None

    @property
    def environment_steps(self) -> int:
        """Environment steps so far, also while `learn_offline` is running."""
        return self.num_timesteps if self._set_aside is None else self._set_aside

    def evaluate(
        self, env: Env | None = None, episodes: int = 50, *, deterministic: bool = False, seed: int | None = None
    ) -> Evaluation:
        """Rolls the policy out, in the model's environment unless another is given; see `flowpolicies.evaluate`."""
        env = require_environment(self.env if env is None else env, self, "evaluate in", "pass env=")
        found = evaluate(self.policy, env, episodes, deterministic=deterministic, seed=seed)
        if env is self.env:
            self._last_obs = None  # The training environment was moved; collection starts with a reset.
        return found

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
        mine = ["_learner", "_state", "_means", "_set_aside", "optimizer", "generators"]
        return [*super()._excluded_save_params(), *mine]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "optimizer", "generators"], []
