"""A data file of OGBench as transitions, with the rewards of a task or with goals."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict
from ogbench.relabel_utils import add_oracle_reps, relabel_dataset

from flowpolicies.data import DataFault, TransitionDataset
from flowpolicies.data.dataset.checks import as_flags, check_actions, check_numbers, place
from flowpolicies.data.dataset.compact import in_full, successors
from flowpolicies.spaces.layout import Observations, clip_inside
from flowpolicies_ogbench.environment import channels_first, make_env, sparse_rewards
from flowpolicies_ogbench.names import TaskName
from flowpolicies_ogbench.randomness import global_draws_from

Array = npt.NDArray[Any]

_STATES = ("qpos", "button_states")


@final
class Reader:
    """Reads the files of one dataset.

    Args:
        name: of the dataset, for messages.
        task: its parts.
        sparse, compact: see `load`.
        provenance: of what is read.
    """

    def __init__(self, name: str, task: TaskName, *, sparse: bool, compact: bool, provenance: dict[str, Any]) -> None:
        self.name, self.task, self.sparse, self.compact, self.provenance = name, task, sparse, compact, provenance
        self.env: gymnasium.Env[Any, Any] = make_env(name, seed=0)

    def __call__(self, path: Path) -> TransitionDataset:
        """The transitions of a file.

        Raises:
            ValueError: if it is no data file, or something is wrong with the data.
        """
        arrays = self._read(path)
        assert isinstance(self.env.action_space, Box)
        check_actions(self.name, arrays["actions"], self.env.action_space, arrays["terminals"])  # Clipping hides it.
        observations: Observations = arrays["observations"]
        finals: Observations = arrays["finals"]
        if self.task.mode != "singletask":
            observations, finals = self._add_goals(arrays)
        following = successors(observations, finals, np.flatnonzero(arrays["terminals"]))
        return TransitionDataset.from_arrays(
            observations,
            clip_inside(arrays["actions"], self.env.action_space),  # As in the papers.
            sparse_rewards(arrays["rewards"]) if self.sparse else arrays["rewards"],
            following if self.compact else in_full(following),
            masks=arrays["masks"],
            terminals=arrays["terminals"],
            observation_space=self.env.observation_space,
            action_space=self.env.action_space,
            name=self.name,
            provenance=self.provenance,
        )

    def _read(self, path: Path) -> dict[str, Any]:
        """The columns of a file, relabelled by OGBench's own code and the goal of the environment, which it resets.

        Columns are read one after the other: with OGBench's reading, which is the same otherwise, all columns of the
        file would be in memory together with what is made of them.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                ends = _ends(file["terminals"])
                rows = np.flatnonzero(~ends)
                terminals = np.append(ends[1:], True)[rows]
                finals = rows[terminals] + 1
                needed = [key for key in _STATES if key in file and self.task.mode != "goals"]
                arrays = self._judge({key: _states(file, key, ends) for key in needed}, rows, finals)
                states = _column(file, "observations", ends)
                if self._observation_dtype() == np.uint8 != states.dtype:
                    raise ValueError(f"observations are {states.dtype}, and images are bytes (uint8)")
                states = states.astype(self._observation_dtype(), copy=False)
                arrays["observations"], arrays["finals"] = states[rows], states[finals]
                del states
                arrays["actions"] = _column(file, "actions", ends)[rows].astype(np.float32, copy=False)
                arrays["terminals"] = terminals
        except (KeyError, IndexError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            kind = DataFault if isinstance(error, IndexError | ValueError) else ValueError  # No half file, say.
            raise kind(
                f"dataset '{self.name}': cannot read '{path}' as OGBench data: {str(error).rstrip('.')}. "
                "If another program made the file, remove it and load again."
            ) from error
        if self._observation_dtype() == np.uint8:
            for key in ("observations", "finals"):
                arrays[key] = channels_first(arrays[key])
        return arrays

    def _judge(self, states: dict[str, Any], rows: Array, finals: Array) -> dict[str, Any]:
        """Rewards and masks of the task; or what states, and the final ones of trajectories, are as goals."""
        inner: Any = self.env
        if self.task.mode == "singletask":
            judged: dict[str, Any] = {key: state[rows] for key, state in states.items()}
            with global_draws_from(np.random.RandomState(0)):
                relabel_dataset(self.task.environment, inner.env, judged)
            return {key: judged[key] for key in ("rewards", "masks")}
        if self.task.mode == "goals":
            return {}
        add_oracle_reps(self.task.environment, inner.env, states)
        described = states["oracle_reps"]
        return {"achieved/observations": described[rows], "achieved/finals": described[finals]}

    def _observation_dtype(self) -> Any:
        space = self.env.observation_space
        return (space["observation"] if isinstance(space, Dict) else space).dtype

    def _add_goals(self, arrays: dict[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
        """As the goal of a trajectory the state of its last row: that row's reward is 0 and its mask too.

        Returns observations and final observations.
        """
        ends = np.flatnonzero(arrays["terminals"])
        last = np.repeat(ends, np.diff(ends, prepend=-1))
        at_goal = np.arange(len(last)) == last
        arrays["rewards"], arrays["masks"] = at_goal.astype(np.float32) - 1, 1 - at_goal.astype(np.float32)
        states = {key: {"observation": arrays[key]} for key in ("observations", "finals")}
        if self.task.mode == "oraclerep":
            for key, state in states.items():
                state["achieved_goal"] = arrays[f"achieved/{key}"]
        goals = states["observations"].get("achieved_goal", arrays["observations"])
        states["observations"]["desired_goal"], states["finals"]["desired_goal"] = goals[last], goals[ends]
        return states["observations"], states["finals"]


def _ends(terminals: Array) -> npt.NDArray[np.bool_]:
    """`[R]`, the last state of each trajectory, from which nothing was done."""
    if terminals.ndim != 1:
        raise ValueError(f"terminals have shape {terminals.shape}, and there must be one for each state")
    ends = as_flags("its flags", "terminals", terminals)
    if ends.all():
        raise ValueError(f"it holds {len(ends)} states and no transition")
    if not ends[-1]:
        raise ValueError(
            f"the last of its {len(ends)} states does not end a trajectory (terminals[-1] is 0), so the end of the "
            "data is missing"
        )
    return ends


def _column(file: Mapping[str, Array], key: str, ends: Array) -> Array:
    """`[R, *]`, a column with one row for each state."""
    column = file[key]
    if column.shape[:1] != ends.shape:
        raise ValueError(f"{key} have shape {column.shape}, but there are {len(ends)} terminals, one for each state")
    check_numbers("its columns", key, column)
    return column


def _states(file: Mapping[str, Array], key: str, ends: Array) -> Array:
    """States of the simulator, which decide on rewards; no comparison with NaN is ever true."""
    column = _column(file, key, ends)
    finite = np.isfinite(column).reshape(len(column), -1).all(1)
    if not finite.all():
        raise ValueError(f"{key} are NaN or infinite in {place(int(np.argmin(finite)), ends)}, so no reward is known")
    return column
