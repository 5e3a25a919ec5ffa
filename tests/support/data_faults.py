"""Faults that are put into the columns of any dataset of vectors, as functions of the columns and a generator.

Columns are those of `TransitionDataset`: observations, next_observations, actions, rewards, masks and terminals.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Columns = dict[str, Array]
Fault = Callable[[Columns, np.random.Generator], None]

PAIR = ("observations", "next_observations")


def bounds(columns: Columns) -> tuple[Array, Array]:
    """First and last rows of the trajectories."""
    ends = np.flatnonzero(columns["terminals"])
    return np.append(0, ends[:-1] + 1), ends


def in_some(columns: Columns, share: float, rng: np.random.Generator) -> Array:
    """Rows of a share of the trajectories, at least one, `[N]` bool."""
    _starts, ends = bounds(columns)
    chosen = rng.permutation(len(ends))[: max(1, round(share * len(ends)))]
    return np.isin(np.searchsorted(ends, np.arange(len(columns["rewards"]))), chosen)


def both(columns: Columns, rows: Array, component: int, values: Any) -> None:
    """Puts values into a component of the states of some rows `[n]`, wherever these states are stored."""
    before = rows - 1
    is_inner = (rows > 0) & (columns["terminals"][before] == 0)
    filled = np.broadcast_to(values, rows.shape)
    columns["observations"][rows, component] = filled
    columns["next_observations"][before[is_inner], component] = filled[is_inner]


def varied(columns: Columns) -> int:
    """The component with the most different values."""
    return int(np.argmax([len(np.unique(column)) for column in columns["observations"].T]))


def transform(columns: Columns, rows: Array, component: int, change: Callable[[Array], Array]) -> None:
    for key in PAIR:
        columns[key][rows, component] = change(columns[key][rows, component])


def lost_ends(by_shift: bool, which: Callable[[Array], Array] = lambda ends: ends[:-1]) -> Fault:
    def corrupt(columns: Columns, _: np.random.Generator) -> None:
        lost = which(np.flatnonzero(columns["terminals"]))
        columns["terminals"][lost] = 0
        if by_shift:
            columns["next_observations"][lost] = columns["observations"][lost + 1]

    return corrupt


def shifted_states(columns: Columns, _: np.random.Generator) -> None:
    """All next observations are the next rows, across ends too."""
    columns["next_observations"][:-1] = columns["observations"][1:]


def early_ends(columns: Columns, rng: np.random.Generator) -> None:
    shifted_states(columns, rng)
    ends = np.flatnonzero(columns["terminals"])[:-1]
    columns["terminals"][ends], columns["terminals"][ends - 1] = 0, 1


def stale(share: float) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        ends = np.flatnonzero(columns["terminals"])
        ends = ends[rng.permutation(len(ends))[: max(2, round(share * len(ends)))]]
        columns["next_observations"][ends] = columns["observations"][ends]

    return corrupt


def limits_as_terminals(columns: Columns, rng: np.random.Generator) -> None:
    starts, ends = bounds(columns)
    lengths = ends - starts + 1
    longest = ends[lengths == lengths.max()]
    columns["masks"][rng.permutation(longest)[: max(3, len(longest) // 2)]] = 0


def near_copy(noise: float, changed: int = 0) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        starts, ends = bounds(columns)
        lengths = ends - starts + 1
        chosen = np.argsort(-lengths, kind="stable")[:1][0]
        rows = np.arange(starts[chosen], ends[chosen] + 1)
        for key, column in columns.items():
            copy = column[rows].copy()
            if key in PAIR or key == "actions":
                copy = copy + noise * rng.normal(size=copy.shape).astype(copy.dtype)
                copy = np.clip(copy, column.min(), column.max())
            columns[key] = np.concatenate([column, copy])
        added = len(columns["rewards"]) - len(rows)
        for row in rng.integers(added + 1, len(columns["rewards"]) - 1, changed):
            both(columns, np.array([row]), 0, columns["observations"][row, 0] + 0.01)

    return corrupt


def piece_again(columns: Columns, _: np.random.Generator) -> None:
    starts, ends = bounds(columns)
    longest = int(np.argmax(ends - starts))
    length = int(ends[longest] - starts[longest] + 1)
    rows = np.arange(starts[longest] + length // 4, starts[longest] + 3 * length // 4)
    for key, column in columns.items():
        columns[key] = np.concatenate([column, column[rows]])
    columns["terminals"][-1] = 1


def sentinels(value: float, share: float = 0.01, run: int = 1) -> Fault:
    """A component holds a number that stands for missing readings."""

    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        length = len(columns["rewards"])
        first = rng.permutation(length - run - 1)[: max(8, int(share * length / run))]
        rows = np.unique(first[:, None] + np.arange(run))
        both(columns, rows, varied(columns), value)

    return corrupt


def reward_sentinels(columns: Columns, rng: np.random.Generator) -> None:
    columns["rewards"][rng.permutation(len(columns["rewards"]))[: max(5, len(columns["rewards"]) // 100)]] = -9999


def one_reward(value: float) -> Fault:
    def corrupt(columns: Columns, _: np.random.Generator) -> None:
        columns["rewards"][len(columns["rewards"]) // 2] = value

    return corrupt


def one_value(value: float) -> Fault:
    def corrupt(columns: Columns, _: np.random.Generator) -> None:
        both(columns, np.array([len(columns["rewards"]) // 2]), varied(columns), value)

    return corrupt


def spikes(columns: Columns, rng: np.random.Generator) -> None:
    """Three rows are far away from the others."""
    component = varied(columns)
    rows = rng.permutation(len(columns["rewards"]) - 2)[:3] + 1
    spread = columns["observations"][:, component].std()
    both(columns, rows, component, columns["observations"][rows, component] + 50 * spread)


def constant(columns: Columns, _: np.random.Generator) -> None:
    component = varied(columns)
    for key in PAIR:
        columns[key][:, component] = columns["observations"][0, component]


def rounded(kind: str, share: float = 1.0) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows, states = in_some(columns, share, rng), columns["observations"]
        low, step = states.min(axis=0), np.maximum(np.ptp(states, axis=0) / 255, 1e-9)
        round_it = {
            "half": lambda x: x.astype(np.float16).astype(np.float32),
            "bytes": lambda x: (low + np.rint((x - low) / step) * step).astype(np.float32),
            "decimals": lambda x: np.round(x, 2),
        }[kind]
        for key in PAIR:
            columns[key][rows] = round_it(columns[key][rows])

    return corrupt


def units(factor: float, share: float = 0.5) -> Fault:
    """A component has another unit in a share of the trajectories."""

    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        transform(columns, in_some(columns, share, rng), varied(columns), lambda x: factor * x)

    return corrupt


def normalised(share: float = 0.5) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows = in_some(columns, share, rng)
        mean, scale = columns["observations"].mean(axis=0), columns["observations"].std(axis=0) + 1e-3
        for key in PAIR:
            columns[key][rows] = (columns[key][rows] - mean) / scale

    return corrupt


def swapped(first: int, second: int, share: float = 1.0) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows = in_some(columns, share, rng)
        for key in PAIR:
            columns[key][np.ix_(rows, [first, second])] = columns[key][np.ix_(rows, [second, first])]

    return corrupt


def delayed(share: float = 1.0) -> Fault:
    """A component is that of the step before."""

    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows, component = in_some(columns, share, rng), varied(columns)
        starts, _ = bounds(columns)
        late = columns["observations"][np.arange(len(rows)) - 1, component]
        late[starts] = columns["observations"][starts, component]
        now = columns["observations"][:, component].copy()
        columns["next_observations"][rows, component] = now[rows]
        columns["observations"][rows, component] = late[rows]

    return corrupt


def frozen(columns: Columns, _: np.random.Generator) -> None:
    """A component keeps its value for a third of the longest trajectory."""
    starts, ends = bounds(columns)
    longest = int(np.argmax(ends - starts))
    length = int(ends[longest] - starts[longest] + 1)
    rows = np.arange(starts[longest] + length // 3, starts[longest] + 2 * length // 3)
    component = varied(columns)
    both(columns, rows, component, columns["observations"][rows[0], component])


def rewards_in_part(change: Callable[[Array], Array], share: float = 0.3) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows = in_some(columns, share, rng)
        columns["rewards"][rows] = change(columns["rewards"][rows])

    return corrupt


def actions_in_part(change: Callable[[Array], Array], share: float = 0.5) -> Fault:
    def corrupt(columns: Columns, rng: np.random.Generator) -> None:
        rows = in_some(columns, share, rng)
        columns["actions"][rows] = change(columns["actions"][rows])

    return corrupt


FAULTS: dict[str, Fault] = {
    "all ends lost, by shift": lost_ends(True),
    "all ends lost, true next": lost_ends(False),
    "every third end lost, by shift": lost_ends(True, lambda ends: ends[:-1:3]),
    "states shifted over ends": shifted_states,
    "ends one row early": early_ends,
    "stale last observations": stale(1.0),
    "stale last observations of some": stale(0.3),
    "time limits as terminals in half": limits_as_terminals,
    "copy with noise": near_copy(1e-6),
    "copy with a few changes": near_copy(0.0, 3),
    "a piece again": piece_again,
    "sentinel -9999": sentinels(-9999),
    "sentinel 999": sentinels(999),
    "sentinel 1e20": sentinels(1e20),
    "sentinel float max": sentinels(float(np.finfo(np.float32).max)),
    "sentinel 0": sentinels(0.0, 0.03),
    "sentinel -1": sentinels(-1.0, 0.03),
    "sentinel runs of -9999": sentinels(-9999, 0.03, 5),
    "rewards of -9999": reward_sentinels,
    "a reward of 1e8": one_reward(1e8),
    "an observation of 1e30": one_value(1e30),
    "spikes": spikes,
    "constant component": constant,
    "half precision": rounded("half"),
    "bytes": rounded("bytes"),
    "two decimals": rounded("decimals"),
    "half precision in half": rounded("half", 0.5),
    "degrees in half": units(180 / np.pi),
    "degrees in a few": units(180 / np.pi, 0.15),
    "millimetres in half": units(1000),
    "normalised half": normalised(),
    "swapped components": swapped(0, 1),
    "swapped components in some": swapped(0, 1, 0.3),
    "sign of a component in half": units(-1.0),
    "delayed component": delayed(),
    "delayed component in half": delayed(0.5),
    "frozen component": frozen,
    "rewards late in some": rewards_in_part(lambda r: np.roll(r, 1)),
    "rewards scaled in half": rewards_in_part(lambda r: 10 * r, 0.5),
    "actions halved in half": actions_in_part(lambda a: 0.5 * a),
    "actions clipped in half": actions_in_part(lambda a: np.clip(a, -0.2, 0.2)),
    "actions of another sign in half": actions_in_part(lambda a: -a),
}
