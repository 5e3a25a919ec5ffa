"""Trajectories joined to transitions: T+1 observations of T actions become T pairs, never across an end."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Space

from flowpolicies.data.dataset.checks import DataFault, as_flags, as_numbers, check_continuous
from flowpolicies.data.dataset.dataset import Observations, TransitionDataset
from flowpolicies.messages import did_you_mean

Array = npt.NDArray[Any]

_KEYS = ("observations", "actions", "rewards", "terminations", "truncations", "masks")


class Pairs(NamedTuple):
    """Which rows of a table of steps are transitions."""

    rows: npt.NDArray[np.intp]
    """`[N]`, the rows that are."""
    next_rows: npt.NDArray[np.intp]
    """`[N]`, where the next observation of each stands."""
    terminals: Array
    """`[N]` float32, 1 on the last transition of a trajectory."""


def pair_rows(ends: Array, terminated: Array) -> Pairs:
    """The transitions among rows of which each holds the observation before its action, and none the one after it.

    The next observation of a row is the observation of the following row. The last row of a trajectory has none, so it
    is dropped; unless it terminated, for then no bootstrapping reads its next observation, and its own stands in.

    Args:
        ends: `[R]` bool, the last row of each trajectory.
        terminated: `[R]` bool, of these, the ones that terminated.
    """
    rows = np.arange(len(ends))
    trajectories = np.cumsum(ends) - ends
    kept = rows[~ends | terminated]
    return Pairs(kept, np.where(ends, rows, rows + 1)[kept], last_of_each(trajectories[kept]))


def last_of_each(trajectories: Array) -> Array:
    """`[N]` float32, 1 where the following row is of another trajectory, and on the last row."""
    return np.append(trajectories[1:] != trajectories[:-1], np.ones(min(len(trajectories), 1))).astype(np.float32)


def take(observations: Observations, rows: npt.NDArray[np.intp] | slice) -> Observations:
    """Rows of observations of any structure."""
    if isinstance(observations, dict):
        return {key: part[rows] for key, part in observations.items()}
    return observations[rows]


def join_episodes(
    episodes: Iterable[Mapping[str, Any]],
    *,
    observation_space: Space[Any] | None,
    action_space: Space[Any] | None,
    name: str,
    provenance: Mapping[str, Any] | None,
) -> TransitionDataset:
    """See `TransitionDataset.from_episodes`."""
    if isinstance(episodes, Mapping):
        raise DataFault(f"dataset '{name}': expected a list of episodes, got one episode. Put it into a list.")
    columns = _columns(name, episodes, are_continuous=action_space is not None)
    if not columns["actions"]:
        raise DataFault(f"dataset '{name}': there is no episode. Give at least one.")
    return TransitionDataset.from_arrays(
        _concatenate(columns["now"]),
        np.concatenate(columns["actions"]),
        np.concatenate(columns["rewards"]),
        _concatenate(columns["next"]),
        masks=np.concatenate(columns["masks"]),
        terminals=np.concatenate(columns["terminals"]),
        observation_space=observation_space,
        action_space=action_space,
        name=name,
        provenance=provenance,
    )


def _columns(name: str, episodes: Iterable[Mapping[str, Any]], *, are_continuous: bool) -> dict[str, list[Any]]:
    """The arrays of each episode."""
    columns: dict[str, list[Any]] = {key: [] for key in ("now", "next", "actions", "rewards", "masks", "terminals")}
    unread: set[str] = set()
    for index, episode in enumerate(episodes):
        where = f"dataset '{name}': episode {index}"
        observations = _observations(where, _field(where, episode, "observations"))
        actions, rewards = (as_numbers(where, key, _field(where, episode, key)) for key in ("actions", "rewards"))
        if not are_continuous:
            check_continuous(where, np.asarray(episode["actions"]).dtype)
        _check_steps(where, actions, observations, rewards)
        if columns["actions"]:
            _check_like_first(where, "actions", actions, columns["actions"][0])
            _check_observations_like_first(where, observations, columns["now"][0])
        columns["now"].append(take(observations, slice(None, -1)))
        columns["next"].append(take(observations, slice(1, None)))
        columns["actions"].append(actions)
        columns["rewards"].append(rewards)
        columns["masks"].append(_masks(where, episode, len(actions)))
        columns["terminals"].append(np.arange(len(actions)) == len(actions) - 1)
        unread |= _unread(episode)
    if unread:
        warnings.warn(
            f"dataset '{name}': {sorted(unread)} of the episodes are not read; read are {', '.join(_KEYS)}.",
            stacklevel=4,
        )
    return columns


def _field(where: str, episode: Mapping[str, Any], key: str) -> Any:
    if not isinstance(episode, Mapping):
        raise DataFault(
            f"{where} is of type {type(episode).__name__}; expected a mapping with 'observations' and so on."
        )
    if key not in episode:
        raise DataFault(f"{where} has no '{key}' (it holds {sorted(episode)}).{did_you_mean(key, _unread(episode))}")
    return episode[key]


def _unread(episode: Mapping[str, Any]) -> set[str]:
    """Keys that nothing asks for."""
    return {str(key) for key in episode} - {*_KEYS}


def _observations(where: str, observations: Any) -> Observations:
    if isinstance(observations, Mapping):
        return {str(key): as_numbers(where, f"observations/{key}", part) for key, part in observations.items()}
    return as_numbers(where, "observations", observations)


def _parts(observations: Observations) -> dict[str, Array]:
    if isinstance(observations, dict):
        return {f"observations/{key}": part for key, part in observations.items()}
    return {"observations": observations}


def _check_steps(where: str, actions: Array, observations: Observations, rewards: Array) -> None:
    for key, array in {"actions": actions, **_parts(observations)}.items():
        if array.ndim == 0:
            raise DataFault(f"{where}: {key} are one number. Give an array with one row per step.")
    steps = len(actions)
    if steps == 0:
        raise DataFault(f"{where} has no steps. Leave it out.")
    if rewards.shape != (steps,):
        raise DataFault(f"{where}: rewards have shape {rewards.shape}, expected ({steps},), one for each action.")
    for key, part in _parts(observations).items():
        if len(part) == steps:
            raise DataFault(
                f"{where} has {steps} {key} for {steps} actions; the observation after the last action is needed too. "
                "If it is not known, pass pairs to TransitionDataset.from_arrays and leave the last step out."
            )
        if len(part) != steps + 1:
            raise DataFault(f"{where} has {len(part)} {key} for {steps} actions, expected {steps + 1}.")


def _check_like_first(where: str, key: str, array: Array, first: Array) -> None:
    if array.shape[1:] != first.shape[1:]:
        raise DataFault(
            f"{where}: {key} have shape {array.shape[1:]} per step, those of episode 0 have {first.shape[1:]}."
        )
    if array.dtype != first.dtype and key != "actions":
        raise DataFault(f"{where}: {key} are {array.dtype}, those of episode 0 are {first.dtype}. Convert them alike.")


def _check_observations_like_first(where: str, observations: Observations, first: Observations) -> None:
    parts, firsts = _parts(observations), _parts(first)
    if parts.keys() != firsts.keys():
        raise DataFault(f"{where} has {sorted(parts)}, episode 0 has {sorted(firsts)}. All need the same.")
    for key, part in parts.items():
        _check_like_first(where, key, part, firsts[key])


def _masks(where: str, episode: Mapping[str, Any], steps: int) -> Array:
    """1 - termination of each step."""
    for key in ("terminations", "truncations"):
        if key in episode and "masks" not in episode:
            inside = np.flatnonzero(_flags(where, episode, key, steps)[:-1])
            if len(inside):
                raise DataFault(
                    f"{where} has a true '{key}' at step {inside[0]} of {steps}, and goes on. Split it there; or, if a "
                    "state is terminal though the trajectory goes on, say so by 'masks' instead (0 there)."
                )
    if "masks" in episode:
        masks = as_flags(where, "masks", episode["masks"])
        if masks.shape != (steps,):
            raise DataFault(f"{where}: masks have shape {masks.shape}, expected ({steps},).")
        return masks
    _field(where, episode, "terminations")
    return 1 - _flags(where, episode, "terminations", steps)


def _flags(where: str, episode: Mapping[str, Any], key: str, steps: int) -> Array:
    """`[T]`; one flag for the episode is of its last step."""
    given = as_numbers(where, key, episode[key])
    flags = np.append(np.zeros(steps - 1, np.float32), given) if given.ndim == 0 else given
    if flags.shape != (steps,):
        raise DataFault(f"{where}: {key} have shape {flags.shape}, expected ({steps},), or one for the episode.")
    return as_flags(where, key, flags).astype(np.float32)


def _concatenate(parts: Sequence[Any]) -> Observations:
    if isinstance(parts[0], dict):
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return np.concatenate(parts)
