"""Compares our ant mazes with D4RL's, both compiled by the installed MuJoCo: constants of the models, and steps.

python benchmarks/d4rl_model.py PATH    the folder of D4RL's package: pip download --no-deps d4rl, unzip the wheel
"""

import argparse
import ast
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np

from flowpolicies_d4rl.antmaze import MAZES, model

THEIRS = {"umaze": "U_MAZE_TEST", "medium": "BIG_MAZE_TEST", "large": "HARDEST_MAZE_TEST"}
SCALED = {"actuator_acc0", "actuator_ctrlrange", "actuator_gear"}  # Actions in [-1, 1] times 30, or in [-30, 30].
LOOKS = ("cam", "geom_rgba", "light", "mat", "n", "signature", "tex")


def read_mazes(package: Path) -> dict[str, list[list[str]]]:
    """Mazes of `maze_env.py` in our letters, read from the source without executing it."""
    tree = ast.parse((package / "locomotion" / "maze_env.py").read_text())
    constants: dict[str, Any] = {
        ast.unparse(node.targets[0]): node for node in tree.body if isinstance(node, ast.Assign)
    }
    letters = {"0": ".", "1": "#", "R": "R", "G": "G"}
    return {
        name: [[letters[ast.unparse(cell)] for cell in row.elts] for row in constants[key].value.elts]
        for name, key in THEIRS.items()
    }


def their_model(package: Path, rows: list[list[str]]) -> str:
    """XML of D4RL's ant with the walls that its `MazeEnv` adds."""
    text = (package / "locomotion" / "assets" / "ant.xml").read_text()
    root = ElementTree.fromstring(text.replace('coordinate="local"', ""))  # MuJoCo no longer knows the attribute.
    world = root.find("worldbody")
    assert world is not None
    start = next((4.0 * i, 4.0 * row.index("R")) for i, row in enumerate(rows) if "R" in row)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            if cell == "#":
                wall = {"pos": f"{4 * j - start[1]} {4 * i - start[0]} 1", "size": "2 2 1", "type": "box"}
                ElementTree.SubElement(world, "geom", {**wall, "contype": "1", "conaffinity": "1"})
    return ElementTree.tostring(root, encoding="unicode")


def differing(theirs: mujoco.MjModel, ours: mujoco.MjModel) -> list[str]:
    """Names of arrays and constants that differ between the models, except those that influence the rendering only."""
    names = [name for name in dir(ours) if not name.startswith(("_", *LOOKS))]
    pairs = {name: (np.asarray(getattr(theirs, name)), np.asarray(getattr(ours, name))) for name in names}
    numbers = {name: pair for name, pair in pairs.items() if pair[0].dtype.kind in "biuf"}
    return [name for name, pair in numbers.items() if not np.array_equal(*pair)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    package = parser.parse_args().package
    for name, rows in read_mazes(package).items():
        print(f"{name}: the maze is {'the same' if rows == [list(row) for row in MAZES[name]] else 'ANOTHER'}", end="")
        models = [mujoco.MjModel.from_xml_string(xml) for xml in (their_model(package, rows), model(MAZES[name]))]
        print(f"; other numbers: {set(differing(*models)) - SCALED or 'none'}", end="")
        data, actions = [mujoco.MjData(one) for one in models], np.random.default_rng(0).uniform(-1, 1, (300, 8))
        for action in actions:
            for one, state, scale in zip(models, data, (30, 1), strict=True):
                state.ctrl[:] = scale * action
                mujoco.mj_step(one, state, nstep=5)
        off = max(np.abs(data[0].qpos - data[1].qpos).max(), np.abs(data[0].qvel - data[1].qvel).max())
        print(f"; {len(actions)} actions, largest difference of position or velocity: {off:g}")


if __name__ == "__main__":
    main()
