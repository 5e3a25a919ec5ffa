"""The last section of each page of an algorithm, written by `make generate`: its presets and published numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from flowpolicies.reproduction.presets import list_presets
from flowpolicies.reproduction.published import PublishedTable, list_tables, load_table
from flowpolicies.samplers import Integrate, OneStep
from flowpolicies.shell.registry import get_algorithm
from flowpolicies.toy.methods import COEFFICIENTS

BEGIN = "<!-- begin: written by `make generate` -->"
END = "<!-- end -->"
PICTURES = Path(__file__).parents[1] / "docs" / "assets" / "toy"
"""Folder of the pictures of what samplers do."""
ALIKE = {
    "qflow": (
        "guides its way from noise to actions by the gradient of values",
        ("qfql", "cgql", "cgql_m", "cgql_l", "qgpo", "qsm", "qsm_online", "dac", "dac_d4rl"),
    ),
    "fql": ("acts in one step", ("qam_f",)),
    "fbrac": ("climbs values by backpropagation through its sampler", ("qflow_bptt", "diffusion_ql", "cac")),
    "ifql": ("chooses the best of several actions by a critic", ("idql", "qc", "bdpo")),
    "bc": ("clones the data", ("bc_diffusion",)),
    "qam": ("fine-tunes its flow towards behaviour times exp(tau Q)", ("qam_e", "bam")),
    "fawac": ("clones the data weighted by their values", ("qipo", "qipo_full")),
    "iql": (
        "acts by one Gaussian or one action, and so has one mode",
        ("iql_ddpgbc", "rebrac", "rebrac_qam", "sac", "rlpd", "rlpd_paper", "bc_gaussian"),
    ),
}
"""Algorithm with a picture -> what it does, and others that do the same and show its picture."""


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
    """The section of an algorithm: for each suite its presets, with the published numbers where there are some."""
    presets = [preset for preset, algorithms in list_presets().items() if name in algorithms]
    columns: dict[str, dict[str, str]] = {}
    for table in tables:
        numbers = dict(scores(name, table))
        if numbers and numbers not in columns.values():  # One paper takes the numbers of another.
            columns[table.name] = numbers
    lines = [*_in_the_plane(name), "## Presets and published numbers", ""]
    if presets:
        lines += ["A preset trains with the published settings ([what a preset sets](../presets.md)):", "", "```sh"]
        lines += [f"flowpolicies train {name} --preset {presets[0]}", "```", ""]
    rows = list(dict.fromkeys(row for numbers in columns.values() for row in numbers))
    for suite in dict.fromkeys(path.partition("/")[0] for path in [*rows, *presets]):
        lines += _suite(suite, [row for row in rows if row.startswith(f"{suite}/")], presets, columns)
    if columns:
        lines += ["Mean ± standard deviation over seeds; an environment without a task is the mean over its tasks."]
        lines += ["There is no preset for a line with a star."] if any(" * |" in line for line in lines) else []
        lines += [""]
        shown = [table for table in tables if table.name in columns]
        lines += [f"- `{table.name}`: {table.title}. {table.notes}" for table in shown]
        again = [table for table, numbers in columns.items() if any(_has_preset(row, presets) for row in numbers)]
        if again:
            lines += ["", f"`flowpolicies reproduce table {again[0]} --algorithms {name}` runs a column again."]
    return "\n".join(lines).rstrip()


def _in_the_plane(name: str) -> list[str]:
    """The lines about the picture of the 2D experiments, if there is one; tools/toy_page.py makes the pictures."""
    shown, kind = next(((one, kind) for one, (kind, alike) in ALIKE.items() if name in alike), (name, ""))
    if not (PICTURES / f"{shown}.png").is_file():
        return []
    weight = COEFFICIENTS.get(shown)
    if weight is None:
        panels = "and samples after training with default hyperparameters"
    else:
        more = "last" if weight.clone else "first"
        panels = (
            f"a clone of them, and samples for two values of `{weight.field}`, of which the {more} trusts values more"
        )
    of = f"The picture is of [{shown}]({shown}.md), which {kind}, too. " if kind else ""
    has_paths = isinstance(get_algorithm(shown).Config().sampler(), Integrate | OneStep)
    lines = " Grey lines lead from noise to actions." if has_paths else ""
    about = f"{of}From left to right: the data, colored by reward; {panels}.{lines}"
    made = "[How it is made](../guides/toy.md), and [what it shows](../results/toy.md)."
    return ["## In two dimensions", "", f"![{shown} in 2D](../assets/toy/{shown}.png)", "", f"{about} {made}", ""]


def _suite(suite: str, rows: list[str], presets: list[str], columns: dict[str, dict[str, str]]) -> list[str]:
    """The lines of one suite: a table of the environments with numbers, and the names of the other presets."""
    used = [column for column, numbers in columns.items() if any(row in numbers for row in rows)]
    lines = [f"| `{suite}/` | {' | '.join(f'`{column}`' for column in used)} |", "|---" * (len(used) + 1) + "|"]
    for row in rows:
        cells = (columns[column].get(row, "") for column in used)
        mark = "" if _has_preset(row, presets) else " *"
        lines.append(f"| `{row.partition('/')[2]}`{mark} | {' | '.join(cells)} |")
    others = [preset.partition("/")[2] for preset in presets if preset.startswith(f"{suite}/") and preset not in rows]
    listed = ", ".join(f"`{other}`" for other in others)
    return [
        *(lines if rows else []),
        "",
        *([f"Presets in `{suite}/` without a number: {listed}.", ""] if others else []),
    ]


def _has_preset(row: str, presets: list[str]) -> bool:
    """Whether the environment of a row, with or without a task, has a preset."""
    return re.sub(r"-task\d$", "", row) in presets


def scores(name: str, table: PublishedTable) -> Iterator[tuple[str, str]]:
    """The presets of the rows of a table, with the published number of an algorithm."""
    columns = [column for column, algorithm in table.columns.items() if algorithm == name]
    for row, preset in table.rows.items():
        found = [table.published[row, column] for column in columns if (row, column) in table.published]
        if found:
            yield preset, ", ".join(str(score).replace("±", " ± ") for score in found)
