"""Puts the results of a finished demo into docs/results: `python tools/demo_page.py [runs/demo]`.

It copies the pictures, the GIF and the raw numbers there, and writes the table of docs/results/demo.md, between two
comments, with the commit, the hardware and the duration that the results record.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowpolicies.reproduction.demo.results import as_markdown, make_table
from flowpolicies.reproduction.demo.settings import DemoSettings

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- begin: written by tools/demo_page.py -->", "<!-- end -->"
FILES = {
    "results.json": "demo.json",
    "learning_curve.png": "demo.png",
    "success.png": "demo-success.png",
    "paths.png": "demo-paths.png",
    "rollout.gif": "demo.gif",
}
"""Files of the demo, and their names in docs/results."""


def block(settings: DemoSettings, results: Mapping[str, Any]) -> str:
    """The text of the page between the comments."""
    machine, commit = results["hardware"], results["software"].get("flowpolicies_commit", "unknown")[:7]
    spell = "an interruption" if results["continued"] else "installation"
    lines = [
        as_markdown(make_table(settings, results)),
        "![success of BC and Q-Flow in five tasks, and from the unseen start](demo-success.png)\n",
        "![paths of the data, and of Q-Flow before and after fine-tuning](demo-paths.png)\n",
        "![an episode before and after fine-tuning](demo.gif)\n",
        "![learning curves](demo.png)\n",
        f"Made by `flowpolicies demo` at commit {commit}, seed {settings.seed} "
        f"(one seed), on {machine['cpu_count']} cores of {machine['processor']},\nin {results['minutes']:.1f} minutes "
        f"after {spell}. Raw numbers and the commands: [demo.json](demo.json).\n",
    ]
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    results = json.loads((folder / "results.json").read_text())
    written = json.loads((folder / "settings.json").read_text())
    settings = DemoSettings(**{name: tuple(v) if isinstance(v, list) else v for name, v in written.items()})
    for name, to in FILES.items():
        shutil.copy(folder / name, ROOT / "docs" / "results" / to)
    page = ROOT / "docs" / "results" / "demo.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{block(settings, results)}\n{END}{rest.partition(END)[2]}")
    print(f"Wrote {page} and {', '.join(FILES.values())} in docs/results.")


if __name__ == "__main__":
    main()
