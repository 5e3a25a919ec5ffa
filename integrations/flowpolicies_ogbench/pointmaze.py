"""Collection of OGBench's pointmaze data by noisy walks along shortest paths through the cells of the maze.

Follows data_gen_scripts/generate_locomaze.py and commands.sh in https://github.com/seohongpark/ogbench.
"""

from typing import Any, final

import gymnasium
import numpy as np

from flowpolicies.tree import Array
from flowpolicies_ogbench.names import TaskName
from flowpolicies_ogbench.randomness import global_draws_from

Cell = tuple[int, int]
"""Row and column of a cell of the maze."""

ACTION_NOISE = 0.5
"""Standard deviation of the noise that is added to actions, except in "explore" data."""

EXPLORE_NOISE = 1.0
"""Standard deviation of the noise that is added to actions in "explore" data."""

EXPLORE_STEPS = 10
"""Number of steps for which "explore" data keep a direction."""

STITCH_DISTANCE = 4
"""Length of the shortest path from the start to the goal of a "stitch" episode, in cells."""


@final
class PointMazeCollector:
    """Collects episodes of one dataset.

    "navigate" data walk from goal to goal, "stitch" data to one goal nearby, and "explore" data in random directions.
    OGBench publishes "explore" data for the ant only; here the same scheme moves the point.

    Args:
        task: Parsed name of the dataset.
        num_steps: Number of rows of an episode.
    """

    def __init__(self, task: TaskName, num_steps: int) -> None:
        # The environment is stepped without the wrappers of `gymnasium.make`, which only check and count steps, but
        # take a fifth of the time of the physics.
        made = gymnasium.make(task.collecting_environment, terminate_at_goal=False, disable_env_checker=True)
        env: Any = made.unwrapped
        self._env = env
        self._changes_goals, self._explores = task.kind == "navigate", task.kind == "explore"
        self._num_steps = num_steps
        self._free: list[Cell] = [(i, j) for i, j in np.argwhere(env.maze_map == 0).tolist()]
        self._vertices = [cell for cell in self._free if not _is_hallway(env.maze_map, cell)]
        self._subgoals: dict[tuple[Cell, Cell], Array] = {}

    def __call__(self, seed: list[int]) -> list[dict[str, Array]]:
        """The rows of one episode, which depend only on `seed`."""
        generator = np.random.default_rng(seed)
        with global_draws_from(np.random.RandomState(generator.integers(2**32, dtype=np.uint32))):
            return self._episode(generator)

    def _episode(self, generator: np.random.Generator) -> list[dict[str, Array]]:
        env = self._env
        start = self._free[generator.integers(len(self._free))]
        goal = self._choose_goal(start, generator)
        places = {"task_info": {"init_ij": start, "goal_ij": goal}}
        observation, _ = env.reset(seed=int(generator.integers(2**31)), options=places)
        noise = generator.normal(0, EXPLORE_NOISE if self._explores else ACTION_NOISE, (self._num_steps, 2))
        rows = []
        for step in range(self._num_steps):
            if not self._explores:
                position = env.get_xy()
                direction = self._subgoal(env.xy_to_ij(position), goal) - position
            elif step % EXPLORE_STEPS == 0:
                direction = generator.normal(size=2)
            direction = direction / (np.linalg.norm(direction) + 1e-6)
            action = np.clip(direction + noise[step], -1, 1).astype(np.float32)
            next_observation, _, _, _, info = env.step(action)
            rows.append(
                {"observations": observation, "actions": action, "qpos": info["prev_qpos"], "qvel": info["prev_qvel"]}
            )
            observation = next_observation
            if info["success"] and self._changes_goals:
                goal = self._choose_goal(start, generator)
                # generate_locomaze.py calls set_goal(goal_ij), which in ogbench 1.2.2 moves the marker of the goal to
                # NaN: it takes the place of the marker from the other argument (ogbench/locomaze/maze.py).
                env.set_goal(goal_xy=env.add_noise(env.ij_to_xy(goal)))
        return rows

    def _choose_goal(self, start: Cell, generator: np.random.Generator) -> Cell:
        cells = self._vertices
        if not self._changes_goals:
            _, distances = self._env.get_oracle_subgoal(self._env.ij_to_xy(start), self._env.ij_to_xy(start))
            cells = [cell for cell in self._free if distances[cell] == STITCH_DISTANCE] or [start]
        return cells[generator.integers(len(cells))]

    def _subgoal(self, cell: Cell, goal: Cell) -> Array:
        """Centre of the next cell on the shortest path, cached because OGBench searches the maze at every call."""
        if (cell, goal) not in self._subgoals:
            position, _ = self._env.get_oracle_subgoal(self._env.ij_to_xy(cell), self._env.ij_to_xy(goal))
            self._subgoals[cell, goal] = np.asarray(position, np.float64)
        return self._subgoals[cell, goal]


def _is_hallway(maze_map: Array, cell: Cell) -> bool:
    """Whether a cell is free on two opposite sides and has walls on the other two."""
    i, j = cell
    north, south, west, east = (maze_map[n] == 0 for n in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)))
    return bool(north == south and west == east and north != west)
