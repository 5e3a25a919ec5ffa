"""Offline transitions as validated arrays, with their spaces and where they came from."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict, Space

from flowpolicies.data.dataset import checks
from flowpolicies.data.dataset.compact import Successors, compact_observations, ends_of, finals_of, unpack
from flowpolicies.data.dataset.fingerprint import fingerprint_of
from flowpolicies.spaces.json import infer_action_space, infer_observation_space

if TYPE_CHECKING:
    import torch
    from stable_baselines3.common.buffers import ReplayBuffer

Array = npt.NDArray[Any]
Observations = Array | dict[str, Array]


@final
@dataclass(frozen=True, eq=False)
class TransitionDataset:
    """N transitions, trajectory after trajectory, each trajectory in the order in which it happened.

    Build one with `from_arrays`, which converts types and infers spaces; the constructor only checks.

    Raises:
        ValueError: if something is wrong with the data; it names the dataset, the field, and the next move.
    """

    observations: Observations
    """`[N, *shape]` float32 or uint8, or a dict of such arrays for a Dict space."""

    actions: Array
    """`[N, *A]` float32 in the units of `action_space`, not scaled to [-1, 1]."""

    rewards: Array
    """`[N]` float32."""

    next_observations: Observations
    """Like `observations`: the state that the action led to, on the last row of a trajectory too. In compact data they
    are put together when they are read (`flowpolicies.data.dataset.compact.Successors`)."""

    masks: Array
    """`[N]` float32, 1 - termination: 0 where bootstrapping stops."""

    terminals: Array
    """`[N]` float32, 1 on the last row of a trajectory, whether it terminated or was cut by a time limit."""

    observation_space: Box | Dict
    """A Dict must be flat: its values are Boxes."""

    action_space: Box
    """Has finite bounds."""

    provenance: dict[str, Any] = field(default_factory=dict)
    """Where the data came from, as JSON data: `name`, `source`, versions. No part of the fingerprint."""

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
    ) -> "TransitionDataset":
        """A dataset from anything that NumPy reads as numbers; all but uint8 observations become float32.

        Where trajectories end is said in one of two ways: Gymnasium's `terminations` (and `truncations`), or OGBench's
        `masks` and `terminals`. The last row always ends a trajectory. Without `observation_space` it is unbounded
        (uint8: 0 to 255); without `action_space` it is [-1, 1], provided that the actions lie in it and are
        no integers.

        Raises:
            ValueError: if something is wrong with the data, see the class.
        """
        observations = _to_observations(name, "observations", observations)
        given_actions, actions = actions, _to_float32(name, "actions", actions)
        flags = {"terminations": terminations, "truncations": truncations, "masks": masks, "terminals": terminals}
        given = {key: _to_float32(name, key, flag) for key, flag in flags.items() if flag is not None}
        masks, terminals = _masks_and_terminals(name, given)
        if observation_space is None:
            observation_space = infer_observation_space(observations)
        if action_space is None:
            checks.check_continuous(f"dataset '{name}'", np.asarray(given_actions).dtype)
            action_space = infer_action_space(name, actions, terminals)
        return TransitionDataset(
            observations=observations,
            actions=actions,
            rewards=_to_float32(name, "rewards", rewards),
            next_observations=_to_observations(name, "next_observations", next_observations),
            masks=masks,
            terminals=terminals,
            observation_space=cast(Box | Dict, observation_space),  # Checked by the constructor.
            action_space=cast(Box, action_space),
            provenance={"name": name, **(provenance or {})},
        )

    @staticmethod
    def from_episodes(
        episodes: Iterable[Mapping[str, Any]],
        *,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        name: str = "episodes",
        provenance: Mapping[str, Any] | None = None,
    ) -> "TransitionDataset":
        """A dataset from whole episodes of T steps, each a mapping with

        - `observations`: T+1 of them, an array or a dict of arrays; the last one follows the last action,
        - `actions` and `rewards`: T,
        - `terminations`: T flags, or one for the episode; or `masks` (T), where a state inside it is terminal,
        - `truncations`, if you like: every episode ends with its last step, so they are only checked.

        A warning names what else is there. Spaces are as in `from_arrays`.

        Raises:
            ValueError: if something is wrong with the data; it names the episode.
        """
        from flowpolicies.data.formats.episodes import join_episodes  # It builds on this module.

        spaces = {"observation_space": observation_space, "action_space": action_space}
        return join_episodes(episodes, **spaces, name=name, provenance=provenance)

    @staticmethod
    def from_dataframe(
        frame: Any,
        *,
        observations: Sequence[str] | Mapping[str, Sequence[str]],
        actions: Sequence[str],
        rewards: str,
        terminations: str | None,
        **columns: Any,
    ) -> "TransitionDataset":
        """A dataset from a pandas DataFrame with one row per step; the arguments are names of columns.

        `episode`, `step`, `truncations`, `next_observations`, and what is not a column: see
        `flowpolicies.data.formats.dataframe.from_dataframe`.

        Raises:
            ValueError: if a column is missing, or something is wrong with the data; it names the episode.
        """
        from flowpolicies.data.formats.dataframe import from_dataframe  # It builds on this module.

        columns |= {"observations": observations, "actions": actions, "rewards": rewards}
        return from_dataframe(frame, terminations=terminations, **columns)

    @staticmethod
    def trusted(
        arrays: Mapping[str, Array],
        *,
        observation_space: Box | Dict,
        action_space: Box,
        provenance: dict[str, Any],
        fingerprint: str,
        episode_ends: npt.NDArray[np.intp],
    ) -> "TransitionDataset":
        """A dataset whose arrays (named as by `arrays`) were checked when they were written; none of them is read."""
        dataset = object.__new__(TransitionDataset)
        dataset.__dict__.update(
            unpack(arrays, episode_ends),
            observation_space=observation_space,
            action_space=action_space,
            provenance=provenance,
        )
        dataset.__dict__.update(fingerprint=fingerprint, episode_ends=episode_ends)
        return dataset

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def name(self) -> str:
        """`provenance["name"]`: what messages call this dataset."""
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

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes, types and bytes of the arrays, as 64 hexadecimal digits; compact data have that of
        the same data in full."""
        return fingerprint_of(self.arrays())

    def summary(self) -> str:
        """What to look at before training, one fact per line."""
        low, high = self.action_space.low, self.action_space.high
        saturated = np.mean(np.abs(self.actions - (low + high) / 2) >= 0.999 * (high - low) / 2)
        facts = {
            "transitions": f"{len(self):,}",
            "episodes": f"{self.num_episodes:,}",
            "episode length": _spread(self.episode_lengths),
            "reward": _spread(self.rewards),
            "mask is 0": f"in {np.mean(self.masks == 0):.3%} of transitions",
        }
        for key, array in self.arrays().items():
            if key.startswith(("observations", "actions")):
                facts[key] = f"shape {array.shape[1:]}, {array.dtype}"
        facts["actions"] += f", {saturated:.3%} of components at a bound"
        facts["fingerprint"] = self.fingerprint[:12]
        return "\n".join([self.name, *(f"  {key:<15} {fact}" for key, fact in facts.items())])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write everything to exactly `path` (an .npz file without pickles), whole or not at all, and return it."""
        from flowpolicies.data.formats.archive import save_npz  # It builds on this module.

        return save_npz(self, path)

    def to_npz(self, path: str | os.PathLike[str]) -> Path:
        """`save` by another name, beside `to_sb3_buffer`."""
        return self.save(path)

    def to_sb3_buffer(self, *, device: "torch.device | str" = "auto", buffer_size: int | None = None) -> "ReplayBuffer":
        """A stock Stable-Baselines3 replay buffer with these transitions, see
        `flowpolicies.data.formats.sb3.to_sb3_buffer`."""
        from flowpolicies.data.formats.sb3 import to_sb3_buffer  # It builds on this module.

        return to_sb3_buffer(self, device=device, buffer_size=buffer_size)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        observation_space: Space[Any] | None = None,
        action_space: Space[Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "TransitionDataset":
        """The dataset in an .npz file that `save` wrote, or in one that holds the arrays of `from_arrays`.

        Args:
            path: the file.
            name, observation_space, action_space, provenance: as of `from_arrays`; a file that `save` wrote has its
                own, and takes none.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no .npz file, lacks an array, or something is wrong with the data.
        """
        wishes = {"name": name, "observation_space": observation_space, "action_space": action_space}
        options = {key: wish for key, wish in {**wishes, "provenance": provenance}.items() if wish is not None}
        from flowpolicies.data.formats.archive import load_npz  # It builds on this module.

        return load_npz(path, options)

    def arrays(self) -> dict[str, Array]:
        """The arrays by name; the values of dict observations are called `observations/key`."""
        return _flat({key: getattr(self, key) for key in FIELDS})

    def stored(self) -> dict[str, Array]:
        """Like `arrays`, but of compact data with `final_observations` `[E, *shape]` for `next_observations`."""
        finals = self.final_observations
        if finals is None:
            return self.arrays()
        names = {"next_observations": "final_observations"}
        fields = {names.get(key, key): getattr(self, key) for key in FIELDS}
        return _flat({**fields, "final_observations": finals})

    @property
    def final_observations(self) -> Observations | None:
        """Of compact data the state after the last action of each trajectory, `[E, *shape]`; else None."""
        return finals_of(self.next_observations)

    def compact(self) -> "TransitionDataset":
        """This dataset with every state stored once: half the memory, the same batches and fingerprint.

        Raises:
            ValueError: if a next observation inside a trajectory is not the observation of the next row.
        """
        if self.final_observations is not None:
            return self
        following = _flat({"next_observations": compact_observations(self)})
        return TransitionDataset.trusted(
            {**self.arrays(), **following},
            observation_space=self.observation_space,
            action_space=self.action_space,
            provenance=self.provenance,
            fingerprint=self.fingerprint,
            episode_ends=self.episode_ends,
        )


FIELDS = ("observations", "actions", "rewards", "next_observations", "masks", "terminals")
FLAGS = ("terminations", "truncations", "masks", "terminals")


def _flat(fields: Mapping[str, Any]) -> dict[str, Array]:
    arrays: dict[str, Array] = {}
    for key, value in fields.items():
        arrays |= {f"{key}/{part}": value[part] for part in sorted(value)} if isinstance(value, dict) else {key: value}
    return arrays


def _to_observations(name: str, key: str, observations: Any) -> Observations:
    where = f"dataset '{name}'"
    if isinstance(observations, Mapping):
        return {str(part): _as_array(where, f"{key}/{part}", values) for part, values in observations.items()}
    return _as_array(where, key, observations)


def _as_array(where: str, key: str, values: Any) -> Array:
    return cast(Array, values) if isinstance(values, Successors) else checks.as_numbers(where, key, values)


def _to_float32(name: str, key: str, values: Any) -> Array:
    return checks.as_numbers(f"dataset '{name}'", key, values).astype(np.float32, copy=False)


def _masks_and_terminals(name: str, flags: Mapping[str, Array]) -> tuple[Array, Array]:
    if set(flags) not in ({"terminations"}, {"terminations", "truncations"}, {"masks", "terminals"}):
        raise checks.DataFault(
            f"dataset '{name}': say where trajectories end by terminations= (and truncations=, if time limits cut "
            f"episodes), or by masks= and terminals=; given: {', '.join(flags) or 'none of them'}."
        )
    checks.check_lengths(name, flags)
    for key, flag in flags.items():
        checks.check_scalars(name, key, flag)
    if "masks" in flags:
        masks, terminals = flags["masks"], flags["terminals"].copy()
    else:
        masks = 1 - flags["terminations"]
        terminals = np.maximum(flags["terminations"], flags.get("truncations", np.float32(0)))
    for key, flag in flags.items():
        checks.check_flags(name, key, flag, terminals)
    terminals[-1] = 1
    return masks, terminals


def _spread(values: Array) -> str:
    return f"min {values.min():.6g}, mean {values.mean(dtype=np.float64):.6g}, max {values.max():.6g}"
