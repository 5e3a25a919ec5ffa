"""Published tables of hyperparameters, copied into tests/presets_tables, and how their cells are read."""

from __future__ import annotations

import re
from pathlib import Path

TABLES = Path(__file__).parents[1] / "presets_tables"
SOURCES = {
    "bdpo": "github.com/typoverflow/flow-rl, scripts/bdpo.sh",
    "cac": "github.com/quantumiracle/Consistency_Model_For_Reinforcement_Learning, offline.py",
    "dac": "github.com/Fang-Lin93/DAC, runs.sh",
    "dac_qsm_ogbench": "github.com/ColinQiyangLi/qam, experiments/reproduce.py, read a second time",
    "diffusion_ql": "github.com/Zhendong-Wang/Diffusion-Policies-for-Offline-RL, main.py",
    "fql_baselines": "github.com/seohongpark/fql, README.md, examples of the baselines",
    "fql_d4rl": "github.com/seohongpark/fql, README.md, offline runs on D4RL",
    "fql_defaults": "configurations in agents/ of github.com/seohongpark/fql, ColinQiyangLi/qam and ColinQiyangLi/qc",
    "fql_ogbench": "github.com/seohongpark/fql, README.md, offline runs on state-based OGBench",
    "fql_online": "github.com/seohongpark/fql, README.md, offline-to-online runs",
    "fql_pixels": "github.com/seohongpark/fql, README.md, offline runs on pixel-based OGBench",
    "qam_a": "github.com/ColinQiyangLi/qam, experiments/reproduce.py",
    "qam_b": "github.com/ColinQiyangLi/qam, experiments/reproduce.py and reproduce_rlpd.py",
    "qam_environments": "github.com/ColinQiyangLi/qam, experiments/reproduce.py",
    "qam_offline": "github.com/ColinQiyangLi/qam, exp_data, success after 1M offline steps",
    "qam_online": "github.com/ColinQiyangLi/qam, exp_data, success after 500k online steps",
    "qflow": "github.com/jaehyeokdoo2/qflow, qflow_config.py",
    "qfql": "Q-Guided Flow Q-Learning (openreview.net/forum?id=MFY9i3uR7S), table 2",
    "rql": "github.com/aoberai/rql, hyperparameters.sh",
}
"""Where each table of tests/presets_tables was published."""


def table(name: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows of a table."""
    lines = (TABLES / f"{name}.md").read_text().splitlines()
    cells = [[cell.strip().strip("*") for cell in line.strip().strip("|").split("|")] for line in lines]
    return cells[0], cells[2:]


def numbers(cell: str) -> list[float]:
    return [float(part) for part in cell.split(",")]


def unfold(cell: str) -> list[str]:
    """ "a-{b, c}-v2, d" as ["a-b-v2", "a-c-v2", "d"]."""
    names = []
    for part in re.split(r",(?![^{]*})", cell):
        match = re.fullmatch(r"(.*)\{(.*)\}(.*)", part.strip())
        names += [match[1] + middle.strip() + match[3] for middle in match[2].split(",")] if match else [part.strip()]
    return names


SHORT = {
    "u": "umaze",
    "u-div": "umaze-diverse",
    "m-play": "medium-play",
    "m-div": "medium-diverse",
    "l-play": "large-play",
    "l-div": "large-diverse",
}
KINDS = {"m": "medium", "mr": "medium-replay", "me": "medium-expert"}


def d4rl_names(task: str) -> list[str]:
    """The datasets that a row of a D4RL table is about, in the order of the names between its slashes."""
    if match := re.fullmatch(r"(halfcheetah|hopper|walker2d)[- ](\{m,mr,me\}-v2|[a-z/ ]+)", task):
        kinds = re.findall(r"me|mr|m", match[2])
        return [f"{match[1]}-{KINDS[kind]}-v2" for kind in kinds]
    if task.startswith("antmaze"):
        if "{" in task or "umaze" in task:
            return ["antmaze-umaze-v0", "antmaze-umaze-diverse-v0"] if "umaze" in task else unfold(task)
        shorts = [part.strip().removeprefix("antmaze-").removesuffix("-v0") for part in task.split(",")]
        return [f"antmaze-{SHORT[short]}-v0" for short in shorts]
    family, _, kinds_ = task.removesuffix("-v1").partition("-")
    version = {"pen": "v1", "kitchen": "v0"}[family]
    return [f"{family}-{kind.strip()}-{version}" for kind in kinds_.split("/")]


def share(cell: str, index: int, count: int) -> str:
    """The value of a cell for one of the datasets of its row."""
    parts = [part.strip() for part in cell.split("/")]
    return parts[index] if len(parts) == count else cell
