"""Comparison of runs, file by file, and damage to their files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.testing import assert_close

from flowpolicies.algorithms import FQL
from flowpolicies.training import RunFolder

OFFLINE = {"steps": 12, "checkpoint_every": 5, "eval_every": 5, "log_every": 4}
"""Checkpoints cut intervals of the log in two, and an evaluation and a checkpoint come at the same step."""

WALL_CLOCK = {"time/steps_per_second", "time/time_elapsed", "time/fps"}


def rows(folder: RunFolder) -> list[dict[str, str]]:
    """Rows of the log without the columns of the wall clock and without empty cells."""
    with open(folder.progress, newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key not in WALL_CLOCK} for row in found]


def events(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Tag -> steps and values of TensorBoard, over all event files of a phase."""
    found = {}
    for phase in sorted(folder.events.iterdir()):
        accumulator = EventAccumulator(str(phase), size_guidance={"scalars": 0}, purge_orphaned_data=False)
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            if tag not in WALL_CLOCK:
                found[f"{phase.name}/{tag}"] = sorted((event.step, event.value) for event in accumulator.Scalars(tag))
    return found


def assert_same_runs(one: RunFolder, two: RunFolder, algorithm: Any = FQL) -> None:
    """Both runs have the same weights, optimiser, generators, evaluations, log rows and events."""
    mine, theirs = (algorithm.load(folder.model, device="cpu").get_parameters() for folder in (one, two))
    assert_close(mine, theirs, rtol=0, atol=0)
    assert one.read_evaluations() == two.read_evaluations()
    assert rows(one) == rows(two)
    assert events(one) == events(two)
    assert [path.name for path in one.list_checkpoints()] == [path.name for path in two.list_checkpoints()]


def leftovers(folder: RunFolder) -> list[str]:
    return [path.name for path in folder.path.rglob(".*")]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    else:
        path.write_bytes(b"" if how == "empty" else content[: len(content) // 2])
