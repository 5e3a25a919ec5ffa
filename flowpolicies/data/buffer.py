"""One buffer for offline data and for what is collected online, serving single steps, n steps or action chunks."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from flowpolicies.core import Batch
from flowpolicies.data.dataset import TransitionDataset
from flowpolicies.data.episodes import choose_episodes
from flowpolicies.data.layout import (
    as_tensor,
    flat_dtype,
    flatten_arrays,
    observation_dim,
    observation_layout,
    scale_actions,
    unflatten,
)
from flowpolicies.data.rows import FileColumn, mapped_parts, release_pages
from flowpolicies.data.store import CachedWindows, Store

WindowScheme = Literal["uniform", "episodes"]
"""uniform: windows start at any step. episodes: an episode is drawn, then a step of it (`data/episodes.py`)."""


@final
class TransitionBuffer(ReplayBuffer):
    """Replay buffer whose samples are `Batch`es: uniform over an offline dataset and the online transitions together.

    The dataset is held by reference and never overwritten; `buffer_size` is the room for online transitions, a ring.
    Windows start uniformly and may cross the end of an episode (`valid`), as in the authors' code; `windows` chooses
    RQL's scheme instead. Indices come from a generator of its own, never from numpy's global state.

    Args:
        horizon: length of an action chunk; the batch's actions are `horizon` actions, flattened time-major.
        n_steps: length of n-step returns without chunks; only one of the two may exceed 1.
        gamma: discount per environment step.
        windows: how windows are drawn.
        next_actions: whether batches hold the dataset's next actions; without, their width is 0.
        offline_share: share of each batch that comes from the dataset, once there are online windows; None: uniform
            over both parts together.
        seed: seed of the index generator; None: from the operating system.
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
        seed: int | None = None,
    ) -> None:
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        if optimize_memory_usage:
            raise ValueError("optimize_memory_usage=True is not supported: next observations are stored on their own.")
        if horizon > 1 and n_steps > 1:
            raise ValueError(
                f"horizon={horizon} (action chunks) and n_steps={n_steps} exclude each other; set one to 1."
            )
        if offline_share is not None and not 0 <= offline_share <= 1:
            raise ValueError(f"offline_share must lie in 0..1 or be None (uniform over all), got {offline_share}")
        self.horizon, self.gamma, self.windows, self.offline_share = horizon, gamma, windows, offline_share
        self.next_actions, self.handle_timeout_termination = next_actions, True
        self.length = max(horizon, n_steps)
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.offline: Store | None = None
        self.online: Store | None = None

    # ------------------------------------------------------------------ filling

    def attach(self, dataset: TransitionDataset) -> None:
        """Makes `dataset` the offline part.

        Raises:
            ValueError: if it holds fewer transitions than a window is long, or no window.
        """
        if len(dataset) < self.length:
            raise ValueError(
                f"the dataset has {len(dataset)} transitions, fewer than one window of {self.length} steps "
                "(horizon or n_steps). Give more data or a smaller horizon."
            )
        columns = {key: as_tensor(getattr(dataset, key)) for key in ("rewards", "masks", "terminals")}
        in_files = self._in_files(dataset)
        if not in_files:
            assert isinstance(self.action_space, spaces.Box)
            columns |= {
                "observations": flatten_arrays(self.observation_space, dataset.observations),
                "next_observations": flatten_arrays(self.observation_space, dataset.next_observations),
                "actions": as_tensor(scale_actions(self.action_space, dataset.actions)),
            }
        store = Store(len(dataset), 1, columns, in_files)
        store.size = len(dataset)
        store.episodes.extend(columns["terminals"].unsqueeze(-1))
        if self.windows == "uniform":
            store.cache_windows(self._powers(), self.horizon, self.gamma**self.length)
        elif store.episodes.starts() == 0:
            raise ValueError(
                f"the dataset's {len(dataset)} transitions hold no episode of at least two steps, and windows start "
                "before the last step of an episode. Check its terminals, or use an algorithm with uniform windows."
            )
        self.offline = store
        release_pages(list(dataset.arrays().values()))

    def _in_files(self, dataset: TransitionDataset) -> dict[str, FileColumn]:
        """The wide columns of a memory-mapped dataset; none for one in memory."""
        assert isinstance(self.action_space, spaces.Box)
        keys = [entry.key for entry in observation_layout(self.observation_space)]
        parts = {key: mapped_parts(getattr(dataset, key), keys) for key in ("observations", "next_observations")}
        actions = mapped_parts(dataset.actions, [None])
        if actions is None or None in parts.values():
            return {}
        dtype = flat_dtype(self.observation_space)
        columns = {key: FileColumn(part, dtype) for key, part in parts.items() if part is not None}
        return columns | {"actions": FileColumn(actions, torch.float32, partial(scale_actions, self.action_space))}

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """One step of every environment; `action` in [-1, 1]. A time limit ends the episode but not the return."""
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
        """To be called when the environments are reset in the middle of an episode: no window may cross that."""
        if self.online is not None:
            self.online.end_episodes()

    def _widths(self) -> dict[str, tuple[int, torch.dtype]]:
        observation = (observation_dim(self.observation_space), flat_dtype(self.observation_space))
        action = (math.prod(self.action_space.shape or ()), torch.float32)
        scalar = (0, torch.float32)
        return {
            "observations": observation,
            "next_observations": observation,
            "actions": action,
            "rewards": scalar,
            "masks": scalar,
            "terminals": scalar,
        }

    def set_n_envs(self, n_envs: int) -> None:
        """Prepares for another number of environments; online transitions of the old number are dropped."""
        if n_envs != self.n_envs:
            self.n_envs, self.online, self.pos, self.full = n_envs, None, 0, False

    def size(self) -> int:
        """Number of transitions, offline and online."""
        return sum(store.size * store.n_envs for store in self._stores())

    def num_windows(self) -> int:
        """Number of windows that can be drawn; 0: `sample` would raise."""
        if self.windows == "episodes":
            return sum(store.episodes.starts() for store in self._stores())
        return sum(store.starts(self.length) for store in self._stores())

    def _stores(self) -> list[Store]:
        return [store for store in (self.offline, self.online) if store is not None]

    # ------------------------------------------------------------------ sampling

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Batch:  # type: ignore[override]
        """`batch_size` windows, uniform over both parts, with replacement; or RQL's, uniform over episodes.

        Args:
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
                f"the buffer holds {self.size()} transitions and no {what}. "
                "Attach a dataset, or collect more before training (learning_starts)."
            )
        read: Callable[[Store, Tensor, VecNormalize | None], Batch] = self._batch
        if episodes:
            read = self._episode_batch
        drawn = self._draw(counts, batch_size)
        if len(stores) == 1:
            return self._to_device(read(stores[0], drawn, env))
        online = drawn >= counts[0]
        parts = [read(stores[0], drawn[~online], env), read(stores[1], drawn[online] - counts[0], env)]
        # Rows keep the order in which they were drawn: RQL treats the two halves of a batch differently.
        order = torch.cat([(~online).nonzero(), online.nonzero()]).squeeze(-1).argsort()
        return self._to_device(Batch(*(torch.cat(column)[order] for column in zip(*parts, strict=True))))

    def _draw(self, counts: list[int], batch_size: int) -> Tensor:
        """Which windows (or episodes) of the parts, numbered through."""
        choose = choose_episodes if self.windows == "episodes" else _choose
        if self.offline_share is None or len(counts) == 1 or 0 in counts:
            return choose(sum(counts), batch_size, self.generator)
        offline = round(self.offline_share * batch_size)
        sizes = (offline, batch_size - offline)
        parts = [choose(count, size, self.generator) for count, size in zip(counts, sizes, strict=True)]
        return torch.cat([parts[0], parts[1] + counts[0]])

    def _batch(self, store: Store, starts: Tensor, env: VecNormalize | None) -> Batch:
        if store.cached is not None and env is None:
            return self._cached_batch(store, store.cached, starts)
        offsets, powers = torch.arange(self.length), self._powers()
        rows = store.rows(starts, offsets)
        windows = store.windows(rows, powers, self._normalized_rewards(store, rows, env))
        following = (starts // store.n_envs + self.length).clamp(max=store.size - self.horizon)
        ahead = store.rows(following * store.n_envs + starts % store.n_envs, offsets[: self.horizon])
        actions = store.take("actions", rows[:, : self.horizon]).flatten(1)
        return Batch(
            observations=self._observations(store.take("observations", rows[:, 0]), env),
            actions=actions,
            next_observations=self._observations(store.take("next_observations", windows.last), env),
            next_actions=store.take("actions", ahead).flatten(1) if self.next_actions else actions[:, :0],
            rewards=windows.rewards,
            discounts=self.gamma**self.length * windows.masks,
            valid=windows.valid,
            action_mask=torch.ones_like(actions),
        )

    def _cached_batch(self, store: Store, cached: CachedWindows, starts: Tensor) -> Batch:
        """One gather per column; at this rate (benchmarks/buffer.py) the data cost nothing beside an update."""
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
        """Windows of the chosen episodes (rql_diffusion_family 1.4); beyond an episode's end its last step is repeated.

        As in RQL's code the next observation is the observation `length` steps on, so a window that ends with its
        episode bootstraps from the last state that the episode observed, and only the window's last mask counts.
        """
        n = self.length
        stream, steps, inside = store.episodes.windows(chosen, n + self.horizon, self.generator)
        rows = store.at(stream.unsqueeze(-1), steps)
        normalized = self._normalized_rewards(store, rows[:, :n], env)
        rewards = store.take("rewards", rows[:, :n]) if normalized is None else normalized
        actions = store.take("actions", rows)
        mask = inside[:, : self.horizon].unsqueeze(-1).expand(-1, -1, actions.shape[-1])
        return Batch(
            observations=self._observations(store.take("observations", rows[:, 0]), env),
            actions=actions[:, : self.horizon].flatten(1),
            next_observations=self._observations(store.take("observations", rows[:, n]), env),
            next_actions=actions[:, n:].flatten(1) if self.next_actions else actions[:, :0].flatten(1),
            rewards=(inside[:, :n] * self._powers() * rewards).sum(-1),
            discounts=self.gamma**n * store.take("masks", rows[:, n - 1]),
            valid=inside[:, n - 1],
            action_mask=mask.flatten(1),
        )

    def _to_device(self, batch: Batch) -> Batch:
        return batch if self.device.type == "cpu" else Batch(*(column.to(self.device) for column in batch))

    def _powers(self) -> Tensor:
        return torch.tensor([self.gamma**j for j in range(self.length)])

    def _observations(self, flat: Tensor, env: VecNormalize | None) -> Tensor:
        if env is None:
            return flat
        return flatten_arrays(self.observation_space, env.normalize_obs(unflatten(self.observation_space, flat)))

    def _normalized_rewards(self, store: Store, rows: Tensor, env: VecNormalize | None) -> Tensor | None:
        if env is None:
            return None
        return torch.as_tensor(env.normalize_reward(store.columns["rewards"][rows].numpy()), dtype=torch.float32)

    # ------------------------------------------------------------------ persistence

    def __getstate__(self) -> dict[str, Any]:
        """Online transitions and the generator; the dataset is not copied into a pickle."""
        return {**self.__dict__, "offline": None, "generator": self.generator.get_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.generator = torch.Generator()
        self.generator.set_state(state["generator"])


def _choose(total: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randint(total, (size,), generator=generator)
