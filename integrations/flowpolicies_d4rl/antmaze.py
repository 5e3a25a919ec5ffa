"""D4RL's ant in its mazes, in today's MuJoCo.

The ant is Gymnasium's with three numbers changed (time step, strength of the motors, softness of contacts); the walls
and all coordinates are D4RL's, whose origin is where the ant starts. Observations are positions and velocities `[29]`.
"""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any, SupportsFloat, final
from xml.etree import ElementTree

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.wrappers import OrderEnforcing

Array = npt.NDArray[np.float64]

MAZES = {
    "umaze": ("#####", "#R..#", "###.#", "#G..#", "#####"),
    "medium": ("########", "#R.##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############",
        "#R...#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
}
"""Walls, where the ant starts, and the cell of the goal; rows of cells, y grows downwards."""

CELL = 4.0
"""Size of a cell; walls are half as high."""
REACHED = 0.5
"""Distance from the goal at which it is reached."""


@final
class AntMaze(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An ant on its way to a goal, which is drawn anew in every episode, beside the centre of its cell.

    The reward is 1 where the goal is reached, which ends the episode, and 0 before.

    Args:
        maze: "umaze", "medium" or "large".
        render_mode: as for `gymnasium.make`.
    """

    def __init__(self, maze: str, render_mode: str | None = None) -> None:
        modes = AntEnv.metadata["render_modes"]
        if render_mode not in (None, *modes):
            raise ValueError(f"unknown render_mode '{render_mode}' (known: {', '.join(modes)}).")
        self.maze, rows = maze, MAZES[maze]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "maze.xml")
            file.write_text(model(rows))
            ant = AntEnv(
                xml_file=str(file),
                terminate_when_unhealthy=False,
                exclude_current_positions_from_observation=False,
                include_cfrc_ext_in_observation=False,
                render_mode=render_mode,
            )
        super().__init__(OrderEnforcing(ant))
        self.goal = self._goal_cell = position(rows, "G")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy is made anew, as of Gymnasium's own environments: the file that it was compiled from is gone."""
        return AntMaze, (self.maze, self.render_mode)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, _ = self.env.reset(seed=seed, options=options)
        draws = self.np_random.uniform(size=(2, 2))
        self.goal = self._goal_cell + CELL / 4 * draws[0] + CELL / 8 * draws[1]
        return observation, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """One step, five of the simulator's."""
        observation = self.env.step(action)[0]
        reached = bool(np.linalg.norm(observation[:2] - self.goal) <= REACHED)
        return observation, float(reached), reached, False, {"is_success": reached}


def model(rows: tuple[str, ...]) -> str:
    """The ant among walls, in MuJoCo's XML."""
    root = ElementTree.fromstring((files("gymnasium.envs.mujoco") / "assets" / "ant.xml").read_text())
    _find(root, "option").set("timestep", "0.02")
    _find(root, "default/geom").set("solimp", "0.8 0.8 0.01")
    for motor in root.findall("actuator/motor"):
        motor.set("gear", "30")
    world = _find(root, "worldbody")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell == "#":
                x, y = np.array([CELL * j, CELL * i]) - _corner(rows, "R")
                wall = {"type": "box", "pos": f"{x} {y} {CELL / 4}", "size": f"{CELL / 2} {CELL / 2} {CELL / 4}"}
                look = {"contype": "1", "conaffinity": "1", "rgba": "0.7 0.5 0.3 1"}
                ElementTree.SubElement(world, "geom", {"name": f"block_{i}_{j}", **wall, **look})
    return ElementTree.tostring(root, encoding="unicode")


def position(rows: tuple[str, ...], cell: str) -> Array:
    """x and y of the middle of the cell with this letter."""
    return _corner(rows, cell) - _corner(rows, "R")


def _corner(rows: tuple[str, ...], cell: str) -> Array:
    """Where it would be if the origin were the maze's corner."""
    i, j = next((i, row.index(cell)) for i, row in enumerate(rows) if cell in row)
    return np.array([CELL * j, CELL * i])


def _find(root: ElementTree.Element, path: str) -> ElementTree.Element:
    found = root.find(path)
    if found is None:
        raise RuntimeError(f"Gymnasium's ant.xml has no '{path}' any more; D4RL's ant cannot be made of it.")
    return found
