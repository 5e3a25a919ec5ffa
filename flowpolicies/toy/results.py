"""The table and the figures of the 2D experiments, from what a folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from flowpolicies.files import atomic_write, write_json
from flowpolicies.toy.recording import Arrays
from flowpolicies.toy.settings import NAMES, Cell, Coefficient, ToySettings, text_of
from flowpolicies.toy.training import read_arrays, read_cell

COLUMNS = {
    "reward": "mean reward",
    "energy": "energy distance",
    "mmd": "MMD",
    "off_support": "off the support (%)",
    "covered": "data covered (%)",
}
"""Field of `Measures` -> heading of its column."""


class Found(NamedTuple):
    """A complete training in a folder."""

    cell: Cell
    folder: Path
    about: dict[str, Any]
    """What `cell.json` says."""

    @property
    def arrays(self) -> Arrays:
        """What was recorded of its policy."""
        return read_arrays(self.folder)


@final
class Results:
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

    def get(self, dataset: str, method: str, coefficient: Coefficient) -> Found | None:
        """The training with the smallest seed, which figures show; None if there is none."""
        return next(iter(self.all(dataset, method, coefficient)), None)

    def all(self, dataset: str, method: str, coefficient: Coefficient) -> list[Found]:
        """The trainings of all seeds."""
        return [one for one in self.found if one.cell[:3] == (dataset, method, coefficient)]


def _read(folder: Path) -> Found:
    about = read_cell(folder)
    return Found(Cell(*(about[name] for name in Cell._fields)), folder, about)


def _rank(method: str) -> tuple[int, str]:
    """Q-Flow, FQL and FBRAC come first, in the order of the paper's figures."""
    first = ("qflow", "fql", "fbrac")
    return (first.index(method) if method in first else len(first), method)


def write_results(settings: ToySettings) -> None:
    """Draws the figures, writes `table.md` and `results.json`, and prints the table."""
    results = Results(settings.run_dir)
    rows = list(table_rows(results))
    write_json(settings.run_dir / "results.json", {"rows": rows, "costs": results.costs})
    with atomic_write(settings.run_dir / "table.md") as file:
        file.write(as_markdown(rows).encode())
    _print(rows)
    for name, draw in tqdm(_pictures(results).items(), desc="drawing", unit="picture"):
        draw(settings.run_dir / name)
    print(f"Table (table.md, results.json) and figures (*.png, *.gif): {settings.run_dir}/")


def table_rows(results: Results) -> Iterator[dict[str, Any]]:
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


def as_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    heads = ["dataset", "method", "coefficient", *COLUMNS.values()]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)]) + "\n"


def _print(rows: Sequence[dict[str, Any]]) -> None:
    table = Table("dataset", "method")
    for name in ("coefficient", *COLUMNS.values()):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row))
    Console(highlight=False, markup=False).print(table)


def _cells(row: dict[str, Any]) -> list[str]:
    numbers = (
        f"{100 * row[name]:.1f}" if heading.endswith("(%)") else f"{row[name]:.3f}" for name, heading in COLUMNS.items()
    )
    return [row["dataset"], row["method"], text_of(row["coefficient"]), *numbers]


def _pictures(results: Results) -> dict[str, Callable[[Path], Path]]:
    """Name of each figure that can be made of the results, and what draws it."""
    from flowpolicies.toy.figures import drawings

    return drawings(results)
