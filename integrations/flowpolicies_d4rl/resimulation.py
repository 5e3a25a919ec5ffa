"""Puts the ant where the data say that it was, and lets it go on from there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import Resimulated
from flowpolicies_d4rl.antmaze import AntMaze
from flowpolicies_d4rl.names import find_task

Array = npt.NDArray[Any]


def open_resimulator(name: str, dataset: TransitionDataset, **options: Any) -> Callable[[Array, Array], Resimulated]:
    """A function from rows of the dataset and actions to what the simulator makes of them.

    Rewards are not judged: they are those of the goals of the collection, which the loaded data do not hold.

    Args:
        name: the dataset's name.
        dataset: as `load` gave it.
        **options: of `load`; they change nothing here.

    Raises:
        ValueError: if the observations are not the whole state of the simulator.
    """
    task = find_task(name)
    if task.family != "antmaze":
        raise ValueError(f"the observations of '{name}' are not the whole state of the simulator")
    simulator: Any = AntMaze(task.body).unwrapped
    simulator.reset(seed=0)
    positions = simulator.model.nq
    observations: Any = dataset.observations  # Never a dict: the files hold one array.

    def resimulate(rows: Array, actions: Array) -> Resimulated:
        found = []
        states = np.asarray(observations[rows], np.float64)
        for state, action in zip(states, actions, strict=True):
            simulator.set_state(state[:positions], state[positions:])
            found.append(simulator.step(action)[0])
        return Resimulated(np.array(found), None, None)

    return resimulate
