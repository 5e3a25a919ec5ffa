"""A data file of OGBench as transitions, with the rewards of a task or with goals."""

import zipfile
from pathlib import Path
from typing import Any, final

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Dict
from ogbench.relabel_utils import add_oracle_reps, relabel_dataset

from flowpolicies.data import TransitionDataset
from flowpolicies_ogbench.environment import channels_first, make_env, sparse_rewards
from flowpolicies_ogbench.names import TaskName
from flowpolicies_ogbench.randomness import global_draws_from

Array = npt.NDArray[Any]

ACTION_LIMIT = 1 - 1e-5
"""Actions are clipped to this on loading, as in the papers: policies that squash could never reach the bounds."""

_STATES = ("qpos", "button_states")


@final
class Reader:
    """Reads the files of one dataset.

    Args:
        name: of the dataset, for messages.
        task: its parts.
        sparse: see `load`.
        provenance: of what is read.
    """

    def __init__(self, name: str, task: TaskName, *, sparse: bool, provenance: dict[str, Any]) -> None:
        self.name, self.task, self.sparse, self.provenance = name, task, sparse, provenance
        self.env: gymnasium.Env[Any, Any] = make_env(name, seed=0)

    def __call__(self, path: Path) -> TransitionDataset:
        """The transitions of a file.

        Raises:
            ValueError: if it is no data file, or something is wrong with the data.
        """
        arrays = self._read(path)
        if self.task.mode != "singletask":
            self._add_goals(arrays)
        return TransitionDataset.from_arrays(
            arrays["observations"],
            np.clip(arrays["actions"], -ACTION_LIMIT, ACTION_LIMIT),
            sparse_rewards(arrays["rewards"]) if self.sparse else arrays["rewards"],
            arrays["next_observations"],
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
                ends = file["terminals"].astype(bool)  # The last state of a trajectory, from which nothing was done.
                rows = np.flatnonzero(~ends)
                arrays = self._judge({key: file[key] for key in _STATES if key in file}, rows)
                states = file["observations"].astype(self._observation_dtype(), copy=False)
                arrays["next_observations"], arrays["observations"] = states[rows + 1], states[rows]
                del states
                arrays["actions"] = file["actions"][rows].astype(np.float32, copy=False)
                arrays["terminals"] = np.append(ends[1:], True)[rows]
        except (KeyError, IndexError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"cannot read '{path}' as OGBench data: {error}. "
                "If another program made the file, remove it and load again."
            ) from error
        if self._observation_dtype() == np.uint8:
            for key in ("observations", "next_observations"):
                arrays[key] = channels_first(arrays[key])
        return arrays

    def _judge(self, states: dict[str, Any], rows: Array) -> dict[str, Any]:
        """Rewards and masks of the task; or what the states before and after each step are as goals."""
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
        return {"achieved/observations": described[rows], "achieved/next_observations": described[rows + 1]}

    def _observation_dtype(self) -> Any:
        space = self.env.observation_space
        return (space["observation"] if isinstance(space, Dict) else space).dtype

    def _add_goals(self, arrays: dict[str, Any]) -> None:
        """As the goal of a trajectory the state of its last row: that row's reward is 0 and its mask too."""
        ends = np.flatnonzero(arrays["terminals"])
        last = np.repeat(ends, np.diff(ends, prepend=-1))
        at_goal = np.arange(len(last)) == last
        arrays["rewards"], arrays["masks"] = at_goal.astype(np.float32) - 1, 1 - at_goal.astype(np.float32)
        states = {key: {"observation": arrays[key]} for key in ("observations", "next_observations")}
        if self.task.mode == "oraclerep":
            for key, state in states.items():
                state["achieved_goal"] = arrays[f"achieved/{key}"]
        goals = states["observations"].get("achieved_goal", arrays["observations"])[last]
        arrays.update({key: {**state, "desired_goal": goals} for key, state in states.items()})
