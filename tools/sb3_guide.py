"""Writes the tables of docs/guides/sb3.md from the docstrings of the conformance kit and a run over all algorithms.

    python tools/sb3_guide.py [--classes fql bc] [--jobs 2] [--save FILE] [--reuse FILE]

A run over all algorithms takes about 20 minutes on one core. `--save` writes the results to a JSON file, and `--reuse`
writes the page from such a file, where classes that `--classes` names are run again.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import stable_baselines3
import torch

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.conformance import PROMISES, check
from flowpolicies.conformance.report import one_line

PAGE = Path(__file__).parents[1] / "docs" / "guides" / "sb3.md"
BEGIN, END = "<!-- begin: written by tools/sb3_guide.py -->", "<!-- end -->"
STOCK = ("SAC", "TD3", "DDPG")
SIZES: dict[str, Any] = {
    "energy_hidden_dims": (8, 8),
    **dict.fromkeys(("flow_steps", "num_samples", "next_samples", "solver_steps", "support_steps"), 2),
    "diffusion_steps": 3,
    "pretrain_steps": 1,
    "critic_warmup": 1,
    "actor_warmup": 0,
    "actor_every": 1,
    "critic_steps": 10,
}
"""Hyperparameters that make updates short; an algorithm is given those that it has."""


class Found(NamedTuple):
    """What one check found for one class."""

    result: str
    message: str


Results = dict[str, dict[str, Found]]
"""What was found, by the name of the class ("stock SAC" for Stable-Baselines3's) and the name of the check."""


def examine(name: str) -> dict[str, Found]:
    """Runs all checks for one class: the name of an algorithm, or "stock SAC"."""
    torch.set_num_threads(1)
    stock = name.removeprefix("stock ")
    if stock != name:
        report = check(getattr(stable_baselines3, stock), policy_kwargs={"net_arch": [8, 8]})
    else:
        cls = ALGORITHMS[name]
        sizes = {key: value for key, value in SIZES.items() if key in cls.Config.__dataclass_fields__}
        report = check(cls, policy_kwargs={"net_arch": [8, 8]}, **sizes)
    return {row.promise.name: Found(row.result, row.message) for row in report.rows}


def run(names: Iterable[str], jobs: int) -> Iterator[tuple[str, dict[str, Found]]]:
    """The results of several classes, one after the other."""
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for name, rows in zip(names, pool.map(examine, names), strict=True):
            counts = Counter(row.result for row in rows.values())
            print(f"{name}: {', '.join(f'{number} {result}' for result, number in counts.items())}", flush=True)
            yield name, rows


def shown(rows: Iterable[Found]) -> str:
    """A cell of the table: how many classes keep a promise, and what the others do."""
    counts = Counter(row.result for row in rows)
    total = counts.total()
    if not total:
        return "not run"
    if counts["passed"] == total:
        return "yes" if total == 1 else "all"
    others = [f"{number} {result}" for result, number in sorted(counts.items()) if result != "passed"]
    return f"{counts['passed']} of {total}; {', '.join(others)}" if total > 1 else others[0].partition(" ")[2]


def tables(results: Results) -> str:
    """The generated part of the page."""
    stock = {name: rows for name, rows in results.items() if name.startswith("stock ")}
    ours = {name: rows for name, rows in results.items() if name not in stock}
    parts = [summary(stock, ours), differences(ours), "## Every promise\n"]
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for promise in PROMISES.values():
        cells = [shown(rows[promise.name] for rows in part.values() if promise.name in rows) for part in (stock, ours)]
        groups[promise.group].append(f"| {one_line(promise.text)} | `{promise.name}` | {' | '.join(cells)} |")
    for group, lines in groups.items():
        head = "| promise | check | Stable-Baselines3 | flowpolicies |\n|---|---|---|---|"
        parts.append("\n".join([f"### {group}\n", head, *lines, ""]))
    return "\n".join(parts)


def summary(stock: Results, ours: Results) -> str:
    """How many checks each kind of class passes."""
    lines = [
        "## How many promises are kept\n",
        f"{len(PROMISES)} checks; variants of a promise, such as kinds of observations, count one by one.\n",
        "| class | passed | refused | not applicable | failed |",
        "|---|---|---|---|---|",
    ]
    for name, rows in {**stock, **ours}.items():
        counts = Counter(row.result for row in rows.values())
        cells = [str(counts[result]) for result in ("passed", "refused", "not applicable", "failed")]
        title = name if name in stock else f"`{name}`"
        lines.append(f"| {title} | {' | '.join(cells)} |")
    missing = [name for name in ALGORITHMS if name not in ours]
    if missing:
        lines.append(f"\nNot run for {len(missing)} of {len(ALGORITHMS)} algorithms: {', '.join(missing)}.")
    return "\n".join([*lines, ""])


def differences(ours: Mapping[str, Mapping[str, Found]]) -> str:
    """What some class does not do, with the reasons."""
    reasons: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for name, rows in ours.items():
        for promise, row in rows.items():
            if row.result != "passed":
                message = re.sub(r" \(If this is refused on purpose.*", "", row.message.replace(name, "..."))
                reasons[promise, row.result, plain(message, name)].append(name)
    lines = ["## What differs\n", "| check | result | reason | classes |", "|---|---|---|---|"]
    for (promise, result, message), names in reasons.items():
        classes = "all" if len(names) == len(ours) else ", ".join(names) if len(names) < 4 else f"{len(names)} classes"
        lines.append(f"| `{promise}` | {result} | {one_line(message, 200)} | {classes} |")
    return "\n".join([*lines, ""])


def plain(message: str, name: str) -> str:
    """A message without what differs from class to class: its name, its hyperparameters, and measured numbers."""
    text = message.replace(ALGORITHMS[name].__name__, "the class") if name in ALGORITHMS else message
    text = re.sub(r"; it has .*", "", text)
    text = re.sub(r"\d+\.\d{4,}(e-?\d+)?", "...", text)
    return re.sub(r"(Mismatched elements|Mismatch at|First \d+ mismatches).*", "...", text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--classes", nargs="*", default=None, help="Names of the algorithms to run; the default is all."
    )
    parser.add_argument("--jobs", type=int, default=1, help="Number of processes.")
    parser.add_argument("--save", type=Path, help="JSON file for the results.")
    parser.add_argument("--reuse", type=Path, help="JSON file of earlier results.")
    arguments = parser.parse_args()
    results: Results = {}
    if arguments.reuse is not None:
        loaded = json.loads(arguments.reuse.read_text())
        results = {name: {key: Found(*row) for key, row in rows.items()} for name, rows in loaded.items()}
    everything = [*(f"stock {name}" for name in STOCK), *ALGORITHMS]
    wanted = everything if arguments.classes is None and arguments.reuse is None else arguments.classes or []
    for name, rows in run(wanted, arguments.jobs):
        results[name] = rows
        if arguments.save is not None:  # After each class, so that a long run that is stopped can be continued.
            arguments.save.write_text(json.dumps(results, indent=1))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
