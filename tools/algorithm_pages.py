"""The last section of each page of an algorithm, written by `make generate`: its presets and published numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flowpolicies.reproduction.presets import list_presets
from flowpolicies.reproduction.published import PublishedTable, list_tables, load_table

BEGIN = "<!-- begin: written by `make generate` -->"
END = "<!-- end -->"


def algorithm_pages(folder: Path, names: list[str]) -> dict[Path, str]:
    """Path and text of the pages that exist, with this section replaced, or added at the end."""
    paths = {name: folder / f"{name}.md" for name in names}
    tables = [load_table(name) for name in list_tables()]
    return {
        path: with_section(path.read_text(), section(name, tables)) for name, path in paths.items() if path.exists()
    }


def with_section(text: str, written: str) -> str:
    """The page with another generated section."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before.rstrip()}\n\n{BEGIN}\n\n{written}\n\n{END}\n{after.lstrip()}"


def section(name: str, tables: list[PublishedTable]) -> str:
    """The section of an algorithm."""
    presets = [preset for preset, algorithms in list_presets().items() if name in algorithms]
    numbers = {table.name: dict(scores(name, table)) for table in tables}
    shown = [table for table in tables if numbers[table.name]]
    lines = ["## Presets and published numbers", ""]
    if presets:
        lines += ["A preset trains with the published settings ([what a preset sets](../presets.md)):", "", "```sh"]
        lines += [f"flowpolicies train {name} --preset {presets[0]}", "```", ""]
        lines += [f"- `{suite}/`: {', '.join(f'`{place}`' for place in places)}" for suite, places in by_suite(presets)]
        lines += [""]
    rows = list(dict.fromkeys(preset for table in shown for preset in numbers[table.name]))
    if rows:
        lines += [f"| environment | {' | '.join(f'`{table.name}`' for table in shown)} |"]
        lines += ["|---" * (len(shown) + 1) + "|"]
        for row in rows:
            cells = (numbers[table.name].get(row, "") for table in shown)
            lines.append(f"| `{row}` | {' | '.join(cells)} |")
        lines += [
            "",
            "Mean ± standard deviation over seeds; an environment without a task is the mean over its tasks.",
            "",
        ]
        lines += [f"- `{table.name}`: {table.title}. {table.notes}" for table in shown]
        lines += ["", f"`flowpolicies reproduce table {shown[0].name} --algorithms {name}` runs a column again."]
    return "\n".join(lines).rstrip()


def by_suite(presets: list[str]) -> list[tuple[str, list[str]]]:
    """Each suite with the environments of its presets."""
    parts = [preset.split("/", 1) for preset in presets]
    return [
        (suite, [place for found, place in parts if found == suite]) for suite in dict.fromkeys(s for s, _ in parts)
    ]


def scores(name: str, table: PublishedTable) -> Iterator[tuple[str, str]]:
    """The presets of the rows of a table, with the published number of an algorithm."""
    columns = [column for column, algorithm in table.columns.items() if algorithm == name]
    for row, preset in table.rows.items():
        found = [table.published[row, column] for column in columns if (row, column) in table.published]
        if found:
            yield preset, ", ".join(str(score).replace("±", " ± ") for score in found)
