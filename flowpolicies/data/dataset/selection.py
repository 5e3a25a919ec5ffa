"""The trajectories of a dataset: their ends and lengths, the selection of some of them, and copies of a dataset."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Space

from flowpolicies.data.dataset.checks import DataFault
from flowpolicies.data.dataset.rows import portable, restored, rows_of_runs
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, take

SELECTIONS = "selections"
"""Key of a dataset's provenance for what was selected from its source, one entry for each selection."""

_GOALS = {"reward_timing": ("state before the step", "0 at the goal"), "reward_convention": ("d4rl-antmaze",)}
"""Entries of the provenance by which a source says that a mask of 0 marks a goal that was reached."""


@final
@dataclass(frozen=True)
class Trajectory:
    """One trajectory of a dataset, as the argument `where` of `TransitionDataset.filter` receives it."""

    dataset: Trajectories
    """Dataset that the trajectory belongs to."""
    index: int
    """Number of the trajectory, counted from 0."""
    rows: slice
    """Rows of its transitions."""

    @property
    def length(self) -> int:
        """Number of transitions T."""
        return int(self.rows.stop - self.rows.start)

    @property
    def total_reward(self) -> float:
        """Sum of the rewards, not discounted."""
        return float(self.rewards.sum(dtype=np.float64))

    @property
    def observations(self) -> Observations:
        """Observations before the actions, `[T, *shape]`, or a dict of such arrays."""
        found: Observations = take(self.dataset.observations, self.rows)
        return found

    @property
    def actions(self) -> Array:
        """Actions, `[T, *A]`."""
        return self.dataset.actions[self.rows]

    @property
    def rewards(self) -> Array:
        """Rewards, `[T]`."""
        return self.dataset.rewards[self.rows]

    @property
    def masks(self) -> Array:
        """Masks, `[T]`: 0 where the action led to a terminal state."""
        return self.dataset.masks[self.rows]


class Trajectories:
    """Base of `TransitionDataset` with its methods for whole trajectories."""

    observations: Observations
    actions: Array
    rewards: Array
    masks: Array
    terminals: Array
    observation_space: Space[Any]
    action_space: Box
    provenance: dict[str, Any]
    stored: Callable[[], dict[str, Array]]
    trusted: Callable[..., Any]

    @property
    def name(self) -> str:
        """The name of the dataset in messages and summaries: `provenance["name"]`."""
        return str(self.provenance.get("name", "unnamed"))

    @property
    def num_episodes(self) -> int:
        """Number of trajectories."""
        return len(self.episode_ends)

    @cached_property
    def episode_ends(self) -> npt.NDArray[np.intp]:
        """Row of the last transition of every trajectory, ascending."""
        return np.flatnonzero(self.terminals)

    @property
    def episode_starts(self) -> npt.NDArray[np.intp]:
        """Row of the first transition of every trajectory, ascending."""
        return np.append(0, self.episode_ends[:-1] + 1)

    @property
    def episode_lengths(self) -> npt.NDArray[np.intp]:
        """Number of transitions of every trajectory."""
        return np.diff(self.episode_ends, prepend=-1)

    @property
    def episode_returns(self) -> npt.NDArray[np.float64]:
        """Sum of the rewards of every trajectory, not discounted."""
        returns: npt.NDArray[np.float64] = np.add.reduceat(np.asarray(self.rewards, np.float64), self.episode_starts)
        return returns

    def episodes(
        self,
        *,
        min_length: int | None = None,
        max_length: int | None = None,
        min_return: float | None = None,
        max_return: float | None = None,
        terminated: bool | None = None,
        success: bool | None = None,
        where: Callable[[Trajectory], bool] | None = None,
    ) -> npt.NDArray[np.intp]:
        """The numbers of the trajectories that meet all given conditions, ascending; all of them without a condition.

        Args:
            min_length, max_length: smallest and largest number of transitions.
            min_return, max_return: smallest and largest sum of the rewards.
            terminated: whether the last mask is 0, that is whether the trajectory ended in a terminal state.
            success: whether a mask is 0 anywhere in the trajectory. Only for sources whose masks mark a reached goal,
                as those of OGBench do.
            where: a function that tells for a `Trajectory` whether it is wanted.

        Raises:
            ValueError: if `success` is given for a dataset whose source does not say that masks mark a goal.
        """
        chosen = np.ones(self.num_episodes, bool)
        for values, least, most in (
            (self.episode_lengths, min_length, max_length),
            (self.episode_returns, min_return, max_return),
        ):
            chosen &= (values >= (-np.inf if least is None else least)) & (values <= (np.inf if most is None else most))
        masked = np.asarray(self.masks) == 0
        if terminated is not None:
            chosen &= masked[self.episode_ends] == terminated
        if success is not None:
            self._check_goals()
            chosen &= (np.add.reduceat(masked, self.episode_starts) > 0) == success
        if where is not None:
            starts, stops = self.episode_starts, self.episode_ends + 1
            for index in np.flatnonzero(chosen):
                chosen[index] = bool(where(Trajectory(self, int(index), slice(int(starts[index]), int(stops[index])))))
        return np.flatnonzero(chosen)

    def select(self, episodes: Any) -> Self:
        """The dataset with some of its trajectories only, in the given order.

        The transitions of a memory-mapped dataset stay in its files and are not copied, and compact data stay compact.
        The provenance says under `selections` what was selected. The fingerprint is that of the selected rows.

        Args:
            episodes: numbers of trajectories, counted from 0; or a mask with one value for each trajectory; or a slice.

        Raises:
            ValueError: if no trajectory is selected, or one is selected twice.
            IndexError: if there is no trajectory of a number.
        """
        which = np.arange(self.num_episodes)[episodes].reshape(-1)
        return self._selected(which, {"by": "index"})

    def filter(
        self,
        *,
        min_length: int | None = None,
        max_length: int | None = None,
        min_return: float | None = None,
        max_return: float | None = None,
        terminated: bool | None = None,
        success: bool | None = None,
        where: Callable[[Trajectory], bool] | None = None,
    ) -> Self:
        """The dataset with the trajectories that meet all given conditions, see `episodes` and `select`.

        A warning says how many trajectories and transitions are dropped.

        Raises:
            ValueError: if no trajectory meets the conditions.
        """
        given = {
            "min_length": min_length,
            "max_length": max_length,
            "min_return": min_return,
            "max_return": max_return,
            "terminated": terminated,
            "success": success,
            "where": where,
        }
        conditions: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        which = self.episodes(**conditions)
        if where is not None:
            conditions["where"] = getattr(where, "__qualname__", repr(where))
        text = ", ".join(f"{key}={value}" for key, value in conditions.items())
        if not len(which):
            lengths, returns = self.episode_lengths, self.episode_returns
            raise DataFault(
                f"dataset '{self.name}': none of its {self.num_episodes} trajectories meets {text} (lengths from "
                f"{lengths.min()} to {lengths.max()}, returns from {returns.min():.6g} to {returns.max():.6g})."
            )
        if len(which) == self.num_episodes:
            return self
        chosen = self._selected(which, {"by": conditions})
        warnings.warn(
            f"dataset '{self.name}': {text} drops {self.num_episodes - len(which):,} of {self.num_episodes:,} "
            f"trajectories, which have {len(self.actions) - len(chosen.actions):,} of {len(self.actions):,} "
            "transitions.",
            stacklevel=2,
        )
        return chosen

    def split(self, share: float, seed: int = 0) -> tuple[Self, Self, npt.NDArray[np.intp]]:
        """Divides the dataset into two by whole trajectories, drawn at random.

        Args:
            share: share of the trajectories in the second part, between 0 and 1; at least one of them.
            seed: seed of the draw, which depends on nothing else but the number of trajectories.

        Returns:
            The first part, the second part, and the numbers of the trajectories in the second part, ascending.

        Raises:
            ValueError: if a part would be empty.
        """
        count = max(round(share * self.num_episodes), 1)
        if not 0 < share < 1 or count >= self.num_episodes:
            raise ValueError(
                f"dataset '{self.name}' has {self.num_episodes} trajectories and cannot be divided with a share of "
                f"{share}: it must be between 0 and 1, and leave a trajectory in each part."
            )
        chosen = np.sort(np.random.default_rng(seed).permutation(self.num_episodes)[:count])
        rest = np.setdiff1d(np.arange(self.num_episodes), chosen)
        why = {"by": "split", "share": share, "seed": seed}
        first, second = (self._selected(which, {**why, "part": n}) for n, which in enumerate((rest, chosen), 1))
        return first, second, chosen

    def _check_goals(self) -> None:
        if not any(self.provenance.get(key) in values for key, values in _GOALS.items()):
            raise ValueError(
                f"dataset '{self.name}': its source does not say that a mask of 0 marks a goal that was reached; it "
                "may also be a fall. Select by terminated=, min_return= or where= instead of success=."
            )

    def _selected(self, which: npt.NDArray[np.intp], why: Mapping[str, Any]) -> Self:
        if not len(which):
            raise DataFault(f"dataset '{self.name}': no trajectory is selected. Select at least one.")
        if len(np.unique(which)) != len(which):
            raise DataFault(f"dataset '{self.name}': a trajectory is selected twice. Select each of them once.")
        starts, lengths = self.episode_starts[which], self.episode_lengths[which]
        arrays = {}
        for key, array in self.stored().items():
            runs = (which, np.ones_like(which)) if key.startswith("final_observations") else (starts, lengths)
            arrays[key] = rows_of_runs(array, *runs)
            if key in ("rewards", "masks", "terminals"):  # These are small, and read as a whole by many.
                arrays[key] = np.asarray(arrays[key])
        selected: Self = self.trusted(
            arrays,
            observation_space=self.observation_space,
            action_space=self.action_space,
            provenance=self._provenance_of(which, why),
            fingerprint=None,
            episode_ends=np.cumsum(lengths) - 1,
        )
        return selected

    def _provenance_of(self, which: npt.NDArray[np.intp], why: Mapping[str, Any]) -> dict[str, Any]:
        lengths = self.episode_lengths[which]
        entry = {
            **why,
            "episodes": len(which),
            "of_episodes": self.num_episodes,
            "transitions": int(lengths.sum()),
            "of_transitions": len(self.actions),
            "sha256_of_numbers": hashlib.sha256(which.astype("<i8").tobytes()).hexdigest(),
        }
        provenance = {**self.provenance, SELECTIONS: [*self.provenance.get(SELECTIONS, []), entry]}
        if "shard_ends" in provenance:
            shards = np.searchsorted(provenance["shard_ends"], self.episode_ends[which])
            ends = np.flatnonzero(np.append(np.diff(shards) != 0, True))
            del provenance["shard_ends"]
            if (np.diff(shards) >= 0).all():
                provenance["shard_ends"] = [int(end) for end in np.cumsum(lengths)[ends]]
        return provenance

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: all arrays; those in files by their place, since these files never change."""
        return {
            "arrays": {key: portable(array) for key, array in self.stored().items()},
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "provenance": self.provenance,
            "fingerprint": self.__dict__.get("fingerprint"),
            "episode_ends": np.array(self.episode_ends),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {key: restored(array) for key, array in state["arrays"].items()}
        self.__dict__.update(self.trusted(**{**state, "arrays": arrays}).__dict__)

    def __copy__(self) -> Self:
        """A copy that shares no array in memory with this dataset, as `copy.deepcopy` makes it."""
        return copy.deepcopy(self)
