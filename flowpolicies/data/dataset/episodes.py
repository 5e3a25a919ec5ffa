"""Transitions from whole episodes and from tables of steps: T+1 observations and T actions become T transitions."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.checks import DataFault, as_flags, as_numbers, check_continuous
from flowpolicies.data.dataset.conversion import to_observations
from flowpolicies.messages import did_you_mean
from flowpolicies.spaces.layout import Observations
from flowpolicies.tree import Array, named_leaves, take, tree_map

_KEYS = ("observations", "actions", "rewards", "terminations", "truncations", "masks")
_ARGUMENTS = ("observations", "actions", "rewards", "next_observations", "masks", "terminals")


class Pairs(NamedTuple):
    """The transitions in a table of steps, as rows of observations and rows of next observations."""

    rows: npt.NDArray[np.intp]
    """Row of the observation, action and reward of each transition, `[N]`."""
    next_rows: npt.NDArray[np.intp]
    """Row of the next observation of each transition, `[N]`."""
    terminals: Array
    """Flags that are 1 on the last transition of each trajectory, `[N]` float32."""


def pair_rows(ends: Array, terminated: Array) -> Pairs:
    """The transitions in a table whose rows hold the observation before an action, but not the one after it.

    The next observation of a row is the observation of the following row. The last row of a trajectory has no next
    observation. It is dropped, unless the trajectory terminated there: learners do not bootstrap from the next
    observation of a terminal step, so the row's own observation is used in its place.

    Args:
        ends: `[R]` bool, true on the last row of each trajectory.
        terminated: `[R]` bool, true on those of them where the trajectory terminated.
    """
    rows = np.arange(len(ends))
    trajectories = np.cumsum(ends) - ends
    kept = rows[~ends | terminated]
    return Pairs(kept, np.where(ends, rows, rows + 1)[kept], last_of_each(trajectories[kept]))


def last_of_each(trajectories: Array) -> Array:
    """Flags `[N]` that are 1 on the last row of each trajectory, float32.

    Args:
        trajectories: `[N]`, the trajectory that each row belongs to.
    """
    return np.append(trajectories[1:] != trajectories[:-1], np.ones(min(len(trajectories), 1))).astype(np.float32)


def arguments_of_episodes(name: str, episodes: Iterable[Mapping[str, Any]], *, may_be_discrete: bool) -> dict[str, Any]:
    """The arguments of `TransitionDataset.from_arrays` from episodes as `TransitionDataset.from_episodes` takes them.

    Args:
        name: the name of the dataset, for messages.
        episodes: the episodes.
        may_be_discrete: accept actions of an integer type, because the action space is known.

    Raises:
        DataFault: if something is wrong with the data; the message names the episode.
    """
    if isinstance(episodes, Mapping):
        raise DataFault(f"dataset '{name}': expected a list of episodes, got one episode. Put it into a list.")
    arrays = _arrays_of_episodes(name, episodes, may_be_discrete=may_be_discrete)
    if not arrays["actions"]:
        raise DataFault(f"dataset '{name}': there is no episode. Give at least one.")
    return {key: _concatenate(parts) for key, parts in arrays.items()}


def _arrays_of_episodes(
    name: str, episodes: Iterable[Mapping[str, Any]], *, may_be_discrete: bool
) -> dict[str, list[Any]]:
    """The arrays of each episode, by the names of the arguments of `TransitionDataset.from_arrays`."""
    arrays: dict[str, list[Any]] = {key: [] for key in _ARGUMENTS}
    unread: set[str] = set()
    for index, episode in enumerate(episodes):
        where = f"dataset '{name}': episode {index}"
        observations = to_observations(where, "observations", _field(where, episode, "observations"))
        actions, rewards = (as_numbers(where, key, _field(where, episode, key)) for key in ("actions", "rewards"))
        if not may_be_discrete:
            check_continuous(where, np.asarray(episode["actions"]).dtype)
        _check_steps(where, actions, observations, rewards)
        if arrays["actions"]:
            _check_like_first(where, "actions", actions, arrays["actions"][0])
            _check_observations_like_first(where, observations, arrays["observations"][0])
        arrays["observations"].append(take(observations, slice(None, -1)))
        arrays["next_observations"].append(take(observations, slice(1, None)))
        arrays["actions"].append(actions)
        arrays["rewards"].append(rewards)
        arrays["masks"].append(_masks(where, episode, len(actions)))
        arrays["terminals"].append(np.arange(len(actions)) == len(actions) - 1)
        unread |= _unread(episode)
    if unread:
        warnings.warn(
            f"dataset '{name}': {sorted(unread)} of the episodes are not read; read are {', '.join(_KEYS)}.",
            stacklevel=4,  # The line that called TransitionDataset.from_episodes.
        )
    return arrays


def _field(where: str, episode: Mapping[str, Any], key: str) -> Any:
    if not isinstance(episode, Mapping):
        raise DataFault(
            f"{where} is of type {type(episode).__name__}; expected a mapping with 'observations' and so on."
        )
    if key not in episode:
        raise DataFault(f"{where} has no '{key}' (it holds {sorted(episode)}).{did_you_mean(key, _unread(episode))}")
    return episode[key]


def _unread(episode: Mapping[str, Any]) -> set[str]:
    """Keys of an episode that are not read."""
    return {str(key) for key in episode} - {*_KEYS}


def _check_steps(where: str, actions: Array, observations: Observations, rewards: Array) -> None:
    for key, array in {"actions": actions, **named_leaves("observations", observations)}.items():
        if array.ndim == 0:
            raise DataFault(f"{where}: {key} are one number. Give an array with one row per step.")
    steps = len(actions)
    if steps == 0:
        raise DataFault(f"{where} has no steps. Leave it out.")
    if rewards.shape != (steps,):
        raise DataFault(f"{where}: rewards have shape {rewards.shape}, expected ({steps},), one for each action.")
    for key, part in named_leaves("observations", observations).items():
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
    parts, firsts = named_leaves("observations", observations), named_leaves("observations", first)
    if parts.keys() != firsts.keys():
        raise DataFault(f"{where} has {sorted(parts)}, episode 0 has {sorted(firsts)}. All need the same.")
    for key, part in parts.items():
        _check_like_first(where, key, part, firsts[key])


def _masks(where: str, episode: Mapping[str, Any], steps: int) -> Array:
    """The masks of an episode, `[T]`: 1 - termination of each step."""
    for key in ("terminations", "truncations"):
        if key in episode and "masks" not in episode:
            inside = np.flatnonzero(_flags(where, episode, key, steps)[:-1])
            if len(inside):
                raise DataFault(
                    f"{where} has a true '{key}' at step {inside[0]} of {steps}, but continues. Split it there; or, if "
                    "a state is terminal but its trajectory continues, pass 'masks' instead, which are 0 there."
                )
    if "masks" in episode:
        masks = as_flags(where, "masks", episode["masks"])
        if masks.shape != (steps,):
            raise DataFault(f"{where}: masks have shape {masks.shape}, expected ({steps},).")
        return masks
    _field(where, episode, "terminations")
    return 1 - _flags(where, episode, "terminations", steps)


def _flags(where: str, episode: Mapping[str, Any], key: str, steps: int) -> Array:
    """Flags of an episode, `[T]`; a single flag belongs to the last step."""
    given = as_numbers(where, key, episode[key])
    flags = np.append(np.zeros(steps - 1, np.float32), given) if given.ndim == 0 else given
    if flags.shape != (steps,):
        raise DataFault(f"{where}: {key} have shape {flags.shape}, expected ({steps},), or one for the episode.")
    return as_flags(where, key, flags).astype(np.float32)


def _concatenate(trees: Sequence[Any]) -> Observations:
    return tree_map(lambda *parts: np.concatenate(parts), *trees)
