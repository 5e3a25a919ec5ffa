"""The replay buffer for offline and online transitions; it serves single steps, n-step returns and action chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from flowpolicies.core import Batch
from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.dataset.rows import release_pages
from flowpolicies.data.replay.columns import OBSERVATIONS, make_columns
from flowpolicies.data.replay.episodes import choose_episodes
from flowpolicies.data.replay.goals import Hindsight, HindsightGoals
from flowpolicies.data.replay.pixels import CROP_PADDING, crop_observations
from flowpolicies.data.replay.rotation import ShardRotation
from flowpolicies.data.replay.store import CachedWindows, Store
from flowpolicies.spaces.layout import flat_dtype, flatten_arrays, observation_dim, observation_layout, unflatten

WindowScheme = Literal["uniform", "episodes"]
"""How a window is drawn. uniform: it starts at any step. episodes: an episode is drawn first, then a step in it."""


@final
class TransitionBuffer(ReplayBuffer):
    """Replay buffer that draws `Batch`es from an offline dataset and from online transitions together.

    The dataset is referred to, not copied, and never overwritten. Online transitions are stored in a ring of
    `buffer_size` transitions. Random numbers come from the buffer's own generator, not from NumPy's global state.

    Windows start uniformly and may cross the end of an episode, as in `Dataset.sample_sequence` in `utils/datasets.py`
    of https://github.com/ColinQiyangLi/qam. Such a window has `valid` 0 in the batch, and losses give it no weight.

    Args:
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
            of `HindsightGoals` if `provenance["goals"]` is "hindsight", otherwise keep the stored goals. Online
            transitions always keep the goals that they were collected with.
        frame_stack: number of images in an observation. The dataset holds one image per row, see `StackedFrames`.
        p_aug: probability that the images of a batch are shifted by up to 3 pixels, each observation and its next
            observation alike.
        seed: seed of the buffer's generator; None: a random one.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        horizon: int = 1,
        n_steps: int = 1,
        gamma: float = 0.99,
        windows: WindowScheme = "uniform",
        next_actions: bool = True,
        offline_share: float | None = None,
        rotate_every: int | None = None,
        goals: HindsightGoals | Literal["dataset"] | None = "dataset",
        frame_stack: int = 1,
        p_aug: float = 0.0,
        seed: int | None = None,
    ) -> None:
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True is not supported: next observations are stored separately.")
        if horizon > 1 and n_steps > 1:
            raise ValueError(
                f"horizon={horizon} (action chunks) and n_steps={n_steps} exclude each other; set one to 1."
            )
        if offline_share is not None and not 0 <= offline_share <= 1:
            raise ValueError(f"offline_share must be between 0 and 1, or None (uniform over all), got {offline_share}")
        if not 0 <= p_aug <= 1 or (p_aug and not any(part.image for part in observation_layout(observation_space))):
            raise ValueError(f"p_aug must be between 0 and 1, and 0 for observations without images, got {p_aug}")
        if rotate_every is not None and rotate_every < 1:
            raise ValueError(f"rotate_every is a number of batches and must be at least 1, or None, got {rotate_every}")
        self.horizon, self.gamma, self.windows, self.offline_share = horizon, gamma, windows, offline_share
        self.rotate_every, self.updates = rotate_every, 0
        self.rotation: ShardRotation | None = None
        self.goals, self.frame_stack, self.p_aug = goals, frame_stack, p_aug
        self.hindsight: Hindsight | None = None
        self.next_actions, self.handle_timeout_termination = next_actions, True
        self.length = max(horizon, n_steps)
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.offline: Store | None = None
        self.online: Store | None = None

    def attach(self, dataset: TransitionDataset) -> None:
        """Makes `dataset` the offline part of the buffer.

        Raises:
            ValueError: if the dataset has fewer transitions than a window has steps, or no window can be drawn from it.
        """
        if len(dataset) < self.length:
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
        if self.windows == "uniform" and self.hindsight is None:
            store.cache_windows(self._powers(), self.horizon, self.gamma**self.length)
        elif self.windows == "episodes" and store.episodes.starts() == 0:
            raise ValueError(
                f"the dataset's {len(dataset)} transitions contain no episode of at least two steps, and windows start "
                "before the last step of an episode. Check its terminals, or use an algorithm with uniform windows."
            )
        if self.rotate_every is not None:
            self.rotation = ShardRotation(self.rotate_every, dataset, self.length)
        self.offline = store
        release_pages(list(dataset.stored().values()))

    def _find_hindsight(self, dataset: TransitionDataset) -> Hindsight | None:
        """The goals to draw for a dataset; None if its transitions keep their own goals."""
        goals = self.goals
        if goals == "dataset":
            goals = HindsightGoals() if dataset.provenance.get("goals") == "hindsight" else None
        if goals is None:
            return None
        return Hindsight(goals, self.observation_space, dataset.episode_ends, self.gamma)

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """Stores one step of every environment; `action` is between -1 and 1.

        A time limit ends the episode (`terminals` 1) but not the return (`masks` 1).
        """
        if self.online is None:
            self.online = Store.empty(max(self.buffer_size // self.n_envs, self.length), self.n_envs, self._widths())
        timeout = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        step = {
            "observations": flatten_arrays(self.observation_space, obs),
            "next_observations": flatten_arrays(self.observation_space, next_obs),
            "actions": torch.as_tensor(np.asarray(action, np.float32).reshape(self.n_envs, -1)),
            "rewards": torch.as_tensor(np.asarray(reward, np.float32)),
            "masks": torch.as_tensor(1.0 - (done & ~timeout).astype(np.float32)),
            "terminals": torch.as_tensor(np.asarray(done, np.float32)),
        }
        self.online.append(step)
        self.pos, self.full = self.online.head, self.online.size == self.online.capacity

    def end_episodes(self) -> None:
        """Marks the newest steps as ends of episodes, so that no window crosses them.

        Call this if the environments are reset in the middle of an episode.
        """
        if self.online is not None:
            self.online.end_episodes()

    def _widths(self) -> dict[str, tuple[int, torch.dtype]]:
        """Width and type of the online columns; a width of 0 means one number per row."""
        observation = (observation_dim(self.observation_space), flat_dtype(self.observation_space))
        action = (math.prod(self.action_space.shape or ()), torch.float32)
        scalars = dict.fromkeys(("rewards", "masks", "terminals"), (0, torch.float32))
        return {"observations": observation, "next_observations": observation, "actions": action, **scalars}

    def set_n_envs(self, n_envs: int) -> None:
        """Sets the number of environments. If it changes, the online transitions are deleted."""
        if n_envs != self.n_envs:
            self.n_envs, self.online, self.pos, self.full = n_envs, None, 0, False

    def size(self) -> int:
        """Number of stored transitions, offline and online."""
        return sum(store.size * store.n_envs for store in self._stores())

    def num_windows(self) -> int:
        """Number of windows that can be drawn. If it is 0, `sample` raises an error."""
        if self.windows == "episodes":
            return sum(store.episodes.starts() for store in self._stores())
        return sum(store.starts(self.length) for store in self._stores())

    def _stores(self) -> list[Store]:
        return [store for store in (self.offline, self.online) if store is not None]

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Batch:  # type: ignore[override]
        """Draws `batch_size` windows from the offline and the online part.

        Args:
            batch_size: number of windows.
            env: normalises observations and rewards, if given.

        Raises:
            ValueError: if there is no window yet.
        """
        stores, episodes = self._stores(), self.windows == "episodes"
        counts = [store.episodes.table().shape[1] if episodes else store.starts(self.length) for store in stores]
        total = sum(counts)
        if total == 0:
            what = "episode of two steps" if episodes else f"window of {self.length} steps"
            raise ValueError(
                f"the buffer has {self.size()} transitions and no {what}. "
                "Attach a dataset, or collect more before training (learning_starts)."
            )
        read: Callable[[Store, Tensor, VecNormalize | None], Batch] = self._episode_batch if episodes else self._batch
        first = 0
        if self.rotation is not None and stores[0] is self.offline:
            first, counts[0] = self.rotation.current(self.updates, stores[0], episodes=episodes)
        drawn = self._choose(counts, batch_size)
        self.updates += 1
        if len(stores) == 1:
            return self._finish(read(stores[0], drawn + first, env))
        online = drawn >= counts[0]
        parts = [read(stores[0], drawn[~online] + first, env), read(stores[1], drawn[online] - counts[0], env)]
        # Rows keep the order of the draws. RQL treats the two halves of a batch differently, so it matters that uniform
        # draws are not sorted by part.
        order = torch.cat([(~online).nonzero(), online.nonzero()]).squeeze(-1).argsort()
        return self._finish(Batch(*(torch.cat(column)[order] for column in zip(*parts, strict=True))))

    def _choose(self, counts: list[int], batch_size: int) -> Tensor:
        """Numbers `[B]` of windows, or of episodes; those of the online part follow those of the offline part."""
        choose = choose_episodes if self.windows == "episodes" else choose_uniformly
        if self.offline_share is None or len(counts) == 1 or 0 in counts:
            return choose(sum(counts), batch_size, self.generator)
        offline = round(self.offline_share * batch_size)
        sizes = (offline, batch_size - offline)
        parts = [choose(count, size, self.generator) for count, size in zip(counts, sizes, strict=True)]
        return torch.cat([parts[0], parts[1] + counts[0]])

    def _batch(self, store: Store, starts: Tensor, env: VecNormalize | None) -> Batch:
        """The windows that begin at `starts` `[B]`, as a batch."""
        if store.cached is not None and env is None:
            return self._cached_batch(store, store.cached, starts)
        offsets, powers = torch.arange(self.length), self._powers()
        rows = store.rows(starts, offsets)
        goals = self._draw_goals(store, rows[:, 0])
        rewards, masks = self._rewards_and_masks(store, rows, goals, env)
        windows = store.windows(rows, powers, rewards, masks)
        # Next actions come from the rows after the window, even if another episode begins there. The references do the
        # same: `Dataset.get_subset` in `utils/datasets.py` of https://github.com/ColinQiyangLi/qc warns of it.
        following = (starts // store.n_envs + self.length).clamp(max=store.size - self.horizon)
        ahead = store.rows(following * store.n_envs + starts % store.n_envs, offsets[: self.horizon])
        actions = store.take("actions", rows[:, : self.horizon]).flatten(1)
        return Batch(
            observations=self._observations(store, "observations", rows[:, 0], goals, env),
            actions=actions,
            next_observations=self._observations(store, "next_observations", windows.last, goals, env),
            next_actions=store.take("actions", ahead).flatten(1) if self.next_actions else actions[:, :0],
            rewards=windows.rewards,
            discounts=self.gamma**self.length * windows.masks,
            valid=windows.valid,
            action_mask=torch.ones_like(actions),
        )

    def _cached_batch(self, store: Store, cached: CachedWindows, starts: Tensor) -> Batch:
        """As `_batch`, from windows that were computed before: one gather per column (see `benchmarks/buffer.py`)."""
        rows = starts.numpy()

        def take(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.take(rows, 0))

        actions = store.chunks(cached, starts, self.horizon)
        if self.next_actions:
            following = (starts + self.length).clamp_(max=store.size - self.horizon)
            next_actions = store.chunks(cached, following, self.horizon)
        else:
            next_actions = actions[:, :0]
        return Batch(
            observations=store.gather("observations", rows),
            actions=actions,
            next_observations=store.gather("next_observations", rows + cached.span.take(rows)),
            next_actions=next_actions,
            rewards=take(cached.rewards),
            discounts=take(cached.discounts),
            valid=take(cached.valid).float(),
            action_mask=torch.ones_like(actions),
        )

    def _episode_batch(self, store: Store, chosen: Tensor, env: VecNormalize | None) -> Batch:
        """A window of each of the chosen episodes; after the episode's end its last step is repeated.

        This follows the authors' code of RQL (https://arxiv.org/abs/2606.17551, see docs/algorithms/rql.md), also where
        the paper says nothing: only the mask of the window's last step counts, and the next observation is the
        observation `length` steps later. A window that ends with its episode therefore bootstraps from the episode's
        last observation instead of the state after it.
        """
        n = self.length
        stream, steps, inside = store.episodes.windows(chosen, n + self.horizon, self.generator)
        rows = store.at(stream.unsqueeze(-1), steps)
        goals = self._draw_goals(store, rows[:, 0])
        rewards, masks = self._rewards_and_masks(store, rows[:, :n], goals, env)
        # A goal is reached in one row only, so all masks of the window count.
        last_mask = store.take("masks", rows[:, n - 1]) if masks is None else masks.amin(-1)
        actions = store.take("actions", rows)
        mask = inside[:, : self.horizon].unsqueeze(-1).expand(-1, -1, actions.shape[-1])
        return Batch(
            observations=self._observations(store, "observations", rows[:, 0], goals, env),
            actions=actions[:, : self.horizon].flatten(1),
            next_observations=self._observations(store, "observations", rows[:, n], goals, env),
            next_actions=actions[:, n:].flatten(1) if self.next_actions else actions[:, :0].flatten(1),
            rewards=(inside[:, :n] * self._powers() * rewards).sum(-1),
            discounts=self.gamma**n * last_mask,
            valid=inside[:, n - 1],
            action_mask=mask.flatten(1),
        )

    def _finish(self, batch: Batch) -> Batch:
        """The batch on the buffer's device, with shifted images if `p_aug` asks for it."""
        if self.device.type != "cpu":
            batch = Batch(*(column.to(self.device) for column in batch))
        if self.p_aug and torch.rand((), generator=self.generator) < self.p_aug:
            count = len(batch.rewards)
            offsets = torch.randint(2 * CROP_PADDING + 1, (count, 2), generator=self.generator)
            moved = {
                key: crop_observations(self.observation_space, getattr(batch, key), offsets) for key in OBSERVATIONS
            }
            batch = batch._replace(**moved)
        return batch

    def _powers(self) -> Tensor:
        """Discounts of the steps of a window: gamma^j, `[length]`."""
        return torch.tensor([self.gamma**j for j in range(self.length)])

    def _draw_goals(self, store: Store, rows: Tensor) -> Tensor | None:
        """Rows `[B]` whose states are the goals of the windows that begin at `rows`; None: the windows keep theirs."""
        if self.hindsight is None or store is not self.offline:
            return None
        return self.hindsight.draw(rows, self.generator)

    def _rewards_and_masks(
        self, store: Store, rows: Tensor, goals: Tensor | None, env: VecNormalize | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards of the steps `rows` `[B, H]`, and their masks, or None if the stored masks count."""
        rewards, masks = store.columns["rewards"][rows], None
        if goals is not None:
            reached = (rows == goals.unsqueeze(-1)).float()
            rewards, masks = reached - 1, 1 - reached
        if env is not None:
            rewards = torch.as_tensor(env.normalize_reward(rewards.numpy()), dtype=torch.float32)
        return rewards, masks

    def _observations(
        self, store: Store, name: str, rows: Tensor, goals: Tensor | None, env: VecNormalize | None
    ) -> Tensor:
        """Rows `[B]` of a column of observations, with the states in the rows `goals` as their goals."""
        flat = store.take(name, rows)
        if goals is not None:
            assert self.hindsight is not None
            flat = self.hindsight.insert(flat, store.take("goals", goals))
        if env is None:
            return flat
        return flatten_arrays(self.observation_space, env.normalize_obs(unflatten(self.observation_space, flat)))

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: options, online transitions and the generator's state, but not the dataset."""
        replaced = {"offline": None, "rotation": None, "hindsight": None, "generator": self.generator.get_state()}
        return {**self.__dict__, **replaced}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rotation = None  # Missing in the files of older versions, where it was called `turns`.
        self.generator = torch.Generator()
        self.generator.set_state(state["generator"])


def choose_uniformly(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draws `size` of the numbers 0 to `count - 1`, with replacement."""
    return torch.randint(count, (size,), generator=generator)
