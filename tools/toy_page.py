"""Puts finished 2D experiments into the documentation: `python tools/toy_page.py RUN_DIR [METHODS_DIR]`.

It copies figures and numbers of `flowpolicies toy` to docs/results/toy/, and writes tables, pictures and where they
come from into docs/results/toy.md, between two comments. The pictures of single methods, of both folders, go to
docs/assets/toy/, where `make generate` finds them for the pages of the algorithms.
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from flowpolicies.reproduction.jobs import flags
from flowpolicies.toy.figures.frame import TITLES
from flowpolicies.toy.report import as_markdown
from flowpolicies.toy.results import ToyResults, table_rows

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- begin: written by tools/toy_page.py -->", "<!-- end -->"
CAPTIONS = {
    "samples": "samples over the data, from cloning to the weakest regularisation, colored by reward",
    "paths": "paths from noise to action, the behaviour flow beside Q-Flow, from the same noise",
    "velocity": "velocity at five flow times, of the behaviour flow above and of Q-Flow below",
    "value": "Q-Flow's value of noisy actions at five flow times, with its gradient, and the critic on actions",
    "evolution": "samples in training: cloning, then the weakest regularisation",
}
"""Kind of a figure of one dataset -> what it shows."""
SHARED = {
    "consistency.png": "Flow consistency |V(Ψ(x), 1) - V(x, t)| of Q-Flow, mean and quartiles over held-out points.",
    "gradients.png": "Norm of the gradient of the actor's loss, in training with each coefficient.",
    "costs.png": "Milliseconds per update against the number of flow steps.",
}
"""Figure of all datasets -> what it shows."""


def block(results: ToyResults) -> str:
    """The text of the page between the comments."""
    lines = ["![the four datasets by reward](toy/data.png)", ""]
    rows = list(table_rows(results))
    for dataset in results.datasets:
        lines += [f"## {TITLES[dataset].capitalize()}", ""]
        lines += [as_markdown([row for row in rows if row["dataset"] == dataset]), ""]
        for kind, caption in CAPTIONS.items():
            name = f"{kind}-{dataset}.{'gif' if kind == 'evolution' else 'png'}"
            if (ROOT / "docs" / "results" / "toy" / name).is_file():
                lines += [
                    f"![{TITLES[dataset]}: {caption}](toy/{name})",
                    "",
                    f"*{caption[0].upper()}{caption[1:]}.*",
                    "",
                ]
    lines += ["## Consistency, gradients and costs", ""]
    for name, caption in SHARED.items():
        lines += [f"![{caption}](toy/{name})", "", f"*{caption}*", ""]
    return "\n".join([*lines, "## How it was made", "", *_provenance(results)]).rstrip()


def _provenance(results: ToyResults) -> Iterator[str]:
    values = {
        "dataset": "all" if len(results.datasets) > 1 else results.datasets[0],
        "methods": tuple(results.methods),
        "coefficients": tuple(f"{one:g}" for one in results.coefficients),
        "seeds": tuple(results.seeds),
    }
    size = " --full" if results.found[0].about["full"] else ""
    yield from ("```sh", f"flowpolicies toy {shlex.join(flags(values))}{size}", "```", "")
    commits = sorted({one.about["software"].get("flowpolicies_commit", "unknown") for one in results.found})
    machines = sorted({f"{one.about['hardware']['processor']}" for one in results.found})
    versions = sorted({f"torch {one.about['software']['torch']}" for one in results.found})
    minutes = sum(one.about["seconds"] for one in results.found) / 60
    yield (
        f"Commit {', '.join(f'`{commit[:12]}`' for commit in commits)}, {', '.join(versions)}, one thread of "
        f"{', '.join(machines)} for each training, {len(results.found)} trainings, {minutes:.0f} core-minutes. "
        "All numbers: [toy.json](toy/toy.json)."
    )


def main() -> None:
    folders = [Path(word) for word in sys.argv[1:]]
    if not folders:
        sys.exit("name the run folder of `flowpolicies toy`, and perhaps a second one for pictures of further methods.")
    results = ToyResults(folders[0])
    to, pictures = ROOT / "docs" / "results" / "toy", ROOT / "docs" / "assets" / "toy"
    for folder in (to, pictures):
        folder.mkdir(parents=True, exist_ok=True)
    for dataset in results.datasets:
        for kind in (
            "samples",
            "paths",
            "value",
            *(("velocity", "evolution") if dataset == results.datasets[0] else ()),
        ):
            name = f"{kind}-{dataset}.{'gif' if kind == 'evolution' else 'png'}"
            shutil.copy(folders[0] / name, to / name)
    for name in ("data.png", *SHARED):
        shutil.copy(folders[0] / name, to / name)
    shutil.copy(folders[0] / "results.json", to / "toy.json")
    for folder, pattern in (
        (folders[0], f"method-{results.datasets[0]}-*.png"),
        *((one, "method-*.png") for one in folders[1:]),
    ):
        for path in folder.glob(pattern):
            shutil.copy(path, pictures / re.sub(r"^method-[^-]*-", "", path.name))
    page = ROOT / "docs" / "results" / "toy.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{block(results)}\n\n{END}{rest.partition(END)[2]}")
    print(f"Wrote {page}, {to} and {pictures}. `make generate` puts pictures into the pages of algorithms.")


if __name__ == "__main__":
    main()
