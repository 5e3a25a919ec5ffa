"""Writes the table and the figures of the 2D experiments, from what a folder holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from flowpolicies.files import atomic_write, write_json
from flowpolicies.toy.figures import drawings
from flowpolicies.toy.results import COLUMNS, ToyResults, table_rows
from flowpolicies.toy.settings import ToySettings, text_of


def write_results(settings: ToySettings) -> None:
    """Draws the figures, writes `table.md` and `results.json`, and prints the table."""
    results = ToyResults(settings.run_dir)
    rows = list(table_rows(results))
    write_json(settings.run_dir / "results.json", {"rows": rows, "costs": results.costs})
    with atomic_write(settings.run_dir / "table.md") as file:
        file.write(as_markdown(rows).encode())
    _print(rows)
    for name, draw in tqdm(drawings(results).items(), desc="drawing", unit="picture"):
        draw(settings.run_dir / name)
    print(f"Table (table.md, results.json) and figures (*.png, *.gif): {settings.run_dir}/")


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
