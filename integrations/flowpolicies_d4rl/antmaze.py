"""D4RL's antmaze environments in current versions of MuJoCo.

Walls and coordinates are those of D4RL (d4rl/locomotion/maze_env.py in https://github.com/Farama-Foundation/D4RL), with
the origin where the ant starts. Observations `[29]` are the positions and velocities of the ant.
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

Floats = npt.NDArray[np.float64]

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
"""Maps of the mazes: `#` is a wall, R the start of the ant, G the goal. y grows from the first row to the last."""

CELL = 4.0
"""Length of the side of a cell; walls are half as high."""

REACHED = 0.5
"""Largest distance from the goal at which it counts as reached."""


@final
class AntMaze(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An ant that walks to a goal, whose position in its cell is drawn at random for each episode.

    The reward is 1 when the goal is reached, which ends the episode, and 0 before.

    Args:
        maze: "umaze", "medium" or "large".
        render_mode: Render mode as for `gymnasium.make`.

    Raises:
        ValueError: if the render mode is unknown.
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
        """Copies and pickles make a new environment, because the file of the model no longer exists."""
        return AntMaze, (self.maze, self.render_mode)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        observation, _ = self.env.reset(seed=seed, options=options)
        # D4RL adds two random offsets to the centre of the cell, in `_rowcol_to_xy` and in `goal_sampler`
        # (d4rl/locomotion/maze_env.py). Drawing the goal at each reset is what D4RL does in version 2 of its mazes
        # (`v2_resets` in d4rl/locomotion/ant.py).
        offsets = self.np_random.uniform(size=(2, 2))
        self.goal = self._goal_cell + CELL / 4 * offsets[0] + CELL / 8 * offsets[1]
        return observation, {}

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Take one step of 0.1 s, which is five steps of the simulator."""
        observation = self.env.step(action)[0]
        reached = bool(np.linalg.norm(observation[:2] - self.goal) <= REACHED)
        return observation, float(reached), reached, False, {"is_success": reached}


def model(rows: tuple[str, ...]) -> str:
    """The model of the ant and the walls of a maze, as MuJoCo's XML.

    Args:
        rows: Map of the maze, as in `MAZES`.
    """
    # D4RL's ant (d4rl/locomotion/assets/ant.xml) differs from Gymnasium's in the time step, the softness of contacts
    # and the strength of the motors. Its motors have inputs in [-30, 30], which D4RL scales to actions in [-1, 1]; gear
    # 30 has the same effect.
    root = ElementTree.fromstring((files("gymnasium.envs.mujoco") / "assets" / "ant.xml").read_text())
    _find(root, "option").set("timestep", "0.02")
    _find(root, "default/geom").set("solimp", "0.8 0.8 0.01")
    for motor in root.findall("actuator/motor"):
        motor.set("gear", "30")
    world = _find(root, "worldbody")
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell == "#":
                x, y = np.array([CELL * j, CELL * i]) - _centre(rows, "R")
                wall = {"type": "box", "pos": f"{x} {y} {CELL / 4}", "size": f"{CELL / 2} {CELL / 2} {CELL / 4}"}
                look = {"contype": "1", "conaffinity": "1", "rgba": "0.7 0.5 0.3 1"}
                ElementTree.SubElement(world, "geom", {"name": f"block_{i}_{j}", **wall, **look})
    return ElementTree.tostring(root, encoding="unicode")


def position(rows: tuple[str, ...], cell: str) -> Floats:
    """Coordinates (x, y) of the centre of the cell with this letter, relative to the start of the ant."""
    return _centre(rows, cell) - _centre(rows, "R")


def _centre(rows: tuple[str, ...], cell: str) -> Floats:
    """Coordinates (x, y) of the centre of the cell with this letter, relative to the centre of the first cell."""
    i, j = next((i, row.index(cell)) for i, row in enumerate(rows) if cell in row)
    return np.array([CELL * j, CELL * i])


def _find(root: ElementTree.Element, path: str) -> ElementTree.Element:
    found = root.find(path)
    if found is None:
        raise RuntimeError(
            f"the ant.xml of the installed Gymnasium has no '{path}', so D4RL's ant cannot be made from it. Install an "
            "earlier version of Gymnasium."
        )
    return found
