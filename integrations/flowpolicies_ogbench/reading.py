"""Conversion of one of OGBench's data files into transitions with the rewards of a task or with goals."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Dict
from ogbench.relabel_utils import add_oracle_reps, relabel_dataset

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import DataFault, TransitionDataset
from flowpolicies.data.dataset.checks import as_flags, check_actions, check_numbers, place, reading_data
from flowpolicies.data.dataset.compact import in_full, successors
from flowpolicies.data.reading.archive import open_npz
from flowpolicies.spaces.layout import Observations, clip_inside
from flowpolicies.tree import Array
from flowpolicies_ogbench.environment import channels_first, make_env, sparse_rewards
from flowpolicies_ogbench.names import TaskName
from flowpolicies_ogbench.randomness import global_draws_from

_SIMULATOR_STATES = ("qpos", "button_states")
"""Columns from which OGBench computes the rewards of a task."""


@final
class Reader:
    """Reads the files of one dataset.

    Args:
        name: Name of the dataset, also for error messages.
        task: The parsed name.
        sparse: Give sparse rewards, see `load`.
        compact: Store each state once, see `load`.
        provenance: Provenance of the datasets that are returned.
        max_bytes: Limit of what a file unpacks to, see `load`.
    """

    def __init__(
        self,
        name: str,
        task: TaskName,
        *,
        sparse: bool,
        compact: bool,
        provenance: dict[str, Any],
        max_bytes: int | None = None,
    ) -> None:
        self.name, self.task, self.sparse, self.compact, self.provenance = name, task, sparse, compact, provenance
        self.max_bytes = max_bytes
        self.env: gymnasium.Env[Any, Any] = make_env(name, seed=0)

    def __call__(self, path: Path) -> TransitionDataset:
        """The transitions of a file.

        Raises:
            ArtifactError: if the file is not one of OGBench's, or its data are faulty.
        """
        with reading_data(path):
            return self._transitions(path)

    def _transitions(self, path: Path) -> TransitionDataset:
        arrays = self._read(path)
        assert isinstance(self.env.action_space, Box)
        # Checked here, because actions outside their bounds could not be noticed after clipping.
        check_actions(self.name, arrays["actions"], self.env.action_space, arrays["terminals"])
        observations: Observations = arrays["observations"]
        finals: Observations = arrays["finals"]
        if self.task.mode != "singletask":
            observations, finals = self._add_goals(arrays)
        following = successors(observations, finals, np.flatnonzero(arrays["terminals"]))
        return TransitionDataset.from_arrays(
            observations,
            # The papers train on actions that are clipped to [-1 + 1e-5, 1 - 1e-5] (`make_env_and_datasets` in
            # envs/env_utils.py of https://github.com/ColinQiyangLi/qc).
            clip_inside(arrays["actions"], self.env.action_space),
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
        """The columns of a file, with rewards and masks, or goals, computed by OGBench's own code."""
        # The result is that of `load_dataset` in ogbench/utils.py, which is not used because it keeps all columns of
        # the file in memory together with the results. Here only one column of the file is in memory at a time.
        try:
            with open_npz(path, self.max_bytes) as file:
                ends = _ends(file["terminals"])
                rows = np.flatnonzero(~ends)
                terminals = np.append(ends[1:], True)[rows]
                finals = rows[terminals] + 1
                needed = [key for key in _SIMULATOR_STATES if key in file and self.task.mode != "goals"]
                arrays = self._relabel({key: _finite_column(file, key, ends) for key in needed}, rows, finals)
                states = _column(file, "observations", ends)
                if self._observation_dtype() == np.uint8 != states.dtype:
                    raise ValueError(f"observations are {states.dtype}, but images must be bytes (uint8)")
                states = states.astype(self._observation_dtype(), copy=False)
                arrays["observations"], arrays["finals"] = states[rows], states[finals]
                del states
                arrays["actions"] = _column(file, "actions", ends)[rows].astype(np.float32, copy=False)
                arrays["terminals"] = terminals
        except (KeyError, IndexError, ValueError) as error:
            what = f"{error.place}: {error.problem}" if isinstance(error, ArtifactError) else str(error)
            problem = f"dataset '{self.name}': cannot read it as OGBench data: {what.rstrip('.')}"
            hint = "If another program wrote the file, remove it and load the dataset again."
            if isinstance(error, KeyError | ArtifactError):  # An incomplete or damaged file is not a fault of the data.
                raise ArtifactError(path, problem, hint=hint) from error
            raise DataFault(f"{problem}. {hint}") from error
        if self._observation_dtype() == np.uint8:
            for key in ("observations", "finals"):
                arrays[key] = channels_first(arrays[key])
        return arrays

    def _relabel(self, states: dict[str, Any], rows: Array, finals: Array) -> dict[str, Any]:
        """Columns that OGBench computes from the simulator's states.

        Args:
            states: Columns of the file by name, with one row per state.
            rows: Indices of the states with a transition, `[N]`.
            finals: Indices of the final state of each trajectory.

        Returns:
            `rewards` and `masks` of a single task; for "oraclerep" the short representations of the states and of the
            final states; nothing for other goals.
        """
        inner: Any = self.env
        if self.task.mode == "singletask":
            columns: dict[str, Any] = {key: state[rows] for key, state in states.items()}
            # `relabel_dataset` (ogbench/relabel_utils.py) resets the environment to set the task.
            with global_draws_from(np.random.RandomState(0)):
                relabel_dataset(self.task.environment, inner.env, columns)
            return {key: columns[key] for key in ("rewards", "masks")}
        if self.task.mode == "goals":
            return {}
        add_oracle_reps(self.task.environment, inner.env, states)
        representations = states["oracle_reps"]
        return {"achieved/observations": representations[rows], "achieved/finals": representations[finals]}

    def _observation_dtype(self) -> Any:
        space = self.env.observation_space
        return (space["observation"] if isinstance(space, Dict) else space).dtype

    def _add_goals(self, arrays: dict[str, Any]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Make the state of a trajectory's last row its goal, and set the reward and the mask of that row to 0.

        Returns:
            Observations and final observations as dicts with goals; `arrays` gets the rewards and masks.
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
    """Whether each state is the last one of its trajectory, `[R]`; no action was taken in those states."""
    if terminals.ndim != 1:
        raise ValueError(f"terminals have shape {terminals.shape}, but must have one number for each state")
    ends = as_flags("its flags", "terminals", terminals)
    if ends.all():
        raise ValueError(f"it has {len(ends)} states but no transition")
    if not ends[-1]:
        raise ValueError(
            f"the last of its {len(ends)} states does not end a trajectory (terminals[-1] is 0), so the end of the "
            "data is missing"
        )
    return ends


def _column(file: Mapping[str, Array], key: str, ends: Array) -> Array:
    """A column of the file with one row per state, `[R, *]`."""
    column = file[key]
    if column.shape[:1] != ends.shape:
        raise ValueError(f"{key} have shape {column.shape}, but there are {len(ends)} terminals, one for each state")
    check_numbers("its columns", key, column)
    return column


def _finite_column(file: Mapping[str, Array], key: str, ends: Array) -> Array:
    """A column of the file without NaN, `[R, *]`."""
    # Rewards are computed by comparisons, and a comparison with NaN is False without an error.
    column = _column(file, key, ends)
    finite = np.isfinite(column).reshape(len(column), -1).all(1)
    if not finite.all():
        where = place(int(np.argmin(finite)), ends)
        raise ValueError(f"{key} are NaN or infinite in {where}, so the reward cannot be computed")
    return column
