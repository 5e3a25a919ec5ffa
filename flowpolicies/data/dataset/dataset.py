"""Offline transitions as validated arrays, with their spaces and their provenance."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Space

from flowpolicies.data.dataset import checks, conversion, npz
from flowpolicies.data.dataset.compact import compact_observations, ends_of, finals_of, unpack
from flowpolicies.data.dataset.dataframe import ColumnNames, TableColumns, arguments_of_dataframe
from flowpolicies.data.dataset.episodes import arguments_of_episodes
from flowpolicies.data.dataset.fitting import CONVERTED, fit_observations
from flowpolicies.data.dataset.rows import fingerprint_of
from flowpolicies.data.dataset.selection import Trajectories
from flowpolicies.data.dataset.summary import facts_about
from flowpolicies.spaces.layout import Observations, channels_first_space
from flowpolicies.tree import Array, named_leaves

FIELDS = ("observations", "actions", "rewards", "next_observations", "masks", "terminals")
"""Names of the arrays of a dataset, in the order in which the fingerprint is computed."""


@final
@dataclass(frozen=True, eq=False)
class TransitionDataset(Trajectories):
    """N transitions in rows: the trajectories one after another, each in the order of its steps.

    Use `from_arrays` to build a dataset: it converts types and infers spaces, while the constructor only checks.

    Raises:
        ValueError: if something is wrong with the data; the message names the dataset and the field.

    Examples:
        >>> from flowpolicies import TransitionDataset
        >>> rows = {"observations": [[0.0], [0.1]], "actions": [[0.5], [-0.5]], "rewards": [0.0, 1.0]}
        >>> data = TransitionDataset.from_arrays(**rows, next_observations=[[0.1], [0.2]], terminations=[0, 1])
    """

    observations: Observations
    """Observations before the actions, `[N, *shape]` float32 or uint8, or int64 for numbers of categories; for a Dict
    space a dict of such arrays."""

    actions: Array
    """Actions `[N, *A]`, float32, in the units of `action_space`, not scaled to [-1, 1]."""

    rewards: Array
    """Rewards of the actions, `[N]` float32."""

    next_observations: Observations
    """Observations after the actions, like `observations`; the last row of a trajectory holds the state after its last
    action. In compact data they are `flowpolicies.data.dataset.compact.Successors`."""

    masks: Array
    """Masks `[N]`, float32: 0 where the action led to a terminal state and bootstrapping stops, 1 elsewhere."""

    terminals: Array
    """Ends of trajectories, `[N]` float32: 1 on the last row of each, whether it terminated or was truncated."""

    observation_space: Space[Any]
    """Space of the observations: Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these."""

    action_space: Box
    """Space of the actions, with finite bounds."""

    provenance: dict[str, Any] = field(default_factory=dict)
    """Origin of the data as JSON data, such as `name`, `source` and versions; it does not enter the fingerprint."""

    def __post_init__(self) -> None:
        name, arrays = self.name, self.arrays()
        checks.check_lengths(name, arrays)
        checks.check_observations(name, "observations", self.observations, self.observation_space)
        checks.check_observations(name, "next_observations", self.next_observations, self.observation_space)
        checks.check_action_space(name, self.action_space)
        for key in ("rewards", "masks", "terminals"):
            checks.check_scalars(name, key, arrays[key])
        for key, array in self.stored().items():
            checks.check_finite(name, key, array, self.terminals)
        checks.check_actions(name, self.actions, self.action_space, self.terminals)
        checks.check_flags(name, "masks", self.masks, self.terminals)
        checks.check_flags(name, "terminals", self.terminals)
        checks.check_last_terminal(name, self.terminals)
        checks.check_finals(name, ends_of(self.next_observations), self.terminals)
        checks.check_provenance(name, self.provenance)

    @staticmethod
    def from_arrays(
        observations: Any,
        actions: Any,
        rewards: Any,
        next_observations: Any,
        *,
        terminations: Any = None,
        truncations: Any = None,
        masks: Any = None,
        terminals: Any = None,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        name: str = "arrays",
        provenance: Mapping[str, Any] | None = None,
    ) -> TransitionDataset:
        """A dataset from arrays, or anything else that NumPy can make an array of.

        Everything becomes float32, except uint8 observations and numbers of categories. Images with channels last are
        transposed, and other observations are converted to the type of their space, see
        `flowpolicies.data.dataset.fitting`. The ends of trajectories are given either as Gymnasium
        does, by `terminations` (and `truncations`), or as OGBench does, by `masks` and `terminals`. The last row always
        ends a trajectory.

        Args:
            observations, next_observations: `[N, *shape]`, or a mapping of such arrays for a Dict space.
            actions: `[N, *A]`, in the units of `action_space`.
            rewards: `[N]`.
            terminations: `[N]`, true where an episode ended in a terminal state.
            truncations: `[N]`, true where an episode was cut short.
            masks, terminals: `[N]`, see the fields of the class.
            observation_space: space of the observations; None: unbounded, or 0 to 255 for uint8.
            action_space: space of the actions; None: [-1, 1], if all actions lie in it and they are not integers.
            name: the name of the dataset, for messages and summaries.
            provenance: further facts about the origin of the data, as JSON data.

        Raises:
            ValueError: if something is wrong with the data; the message names the dataset and the field.
        """
        where = f"dataset '{name}'"
        observations = conversion.to_observations(where, "observations", observations)
        given_actions, actions = actions, conversion.to_float32(where, "actions", actions)
        flags = {"terminations": terminations, "truncations": truncations, "masks": masks, "terminals": terminals}
        given = {key: conversion.to_float32(where, key, flag) for key, flag in flags.items() if flag is not None}
        masks, terminals = conversion.masks_and_terminals(name, given)
        is_guess = observation_space is None
        space = conversion.infer_observation_space(observations) if observation_space is None else observation_space
        next_observations = conversion.to_observations(where, "next_observations", next_observations)
        observations, next_observations, space, converted = fit_observations(
            name, observations, next_observations, space, is_guess=is_guess
        )
        if action_space is None:
            checks.check_continuous(where, np.asarray(given_actions).dtype)
            action_space = conversion.infer_action_space(name, actions, terminals)
        return TransitionDataset(
            observations=observations,
            actions=actions,
            rewards=conversion.to_float32(where, "rewards", rewards),
            next_observations=next_observations,
            masks=masks,
            terminals=terminals,
            observation_space=space,
            action_space=cast(Box, action_space),  # Checked by the constructor.
            provenance={"name": name, **(provenance or {}), **({CONVERTED: converted} if converted else {})},
        )

    @staticmethod
    def from_episodes(
        episodes: Iterable[Mapping[str, Any]],
        *,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        name: str = "episodes",
        provenance: Mapping[str, Any] | None = None,
    ) -> TransitionDataset:
        """A dataset from whole episodes, each of which is a mapping with these keys, for T steps:

        - `observations`: T+1 observations, an array or a dict of arrays; the last one follows the last action.
        - `actions` and `rewards`: arrays of length T.
        - `terminations`: T flags, or one flag for the episode. If a state inside the episode is terminal, pass `masks`
          instead, an array of length T.
        - `truncations`: optional, and only checked, since every episode ends with its last step.

        Other keys are ignored with a warning. The remaining arguments are those of `from_arrays`.

        Raises:
            ValueError: if something is wrong with the data; the message names the episode.
        """
        return TransitionDataset.from_arrays(
            **arguments_of_episodes(name, episodes, may_be_discrete=action_space is not None),
            observation_space=observation_space,
            action_space=action_space,
            name=name,
            provenance=provenance,
        )

    @staticmethod
    def from_dataframe(
        frame: Any,
        *,
        observations: ColumnNames,
        actions: Sequence[str],
        rewards: str,
        terminations: str | None,
        truncations: str | None = None,
        episode: str | None = None,
        step: str | None = None,
        next_observations: ColumnNames | None = None,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        name: str = "dataframe",
        provenance: Mapping[str, Any] | None = None,
    ) -> TransitionDataset:
        """A dataset from a pandas DataFrame with one row per step: an observation, the action, and its results.

        Without `next_observations`, the next observation of a row is the observation of the following row of the
        episode. The last row of an episode then has no next observation and is dropped, unless the episode terminated
        there: learners do not bootstrap from the next observation of a terminal step, so the row's own observation is
        used. To lose no step, end each episode with a row that holds the last observation and no actions (NaN).

        Args:
            frame: the DataFrame, or another object with `frame.columns` and `frame[name].to_numpy()`.
            observations: columns of the observation; for a Dict space, a mapping from keys to columns.
            actions: columns of the action.
            rewards: column of the reward of the row's action.
            terminations: column that is true where an episode ended in a terminal state; None: no episode did.
            truncations: column that is true where an episode was cut short.
            episode: column that identifies the episode of each row; None: an episode ends where `terminations` or
                `truncations` is true.
            step: column by which the rows of an episode are sorted; None: they are sorted already.
            next_observations: columns of the observation after the action, if the table has them.
            observation_space, action_space, name, provenance: as in `from_arrays`.

        Raises:
            ValueError: if a column is missing or does not hold numbers, or something is wrong with the data; episodes
                are counted in the order in which they begin.
        """
        columns = TableColumns(
            observations, actions, rewards, terminations, truncations, episode, step, next_observations
        )
        may_be_discrete = action_space is not None
        arguments, dropped = arguments_of_dataframe(frame, columns, name=name, may_be_discrete=may_be_discrete)
        known = {"source": "dataframe", **({"dropped_rows": dropped} if dropped else {})}
        return TransitionDataset.from_arrays(
            **arguments,
            observation_space=observation_space,
            action_space=action_space,
            name=name,
            provenance={**known, **(provenance or {})},
        )

    @staticmethod
    def trusted(
        arrays: Mapping[str, Array],
        *,
        observation_space: Space[Any],
        action_space: Box,
        provenance: dict[str, Any],
        fingerprint: str | None,
        episode_ends: npt.NDArray[np.intp],
    ) -> TransitionDataset:
        """A dataset of arrays that were checked before, such as those of an opened folder: none of them is read.

        Args:
            arrays: the arrays by name, as `stored` returns them.
            observation_space, action_space, provenance: see the fields of the class.
            fingerprint: the fingerprint of the arrays; None: it is computed when it is asked for.
            episode_ends: row of the last transition of every trajectory, ascending.
        """
        dataset = object.__new__(TransitionDataset)
        dataset.__dict__.update(
            unpack(arrays, episode_ends),
            observation_space=observation_space,
            action_space=action_space,
            provenance=provenance,
        )
        dataset.__dict__.update(episode_ends=episode_ends)
        if fingerprint is not None:
            dataset.__dict__.update(fingerprint=fingerprint)
        return dataset

    def __len__(self) -> int:
        return len(self.actions)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes, types and bytes of the arrays, as 64 hexadecimal digits.

        It is the same whether or not the dataset is compact.
        """
        return fingerprint_of(self.arrays())

    def summary(self) -> str:
        """Facts to look at before training, one per line: numbers, ranges and shapes, and the fingerprint."""
        facts = facts_about(self.arrays(), self.action_space, self.episode_lengths)
        facts["fingerprint"] = self.fingerprint[:12]
        return "\n".join([self.name, *(f"  {title:<15} {fact}" for title, fact in facts.items())])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes arrays, spaces and provenance to exactly `path`, atomically, and returns the path.

        The file is an .npz file without pickles, which `load` reads.
        """
        return npz.write_dataset(path, self.stored(), self.observation_space, self.action_space, self.provenance)

    def to_npz(self, path: str | os.PathLike[str]) -> Path:
        """The same as `save`."""
        return self.save(path)

    def to_sb3_buffer(self, **options: Any) -> Any:
        """Deprecated: use `flowpolicies.data.to_sb3_buffer(dataset)`."""
        message = "TransitionDataset.to_sb3_buffer is now flowpolicies.data.to_sb3_buffer; the method works until 1.0."
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return importlib.import_module("flowpolicies.data.formats.sb3").to_sb3_buffer(self, **options)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        max_bytes: int | None = None,
        compact: bool = False,
    ) -> TransitionDataset:
        """The dataset in an .npz file that `save` wrote, or in another one that holds the arguments of `from_arrays`.

        Args:
            path: the file.
            name, observation_space, action_space, provenance: as in `from_arrays`, but the name of the file is the
                default name. A file of `save` has its own spaces and provenance and cannot be given others.
            max_bytes: as for `flowpolicies.data.read_npz`.
            compact: store each state once, as the method `compact` does, but never hold all next observations.

        Raises:
            FileNotFoundError: if the file does not exist.
            ArtifactError: if it is not an .npz file, lacks an array, or something is wrong with the data.
            ValueError: if an option does not fit the file.
        """
        wishes: dict[str, Any] = {"observation_space": observation_space, "action_space": action_space}
        wishes |= {"name": name, "provenance": provenance}
        options = {key: wish for key, wish in wishes.items() if wish is not None}
        compact_as = (name or Path(path).stem) if compact else None
        arrays, described = npz.read_dataset(path, max_bytes, compact_as)
        if described is not None and options:
            raise ValueError(f"'{path}' has its own spaces and provenance: load it without {sorted(options)}.")
        with checks.reading_data(path):
            if described is None:
                arguments = npz.arguments_of(path, arrays)
                dataset = TransitionDataset.from_arrays(**arguments, **{"name": Path(path).stem, **options})
            else:
                fields, space = {**unpack(arrays), **described}, described["observation_space"]
                if channels_first_space(space) != space:  # An older version's.
                    own_name = described["provenance"].get("name", Path(path).stem)
                    dataset = TransitionDataset.from_arrays(**fields, name=str(own_name))
                else:
                    dataset = TransitionDataset(**fields)
            return dataset.compact() if compact else dataset

    def arrays(self) -> dict[str, Array]:
        """The arrays by name; those of dict observations are called `observations/KEY`."""
        return _flat({key: getattr(self, key) for key in FIELDS})

    def stored(self) -> dict[str, Array]:
        """The arrays by name as files store them.

        They are those of `arrays`, but a compact dataset has `final_observations` `[E, *shape]` instead of
        `next_observations`.
        """
        finals = self.final_observations
        if finals is None:
            return self.arrays()
        names = {"next_observations": "final_observations"}
        fields = {names.get(key, key): getattr(self, key) for key in FIELDS}
        return _flat({**fields, "final_observations": finals})

    @property
    def final_observations(self) -> Observations | None:
        """The state after the last action of each trajectory, `[E, *shape]`, if the dataset is compact; None if not."""
        return finals_of(self.next_observations)

    def compact(self) -> TransitionDataset:
        """This dataset with every state stored once: about half the memory, the same batches and fingerprint.

        Raises:
            ValueError: if a next observation inside a trajectory is not the observation of the following row.
        """
        if self.final_observations is not None:
            return self
        following = compact_observations(
            self.name, self.observations, self.next_observations, self.terminals, self.episode_ends
        )
        return TransitionDataset.trusted(
            {**self.arrays(), **named_leaves("next_observations", following)},
            observation_space=self.observation_space,
            action_space=self.action_space,
            provenance=self.provenance,
            fingerprint=self.fingerprint,
            episode_ends=self.episode_ends,
        )


def _flat(fields: Mapping[str, Observations]) -> dict[str, Array]:
    """The arrays of all fields by name, in the order that the fingerprint depends on."""
    return {name: array for key, tree in fields.items() for name, array in sorted(named_leaves(key, tree).items())}
