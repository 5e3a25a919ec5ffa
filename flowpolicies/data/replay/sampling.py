"""Drawing of batches: windows of the dataset and of online transitions, as n-step returns or action chunks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from flowpolicies.core import Batch
from flowpolicies.data.replay.columns import OBSERVATIONS
from flowpolicies.data.replay.episodes import choose_episodes
from flowpolicies.data.replay.goals import Hindsight
from flowpolicies.data.replay.on_device import DeviceWindows, moved, moved_batch
from flowpolicies.data.replay.pixels import CROP_PADDING, crop_observations
from flowpolicies.data.replay.relabelling import Relabelling
from flowpolicies.data.replay.ring import OnlineRing
from flowpolicies.data.replay.rotation import ShardRotation
from flowpolicies.data.replay.store import CachedWindows, Store, discount_powers, mask_of_steps
from flowpolicies.spaces.layout import flatten_arrays, unflatten

WindowScheme = Literal["uniform", "episodes"]
"""How a window is drawn. uniform: it starts at any step. episodes: an episode is drawn first, then a step in it."""


class WindowSampling(OnlineRing):
    """Abstract: draws batches from the dataset and the online transitions; `TransitionBuffer` explains its options."""

    offline: Store | None
    """The transitions of the dataset."""
    hindsight: Hindsight | None
    """The goals to draw for the dataset's transitions."""
    relabelling: Relabelling | None
    """The goals to draw for online transitions."""
    rotation: ShardRotation | None
    """The choice of a shard for each batch."""
    generator: torch.Generator
    """The source of all random numbers."""
    missing: str | None
    """What the user is told if the buffer was saved with a dataset and has none; None: nothing is missing."""
    gamma: float
    """The discount per environment step."""
    horizon: int
    """The number of actions in a chunk."""
    length: int
    """The number of steps of a window: `horizon`, or that of n-step returns."""
    needed: int
    """The number of steps of a window that must be stored: 1 if windows are cut, otherwise `length`."""
    cut: bool
    """Whether windows are cut at ends of episodes, as n-step returns are, see `Store.windows`."""
    windows: WindowScheme
    """How a window is drawn."""
    on_device: DeviceWindows | None
    """The windows of the dataset on the model's device; None: they are in the memory of the host."""
    next_actions: bool
    """Whether batches hold the dataset's next actions."""
    offline_share: float | None
    """The share of a batch that is drawn from the dataset; None: all windows have the same probability."""
    p_aug: float
    """The probability that the images of a batch are shifted."""
    updates: int
    """The number of batches so far, which decides the shard."""
    reward_factor: float
    """The number that the rewards of batches are multiplied by, from the dataset and collected alike."""

    def size(self) -> int:
        """Number of stored transitions of the dataset and of all online environments together.

        Stable-Baselines3 counts the steps of one environment instead; that number is `pos`, or `buffer_size` if `full`.
        """
        return sum(store.size * store.n_envs for store in self._stores())

    def num_windows(self) -> int:
        """Number of windows that can be drawn. If it is 0, `sample` raises an error."""
        if self.windows == "episodes":
            return sum(store.episodes.starts() for store in self._stores())
        return sum(store.starts(self.needed) for store in self._stores())

    def _stores(self) -> list[Store]:
        return [store for store in (self.offline, self.online) if store is not None]

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Batch:  # type: ignore[override]
        """Draws `batch_size` windows from the offline and the online part.

        Args:
            batch_size: number of windows.
            env: normalises observations and rewards, offline and online alike, if given.

        Raises:
            ValueError: if there is no window yet, or `batch_size` is below 1.
        """
        drawn, counts, first = self._draw(batch_size)
        stores = self._stores()
        read: Callable[[Store, Tensor, VecNormalize | None], Batch] = (
            self._episode_batch if self.windows == "episodes" else self._batch
        )
        if len(stores) == 1:
            return self._finish(read(stores[0], drawn + first, env))
        online = drawn >= counts[0]
        if online.all() or not online.any():
            part = int(online[0])
            return self._finish(read(stores[part], drawn - counts[0] if part else drawn + first, env))
        places = [part.nonzero().squeeze(-1) for part in (~online, online)]
        begins = (first, -counts[0])
        parts = [read(store, drawn[at] + begin, env) for store, at, begin in zip(stores, places, begins, strict=True)]
        if self.on_device is not None:
            parts = [moved_batch(part, self.device) for part in parts]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        if places[0][-1] > places[1][0]:
            # Rows keep the order of the draws. RQL treats the two halves of a batch differently, so it matters that
            # uniform draws are not sorted by part.
            order = torch.cat(places).argsort()
            order = order if self.on_device is None else moved(order, self.device)
            columns = [column.index_select(0, order) for column in columns]
        return self._finish(Batch(*columns))

    def _draw(self, batch_size: int) -> tuple[Tensor, list[int], int]:
        """Numbers `[B]` of windows or episodes, of which those of the online part follow those of the offline part; how
        many each part has; and the first number of the offline part in the dataset."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        stores, episodes = self._stores(), self.windows == "episodes"
        counts = [store.episodes.table().shape[1] if episodes else store.starts(self.needed) for store in stores]
        total = sum(counts)
        if total == 0:
            what = "episode of two steps" if episodes else f"window of {self.length} steps"
            raise ValueError(
                f"the buffer has {self.size()} transitions and no {what}. {self.missing or ''}"
                "Attach a dataset, or collect more before training (learning_starts)."
            )
        if self.missing is not None:
            warnings.warn(f"{self.missing}Batches have online transitions only.", stacklevel=3)
            self.missing = None
        first = 0
        if self.rotation is not None and stores[0] is self.offline:
            first, counts[0] = self.rotation.current(self.updates, stores[0], episodes=episodes)
        drawn = self._choose(counts, batch_size)
        self.updates += 1
        return drawn, counts, first

    def draw_on_device(self, batch_size: int) -> Tensor:
        """Rows `[B]` in which the windows of the next batch begin, for `on_device`; the batch counts as drawn."""
        drawn, _, first = self._draw(batch_size)
        return drawn + first

    @property
    def is_on_device(self) -> bool:
        """Whether all that a batch needs is on the device."""
        return self.on_device is not None and len(self._stores()) == 1 and not self.p_aug

    def _choose(self, counts: list[int], batch_size: int) -> Tensor:
        """Numbers `[B]` of windows, or of episodes; those of the online part follow those of the offline part."""
        choose = choose_episodes if self.windows == "episodes" else choose_uniformly
        if self.offline_share is None or len(counts) == 1 or 0 in counts:
            return choose(sum(counts), batch_size, self.generator)
        offline = round(self.offline_share * batch_size)
        sizes = (offline, batch_size - offline)
        parts = [choose(count, size, self.generator) for count, size in zip(counts, sizes, strict=True)]
        drawn = torch.cat([parts[0], parts[1] + counts[0]])
        # RQL treats the two halves of a batch differently, so both must contain offline and online windows.
        return drawn[torch.randperm(batch_size, generator=self.generator)] if self.windows == "episodes" else drawn

    def _batch(self, store: Store, starts: Tensor, env: VecNormalize | None) -> Batch:
        """The windows that begin at `starts` `[B]`, as a batch."""
        if self.on_device is not None and store is self.offline and env is None:
            return self.on_device.batch(starts)
        if store.cached is not None and env is None:
            return self._cached_batch(store, store.cached, starts)
        if self.length == 1 and env is None and self._goal_source(store) is None:
            return self._step_batch(store, starts)
        offsets, powers = torch.arange(self.length), discount_powers(self.gamma, self.length)
        rows, newest = store.rows(starts, offsets), store.newest(starts, offsets) if self.cut else None
        goals = self._draw_goals(store, rows[:, 0])
        rewards, masks = self._rewards_and_masks(store, rows, goals, env)
        windows = store.windows(rows, powers[:-1], rewards, masks, newest)
        steps = windows.steps if self.cut else torch.full_like(starts, self.length)
        # Next actions come from the rows after the window, even if another episode begins there. The references do the
        # same: `Dataset.get_subset` in `utils/datasets.py` of https://github.com/ColinQiyangLi/qc warns of it.
        following = (starts // store.n_envs + steps).clamp(max=store.size - self.horizon)
        ahead = store.rows(following * store.n_envs + starts % store.n_envs, offsets[: self.horizon])
        actions = store.take_windows("actions", rows[:, : self.horizon]).flatten(1)
        return Batch(
            observations=self._observations(store, "observations", rows[:, 0], goals, env),
            actions=actions,
            next_observations=self._observations(store, "next_observations", windows.last, goals, env),
            next_actions=store.take_windows("actions", ahead).flatten(1) if self.next_actions else actions[:, :0],
            rewards=windows.rewards,
            discounts=powers[steps] * windows.masks,
            valid=windows.valid,
            action_mask=mask_of_steps(actions, windows.steps, self.horizon),
        )

    def _cached_batch(self, store: Store, cached: CachedWindows, starts: Tensor) -> Batch:
        """As `_batch`, from windows that were computed before: one gather per column (`flowpolicies bench replay`)."""
        rows = starts.numpy()

        def take(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.take(rows, 0))

        actions, span = store.chunks(cached, starts, self.horizon), cached.span.take(rows)
        if self.next_actions:
            steps = torch.from_numpy(span + 1) if self.cut else self.length
            following = (starts + steps).clamp_(max=store.size - self.horizon)
            next_actions = store.chunks(cached, following, self.horizon)
        else:
            next_actions = actions[:, :0]
        return Batch(
            observations=store.gather("observations", rows),
            actions=actions,
            next_observations=store.gather("next_observations", rows + span),
            next_actions=next_actions,
            rewards=take(cached.rewards),
            discounts=take(cached.discounts),
            valid=take(cached.valid).float(),
            action_mask=mask_of_steps(actions, torch.from_numpy(span + 1), self.horizon),
        )

    def _step_batch(self, store: Store, starts: Tensor) -> Batch:
        """As `_batch`, for windows of one step: one gather per column and no summaries."""
        rows = store.first_rows(starts.numpy())
        actions, masks = store.gather("actions", rows), store.gather("masks", rows)
        return Batch(
            observations=store.gather("observations", rows),
            actions=actions,
            next_observations=store.gather("next_observations", rows),
            next_actions=store.gather("actions", store.next_rows(rows)) if self.next_actions else actions[:, :0],
            rewards=store.gather("rewards", rows),
            discounts=self.gamma * masks,
            valid=torch.ones_like(masks),
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
        actions = store.take_windows("actions", rows)
        mask = inside[:, : self.horizon].unsqueeze(-1).expand(-1, -1, actions.shape[-1])
        return Batch(
            observations=self._observations(store, "observations", rows[:, 0], goals, env),
            actions=actions[:, : self.horizon].flatten(1),
            next_observations=self._observations(store, "observations", rows[:, n], goals, env),
            next_actions=actions[:, n:].flatten(1) if self.next_actions else actions[:, :0].flatten(1),
            rewards=(inside[:, :n] * discount_powers(self.gamma, n)[:n] * rewards).sum(-1),
            discounts=self.gamma**n * last_mask,
            valid=inside[:, n - 1],
            action_mask=mask.flatten(1),
        )

    def _finish(self, batch: Batch) -> Batch:
        """The batch on the buffer's device, with scaled rewards, and shifted images if `p_aug` asks for it."""
        if self.windows == "episodes" and not batch.valid.any():
            warnings.warn(
                f"No window of a batch has {self.needed} steps (horizon or n_steps) in its episode, so values learn "
                "nothing from it. Use a smaller n_steps or horizon, or longer episodes.",
                stacklevel=3,
            )
        if self.device.type != "cpu":
            batch = moved_batch(batch, self.device)
        if self.reward_factor != 1:
            batch = batch._replace(rewards=self.reward_factor * batch.rewards)
        if self.p_aug and torch.rand((), generator=self.generator, dtype=torch.float32) < self.p_aug:
            count = len(batch.rewards)
            offsets = torch.randint(2 * CROP_PADDING + 1, (count, 2), generator=self.generator)
            moved = {
                key: crop_observations(self.observation_space, getattr(batch, key), offsets) for key in OBSERVATIONS
            }
            batch = batch._replace(**moved)
        return batch

    def _draw_goals(self, store: Store, rows: Tensor) -> Tensor | None:
        """Goals `[B]` of the windows that begin at `rows`, as numbers of rows; None: the windows keep theirs."""
        source = self._goal_source(store)
        return None if source is None else source.draw(store, rows, self.generator)

    def _goal_source(self, store: Store) -> Hindsight | Relabelling | None:
        return self.hindsight if store is self.offline else self.relabelling

    def _rewards_and_masks(
        self, store: Store, rows: Tensor, goals: Tensor | None, env: VecNormalize | None
    ) -> tuple[Tensor, Tensor | None]:
        """Rewards of the steps `rows` `[B, H]`, and their masks, or None if the stored masks count."""
        rewards, masks, source = store.take("rewards", rows), None, self._goal_source(store)
        if goals is not None and source is not None:
            rewards, masks = source.rewards(store, rows, goals)
        if env is not None:
            rewards = torch.as_tensor(env.normalize_reward(rewards.numpy()), dtype=torch.float32)
        return rewards, masks

    def _observations(
        self, store: Store, name: str, rows: Tensor, goals: Tensor | None, env: VecNormalize | None
    ) -> Tensor:
        """Rows `[B]` of a column of observations, with the states in the rows `goals` as their goals."""
        flat, source = store.take(name, rows), self._goal_source(store)
        if goals is not None and source is not None:
            flat = source.place(store, flat, goals)
        if env is None:
            return flat
        return flatten_arrays(self.observation_space, env.normalize_obs(unflatten(self.observation_space, flat)))


def choose_uniformly(count: int, size: int, generator: torch.Generator) -> Tensor:
    """Draws `size` of the numbers 0 to `count - 1`, with replacement."""
    return torch.randint(count, (size,), generator=generator)


def sample_together(buffers: Sequence[WindowSampling], batch_size: int) -> Batch:
    """A batch of each buffer, with a leading axis for the buffers. Each has the rows that its `sample` would draw.

    From a dataset on a device that all buffers share, all rows are gathered in one call for each column.
    """
    shared = buffers[0].on_device
    if shared is not None and all(one.on_device is shared and one.is_on_device for one in buffers):
        flat = shared.batch(torch.cat([one.draw_on_device(batch_size) for one in buffers]))
        batch = Batch(*(column.view(len(buffers), batch_size, *column.shape[1:]) for column in flat))
        if any(one.reward_factor != 1 for one in buffers):
            scaled = [one.reward_factor * row for one, row in zip(buffers, batch.rewards, strict=True)]
            batch = batch._replace(rewards=torch.stack(scaled))
        return batch
    batches = [one.sample(batch_size) for one in buffers]
    return Batch(*(torch.stack(columns) for columns in zip(*batches, strict=True)))
