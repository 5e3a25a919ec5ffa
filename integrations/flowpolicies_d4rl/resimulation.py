"""Repeats transitions of D4RL's antmaze datasets in the simulator, from the states that the observations contain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import Resimulated
from flowpolicies.tree import Array
from flowpolicies_d4rl.antmaze import AntMaze
from flowpolicies_d4rl.names import find_task


def open_resimulator(name: str, dataset: TransitionDataset, **options: Any) -> Callable[[Array, Array], Resimulated]:
    """Open the simulator of a dataset.

    Args:
        name: Name of the dataset.
        dataset: The dataset as `load` returned it.
        **options: Options of `load`, which have no effect here.

    Returns:
        A function of row indices and actions that simulates one step from the state of each row. It gives no rewards,
        because they depend on goals that the file does not contain.

    Raises:
        ValueError: if the observations are not the whole state of the simulator.
    """
    task = find_task(name)
    if task.family != "antmaze":
        raise ValueError(f"the observations of '{name}' are not the whole state of the simulator; those of antmaze are")
    simulator: Any = AntMaze(task.body).unwrapped
    simulator.reset(seed=0)
    positions = simulator.model.nq
    # D4RL's files have one array of observations, so this is never a dict.
    observations: Any = dataset.observations

    def resimulate(rows: Array, actions: Array) -> Resimulated:
        found = []
        states = np.asarray(observations[rows], np.float64)
        for state, action in zip(states, actions, strict=True):
            simulator.set_state(state[:positions], state[positions:])
            found.append(simulator.step(action)[0])
        return Resimulated(np.array(found), None, None)

    return resimulate
