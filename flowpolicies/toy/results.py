"""The trainings that a folder holds, and the rows of their table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

from flowpolicies.toy.recording import Recording
from flowpolicies.toy.settings import NAMES, Coefficient, ToyCell
from flowpolicies.toy.training import read_arrays, read_cell

COLUMNS = {
    "reward": "mean reward",
    "energy": "energy distance",
    "mmd": "MMD",
    "off_support": "off the support (%)",
    "covered": "data covered (%)",
}
"""Field of `Measures` -> heading of its column."""


class TrainedCell(NamedTuple):
    """A complete training in a folder."""

    cell: ToyCell
    folder: Path
    about: dict[str, Any]
    """Content of `cell.json`: settings, measures and the log."""

    @property
    def arrays(self) -> Recording:
        """What was recorded of its policy."""
        return read_arrays(self.folder)


@final
class ToyResults:
    """The complete trainings in a folder.

    Raises:
        ValueError: if there is none.
    """

    def __init__(self, run_dir: Path) -> None:
        files = sorted((run_dir / "cells").glob("*/cell.json"))
        if not files:
            raise ValueError(f"'{run_dir}' holds no complete training. Leave out --only-draw, or change --run-dir.")
        self.found = [_read(file.parent) for file in files]
        cells = [one.cell for one in self.found]
        self.datasets = [name for name in NAMES if any(cell.dataset == name for cell in cells)]
        self.methods = sorted({cell.method for cell in cells}, key=_rank)
        self.coefficients = sorted({cell.coefficient for cell in cells if not isinstance(cell.coefficient, str)})
        self.seeds = sorted({cell.seed for cell in cells})
        kinds: list[Coefficient] = ["cloning", "default", *reversed(self.coefficients)]
        self.kinds = [kind for kind in kinds if any(cell.coefficient == kind for cell in cells)]
        """Kinds of training from the strongest regularisation to the weakest."""
        path = run_dir / "costs.json"
        self.costs: dict[str, dict[str, float]] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, dataset: str, method: str, coefficient: Coefficient) -> TrainedCell | None:
        """The training with the smallest seed, which figures show; None if there is none."""
        return next(iter(self.all(dataset, method, coefficient)), None)

    def all(self, dataset: str, method: str, coefficient: Coefficient) -> list[TrainedCell]:
        """The trainings of all seeds."""
        return [one for one in self.found if one.cell[:3] == (dataset, method, coefficient)]


def _read(folder: Path) -> TrainedCell:
    about = read_cell(folder)
    return TrainedCell(ToyCell(*(about[name] for name in ToyCell._fields)), folder, about)


def _rank(method: str) -> tuple[int, str]:
    """Q-Flow, FQL and FBRAC come first, in the order of the paper's figures."""
    first = ("qflow", "fql", "fbrac")
    return (first.index(method) if method in first else len(first), method)


def table_rows(results: ToyResults) -> Iterator[dict[str, Any]]:
    """A row for each dataset, method and coefficient: means of the measures over seeds."""
    for dataset in results.datasets:
        for method in results.methods:
            for coefficient in results.kinds:
                found = results.all(dataset, method, coefficient)
                if found:
                    each = [one.about["measures"] for one in found]
                    means = {name: sum(one[name] for one in each) / len(each) for name in COLUMNS}
                    row = {"dataset": dataset, "method": method, "coefficient": coefficient, "seeds": len(found)}
                    yield {**row, **means, "seconds": sum(one.about["seconds"] for one in found) / len(found)}
