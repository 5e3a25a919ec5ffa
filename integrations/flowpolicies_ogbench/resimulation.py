"""Repeats transitions of a dataset in OGBench's simulators, from the simulator states that the data file stores."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np

from flowpolicies.data import TransitionDataset
from flowpolicies.data.reading.archive import open_npz
from flowpolicies.inspection import Resimulated
from flowpolicies.tree import Array
from flowpolicies_ogbench.environment import make_env, sparse_rewards
from flowpolicies_ogbench.finding import GENERATED_DATA_DIR, PUBLISHED_DATA_DIR, files_in, find_folder
from flowpolicies_ogbench.names import parse_name, task_names
from flowpolicies_ogbench.randomness import global_draws_from


class _States(NamedTuple):
    """State of the simulator before each transition."""

    qpos: Array
    """Positions of the joints, `[N, Q]`."""
    qvel: Array
    """Velocities of the joints, `[N, V]`."""
    button_states: Array | None
    """States of the buttons, `[N, K]`; None if the scene has no buttons."""


def open_resimulator(
    name: str, dataset: TransitionDataset, *, data_dir: str | os.PathLike[str] | None = None, **options: Any
) -> Callable[[Array, Array], Resimulated]:
    """Open the simulator of a dataset.

    Args:
        name: Name of the dataset.
        dataset: The dataset as `load` returned it.
        data_dir: Folder from which it was loaded; None: the folder that `load` finds.
        **options: Other options of `load`, which have no effect here.

    Returns:
        A function of row indices and actions that simulates one step from the state of each row.

    Raises:
        ValueError: if the dataset is goal-conditioned, has images as observations, consists of several files, or its
            file has no simulator states.
    """
    path = _find_file(name, dataset, data_dir)
    if dataset.observation_space.dtype == np.uint8:
        raise ValueError(f"the observations of '{name}' are images, which depend on the renderer")
    states = _read_states(path, len(dataset))
    env = make_env(name, seed=0)
    env.reset(seed=0)  # This sets the task and compiles the model.
    # `unwrapped` of an OGBenchEnv is itself, so this takes OGBench's environment from inside it.
    simulator: Any = env.get_wrapper_attr("env").unwrapped
    low, high = dataset.action_space.low, dataset.action_space.high
    is_first = np.zeros(len(dataset), bool)
    is_first[dataset.episode_starts] = True
    is_sparse = bool(dataset.provenance.get("sparse"))

    def resimulate(rows: Array, actions: Array) -> Resimulated:
        outcomes = []
        with global_draws_from(np.random.RandomState(0)):
            for row, action in zip(rows, actions, strict=True):
                _restore(simulator, states, int(row), is_first=bool(is_first[row]))
                outcomes.append(simulator.step(np.clip(action, low, high))[:3])
        observations, rewards, terminated = (np.array(column) for column in zip(*outcomes, strict=True))
        rewards = sparse_rewards(rewards) if is_sparse else rewards
        return Resimulated(observations, rewards, 1.0 - terminated)

    return resimulate


def _find_file(name: str, dataset: TransitionDataset, data_dir: str | os.PathLike[str] | None) -> Path:
    task, split = parse_name(name), str(dataset.provenance.get("split", "train"))
    if task.mode != "singletask":
        raise ValueError(f"'{name}' is goal-conditioned; use '{task_names(name)[0]}', which has the same data")
    if data_dir is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `load` has warned already.
            data_dir = find_folder(name, task, PUBLISHED_DATA_DIR, GENERATED_DATA_DIR, split)
    files = files_in(task, Path(data_dir), split)
    if len(files) != 1:
        raise ValueError(f"'{name}' has {len(files)} files in '{data_dir}', but re-simulation needs exactly one")
    return files[0]


def _read_states(path: Path, length: int) -> _States:
    with open_npz(path) as file:
        missing = [key for key in ("qpos", "qvel") if key not in file]
        if missing:
            raise ValueError(f"'{path}' does not contain {' and '.join(missing)}")
        # The last row of a trajectory is not a transition, only its final state (`load_dataset` in ogbench/utils.py).
        kept = file["terminals"] == 0
        buttons = file["button_states"][kept] if "button_states" in file else None
        states = _States(file["qpos"][kept], file["qvel"][kept], buttons)
    if len(states.qpos) != length:
        raise ValueError(f"'{path}' has {len(states.qpos)} transitions, but the dataset has {length}")
    return states


def _restore(simulator: Any, states: _States, row: int, *, is_first: bool) -> None:
    """Put the simulator into the state before the action of a row, including its record of successes."""
    qpos, qvel = states.qpos[row].astype(np.float64), states.qvel[row].astype(np.float64)
    if not hasattr(simulator, "pre_step"):
        # A maze has no other state than MuJoCo's (ogbench/locomaze/maze.py).
        simulator.set_state(qpos, qvel)
        return
    if states.button_states is None:
        simulator.set_state(qpos, qvel)
    else:
        simulator.set_state(qpos, qvel, states.button_states[row])
    simulator.pre_step()
    # `post_step` computes the successes. It does not press a button, because nothing has moved since `pre_step`.
    simulator.post_step()
    # In scenes with buttons a step ends with `mj_forward` (`_apply_button_states` in scene_env.py and puzzle_env.py of
    # ogbench/manipspace/envs), so there the poses agree with the joints.
    if not is_first and states.button_states is None:
        _delay_kinematics(simulator.model, simulator.data)


def _delay_kinematics(model: Any, data: Any) -> None:
    """Set the poses of the bodies to those of one physics step earlier than the joints.

    MuJoCo leaves them so after a step, and OGBench's controller uses the pose of the gripper that the last step left
    (`set_control` in ogbench/manipspace/envs/manipspace_env.py).
    """
    # A physics step ends by moving the joints by their velocities, so moving them back gives the earlier positions.
    qpos = data.qpos.copy()
    mujoco.mj_integratePos(model, data.qpos, data.qvel, -model.opt.timestep)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    data.qpos[:] = qpos
