"""The replay buffer for offline and online transitions: its options, its dataset, its copies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from typing import Any, Literal, final, get_args

import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from flowpolicies.choices import require_device
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import release_pages
from flowpolicies.data.replay.columns import make_columns
from flowpolicies.data.replay.goals import Hindsight, HindsightGoals
from flowpolicies.data.replay.normalization import start_statistics
from flowpolicies.data.replay.on_device import DataDevice, DeviceWindows
from flowpolicies.data.replay.relabelling import OnlineGoals, Relabelling
from flowpolicies.data.replay.rotation import ShardRotation
from flowpolicies.data.replay.sampling import WindowSampling
from flowpolicies.data.replay.sampling import WindowScheme as WindowScheme
from flowpolicies.data.replay.store import Store
from flowpolicies.spaces.layout import observation_layout


@final
class TransitionBuffer(WindowSampling):
    """Replay buffer that draws `Batch`es from an offline dataset and from online transitions together.

    The dataset is referred to, not copied, and never overwritten. Online transitions are stored in a ring of
    `buffer_size` transitions. Random numbers come from the buffer's own generator, not from NumPy's global state.

    Windows start uniformly. An n-step return ends with its episode, where bootstrapping stops, or at the newest online
    transition, as in Stable-Baselines3's `NStepReplayBuffer`. An action chunk may cross the end of an episode, as in
    `Dataset.sample_sequence` in `utils/datasets.py` of https://github.com/ColinQiyangLi/qam: such a window has `valid`
    0 in the batch, and losses give it no weight.

    Args:
        handle_timeout_termination: whether values bootstrap after a time limit (`TimeLimit.truncated` of an info).
        horizon: number of actions in an action chunk. The actions of a batch are `[B, horizon * A]`, time-major.
        n_steps: number of steps of n-step returns, without chunks. `horizon` or `n_steps` must be 1.
        gamma: discount per environment step, between 0 and 1.
        windows: "uniform", or "episodes" for RQL's scheme, which draws an episode first.
        next_actions: whether batches hold the dataset's next actions; if not, their width is 0.
        offline_share: share of each batch that is drawn from the dataset, between 0 and 1, as soon as there are online
            windows. None: all windows, offline and online, have the same probability.
        rotate_every: number of batches from one shard before the next shard is used, for datasets of several shards
            (`provenance["shard_ends"]`). None: draw from all shards at once.
        goals: how goals of the dataset's transitions are drawn. None: keep the stored goals. "dataset": as the defaults
            of `HindsightGoals` if `provenance["goals"]` is "hindsight", otherwise keep the stored goals.
        online_goals: how goals of online transitions are drawn; None: they keep the goals that they were collected
            with. The environment must be given by `set_env`.
        frame_stack: number of images in an observation. The dataset holds one image per row, see `StackedFrames`.
        p_aug: probability that the images of a batch are shifted by up to 3 pixels, each observation and its next
            observation alike.
        reward_factor: positive number that the rewards of batches are multiplied by; the stored ones stay as they are.
        data_device: where the dataset is: "cpu"; "model", on the device of the model; or "auto", there if that is a GPU
            with enough free memory.
        seed: seed of the buffer's generator; None: a random one.

    Examples:
        >>> from flowpolicies import QFlow
        >>> model = QFlow(dataset="pendulum:mixed", replay_buffer_kwargs={"offline_share": 0.5})
        >>> model.transitions.sample(64).rewards.shape
        torch.Size([64])
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
        *,
        horizon: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        windows: WindowScheme = "uniform",
        next_actions: bool = True,
        offline_share: float | None = None,
        rotate_every: int | None = None,
        goals: HindsightGoals | Literal["dataset"] | None = "dataset",
        online_goals: OnlineGoals | None = None,
        frame_stack: int = 1,
        p_aug: float = 0.0,
        reward_factor: float = 1.0,
        data_device: DataDevice = "auto",
        seed: int | None = None,
    ) -> None:
        limited = handle_timeout_termination
        places = (buffer_size, observation_space, action_space, require_device(device), n_envs)
        super().__init__(*places, handle_timeout_termination=limited, window=horizon)
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True is not supported: next observations are stored separately.")
        if offline_share is not None and not 0 <= offline_share <= 1:
            raise ValueError(f"offline_share must be between 0 and 1, or None (uniform over all), got {offline_share}")
        if not 0 <= p_aug <= 1 or (p_aug and not any(part.image for part in observation_layout(observation_space))):
            raise ValueError(f"p_aug must be between 0 and 1, and 0 for observations without images, got {p_aug}")
        if rotate_every is not None and rotate_every < 1:
            raise ValueError(f"rotate_every is a number of batches and must be at least 1, or None, got {rotate_every}")
        self.horizon, self.windows, self.offline_share = horizon, windows, offline_share
        if data_device not in get_args(DataDevice):
            raise ValueError(f"data_device must be one of 'auto', 'cpu', 'model', got {data_device!r}")
        self.rotate_every, self.updates, self.data_device = rotate_every, 0, data_device
        self.reward_factor = reward_factor
        self.on_device: DeviceWindows | None = None
        self.rotation: ShardRotation | None = None
        self.goals, self.frame_stack, self.p_aug, self.next_actions = goals, frame_stack, p_aug, next_actions
        self.hindsight: Hindsight | None = None
        self.online_goals = online_goals
        self.relabelling = None if online_goals is None else Relabelling(online_goals, observation_space)
        self.keep_infos = online_goals is not None and online_goals.copy_info_dict
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.offline: Store | None = None
        self.missing: str | None = None
        self.set_discount(gamma, n_steps)

    def set_discount(self, gamma: float, n_steps: int | None = None) -> None:
        """Sets the discount, and the number of steps of n-step returns unless it is None, for all later batches.

        Raises:
            ValueError: if a number is out of its range, or there are chunks and n-step returns at once.
        """
        n_steps = self.n_steps if n_steps is None else n_steps
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be between 0 and 1, got {gamma}")
        if self.horizon < 1 or n_steps < 1:
            raise ValueError(f"horizon and n_steps must be at least 1, got {self.horizon} and {n_steps}")
        if self.horizon > 1 and n_steps > 1:
            raise ValueError(
                f"horizon={self.horizon} (action chunks) and n_steps={n_steps} exclude each other; set one to 1."
            )
        if self.hindsight is not None:
            self.hindsight = self.hindsight.with_discount(gamma)
        self._gamma, self.length = gamma, max(self.horizon, n_steps)
        self.cut = self.windows == "uniform" and n_steps > 1
        self.needed = 1 if self.cut else self.length
        if self.offline is not None:
            self._cache_windows(self.offline)

    @property
    def gamma(self) -> float:
        """The discount per environment step."""
        return self._gamma

    @gamma.setter
    def gamma(self, gamma: float) -> None:
        self.set_discount(gamma)

    @property
    def n_steps(self) -> int:
        """Number of steps of n-step returns; 1 with action chunks."""
        return 1 if self.horizon > 1 else self.length

    @contextmanager
    def apart(self, seed: int) -> Iterator[None]:
        """Within this context batches are drawn with a seed of their own, and training continues as if they were not.

        Args:
            seed: seed of the batches.
        """
        kept = self.generator, self.updates
        self.generator = torch.Generator().manual_seed(seed)
        try:
            yield
        finally:
            self.generator, self.updates = kept

    def set_env(self, env: VecEnv) -> None:
        """Sets the environment whose `compute_reward` gives the rewards of `online_goals`."""
        if self.relabelling is not None:
            self.relabelling.env = env

    def attach(self, dataset: TransitionDataset) -> None:
        """Makes `dataset` the offline part of the buffer.

        Raises:
            ValueError: if the dataset has fewer transitions than a window has steps, or no window can be drawn from it.
        """
        if len(dataset) < self.needed:
            raise ValueError(
                f"the dataset has {len(dataset)} transitions, fewer than one window of {self.length} steps "
                "(horizon or n_steps). Give more data or a smaller horizon."
            )
        self.hindsight = self._find_hindsight(dataset)
        assert isinstance(self.action_space, spaces.Box)
        columns, in_files = make_columns(
            dataset, self.observation_space, self.action_space, self.hindsight, self.frame_stack
        )
        store = Store(len(dataset), 1, columns, in_files)
        store.size = len(dataset)
        store.episodes.extend(columns["terminals"].unsqueeze(-1))
        if self.windows == "episodes" and store.episodes.starts() == 0:
            raise ValueError(
                f"the dataset's {len(dataset)} transitions contain no episode of at least two steps, and windows start "
                "before the last step of an episode. Check its terminals, or use an algorithm with uniform windows."
            )
        if self.rotate_every is not None:
            self.rotation = ShardRotation(self.rotate_every, dataset, self.needed)
        self._cache_windows(store)
        self.offline, self.missing = store, None
        release_pages(list(dataset.stored().values()))

    def share_dataset(self, other: TransitionBuffer) -> None:
        """Refers to the rows and windows of another buffer with the same dataset and options, instead of its own."""
        assert other.offline is not None
        self.offline, self.on_device = other.offline.twin(), other.on_device
        if self.gamma != other.gamma:
            self._cache_windows(self.offline)

    def _find_hindsight(self, dataset: TransitionDataset) -> Hindsight | None:
        """The goals to draw for a dataset; None if its transitions keep their own goals."""
        goals = self.goals
        if goals == "dataset":
            goals = HindsightGoals() if dataset.provenance.get("goals") == "hindsight" else None
        if goals is None:
            return None
        return Hindsight(goals, self.observation_space, dataset.episode_ends, self.gamma)

    def _cache_windows(self, store: Store) -> None:
        """Computes the windows of the dataset once, if they do not depend on random goals."""
        if self.windows == "uniform" and self.hindsight is None:
            store.cache_windows(self.gamma, self.length, self.horizon, cut=self.cut)
        places = (store, self.data_device, self.device, self.horizon)
        self.on_device = DeviceWindows.where_asked(*places, next_actions=self.next_actions, cut=self.cut)

    def start_statistics(self, env: VecNormalize | None) -> None:
        """Lets a VecNormalize that has seen no step start from the statistics of the dataset.

        Does nothing without a dataset or a VecNormalize, or if statistics have seen steps already. The function
        `start_statistics` in `normalization.py` explains the statistics.
        """
        if self.offline is not None and env is not None:
            start_statistics(env, self.offline, self.observation_space, self.hindsight)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: options, online transitions and the generator's state, but neither dataset nor environment.

        A buffer that was pickled with a dataset says so when it is sampled without one.
        """
        dropped = dict.fromkeys(("offline", "on_device", "rotation", "hindsight", "relabelling"))
        missing = self.missing
        if self.offline is not None:
            missing = f"A dataset of {self.offline.size} transitions was not saved with this buffer: attach it again. "
        return {**self.__dict__, **dropped, "missing": missing, "generator": self.generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores a buffer, also from files of older versions, which lack some attributes."""
        added: dict[str, Any] = {
            "optimize_memory_usage": False,
            "keep_infos": False,
            "online_goals": None,
            "missing": None,
            "reward_factor": 1.0,
        }
        added |= {"data_device": "auto", **dict.fromkeys(("offline", "on_device", "hindsight", "relabelling"))}
        self.__dict__.update({**added, "requested_size": state["buffer_size"], "window": state["horizon"], **state})
        self.rotation = None
        if "gamma" in state:
            self.set_discount(self.__dict__.pop("gamma"), 1 if self.horizon > 1 else self.length)
            self.buffer_size = self._steps_per_env() if self.online is None else self.online.capacity
        if self.online_goals is not None:
            self.relabelling = Relabelling(self.online_goals, self.observation_space)
        self.generator = torch.Generator()
        self.generator.set_state(state["generator"])

    def __deepcopy__(self, memo: dict[int, Any]) -> TransitionBuffer:
        """A buffer with its own generator, options and online transitions; the dataset is referred to by both."""
        memo[id(self)] = twin = TransitionBuffer.__new__(TransitionBuffer)
        twin.__setstate__(deepcopy(self.__getstate__(), memo))
        twin.missing = self.missing
        twin.offline = None if self.offline is None else self.offline.twin()
        twin.rotation, twin.hindsight = copy(self.rotation), copy(self.hindsight)
        twin.on_device = self.on_device
        if self.relabelling is not None and self.relabelling.env is not None:
            twin.set_env(self.relabelling.env)
        return twin

    def __copy__(self) -> TransitionBuffer:
        return self.__deepcopy__({})
