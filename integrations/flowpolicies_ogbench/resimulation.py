"""Puts OGBench's simulators into the states that a data file stores, and lets them go on from there."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mujoco
import numpy as np
import numpy.typing as npt

from flowpolicies.data import TransitionDataset
from flowpolicies.inspection import Resimulated
from flowpolicies_ogbench.environment import make_env, sparse_rewards
from flowpolicies_ogbench.finding import GENERATED_DATA_DIR, PUBLISHED_DATA_DIR, files_in, find_folder
from flowpolicies_ogbench.names import parse_name, task_names
from flowpolicies_ogbench.randomness import global_draws_from

Array = npt.NDArray[Any]


class _States(NamedTuple):
    """What the file stores of every transition."""

    qpos: Array
    qvel: Array
    button_states: Array | None
    """None if the scene has no buttons."""


def open_resimulator(
    name: str, dataset: TransitionDataset, *, data_dir: str | os.PathLike[str] | None = None, **options: Any
) -> Callable[[Array, Array], Resimulated]:
    """A function from rows of the dataset and actions to what the simulator makes of them.

    Args:
        name: the dataset's name.
        dataset: as `load` gave it, for its provenance.
        data_dir: the folder that it was loaded from.
        **options: other options of `load`; they change nothing here.

    Raises:
        ValueError: if the file stores no states, or there are several; if there are goals, or observations are images.
    """
    path = _find_file(name, dataset, data_dir)
    if dataset.observation_space.dtype == np.uint8:
        raise ValueError(f"the observations of '{name}' are images, which differ from one renderer to the next")
    states = _read_states(path, len(dataset))
    env = make_env(name, seed=0)
    env.reset(seed=0)  # Sets the task and compiles the model.
    simulator: Any = env.get_wrapper_attr("env").unwrapped  # OGBench's own.
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
        observations, rewards, terminated = (np.array(part) for part in zip(*outcomes, strict=True))
        rewards = sparse_rewards(rewards) if is_sparse else rewards
        return Resimulated(observations, rewards, 1.0 - terminated)

    return resimulate


def _find_file(name: str, dataset: TransitionDataset, data_dir: str | os.PathLike[str] | None) -> Path:
    task, split = parse_name(name), str(dataset.provenance.get("split", "train"))
    if task.mode != "singletask":
        raise ValueError(f"'{name}' has goals; check '{task_names(name)[0]}', which reads the same files")
    if data_dir is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Loading has said already that the data is generated.
            data_dir = find_folder(name, task, PUBLISHED_DATA_DIR, GENERATED_DATA_DIR, split)
    files = files_in(task, Path(data_dir), split)
    if len(files) != 1:
        raise ValueError(f"'{name}' is {len(files)} files in '{data_dir}', and only one can be re-simulated")
    return files[0]


def _read_states(path: Path, length: int) -> _States:
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in ("qpos", "qvel") if key not in file]
        if missing:
            raise ValueError(f"'{path}' stores no {' and '.join(missing)}")
        # The last row of a trajectory in the file is no transition, only the state after the one before.
        kept = file["terminals"] == 0
        buttons = file["button_states"][kept] if "button_states" in file else None
        states = _States(file["qpos"][kept], file["qvel"][kept], buttons)
    if len(states.qpos) != length:
        raise ValueError(f"'{path}' has {len(states.qpos)} transitions, the dataset {length}")
    return states


def _restore(simulator: Any, states: _States, row: int, *, is_first: bool) -> None:
    """The simulator as it was before the row's action, successes included."""
    qpos, qvel = states.qpos[row].astype(np.float64), states.qvel[row].astype(np.float64)
    if not hasattr(simulator, "pre_step"):  # A maze: MuJoCo's state is all.
        simulator.set_state(qpos, qvel)
        return
    if states.button_states is None:
        simulator.set_state(qpos, qvel)
    else:
        simulator.set_state(qpos, qvel, states.button_states[row])
    simulator.pre_step()
    simulator.post_step()  # Judges successes; no button is pressed, for nothing has moved since `pre_step`.
    if not is_first and states.button_states is None:  # A step with buttons ends with fresh kinematics.
        _age_kinematics(simulator.model, simulator.data)


def _age_kinematics(model: Any, data: Any) -> None:
    """Puts the poses of bodies one physics step behind the joints, where MuJoCo leaves them after a step.

    The controller aims from the pose of the gripper as the last step left it. A step ends by moving the joints by
    their velocities, so the joints before it are those of now moved back.
    """
    qpos = data.qpos.copy()
    mujoco.mj_integratePos(model, data.qpos, data.qvel, -model.opt.timestep)
    mujoco.mj_kinematics(model, data)
    mujoco.mj_comPos(model, data)
    data.qpos[:] = qpos
