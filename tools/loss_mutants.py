"""Changes the losses, flows and samplers line by line, and reports the changes that no test notices.

    python tools/loss_mutants.py [NAME...] [--jobs 2] [--results build/mutants.json] [--fresh]

A NAME is a file or an algorithm, such as qflow, td or qam_e; without names all files are changed. It works on a
copy of the tree. Verdicts are kept, and a run that was stopped continues; only mutants whose file or tests changed are
tried again. It fails if a mutant survives that tools/mutation/explained.toml does not explain.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from mutation.changes import mutants
from mutation.results import Results, files

ROOT = Path(__file__).parents[1]
EXPLAINED = Path(__file__).parent / "mutation" / "explained.toml"
COPIED = ("flowpolicies", "integrations", "tests", "tools", "docs/algorithms")
TESTS = ("tests/parity", "tests/losses", "tests/flows", "tests/samplers", "tests/algorithms")
"""Folders of the tests of losses, flows and samplers."""
CONTRACTS = "tests/algorithms/test_contracts.py"
LEFT_OUT = (CONTRACTS, "tests/algorithms/test_added.py")
"""Files of these folders whose tests take long and are about other things than numbers."""
CHOSEN = (f"{CONTRACTS}::test_gradient_of_each_term_stays_with_what_it_trains",)
"""Tests of those files that are about numbers."""
COLUMNS = ("mutants", "killed", "survived", "explained")


def explained(path: Path = EXPLAINED) -> dict[str, str]:
    """Mutants that survive for a reason, and the reason."""
    entries = tomllib.loads(path.read_text())["explained"]
    return {key: entry["reason"] for entry in entries for key in entry["mutants"]}


def chosen(root: Path, names: Sequence[str]) -> list[str]:
    """The files of these names or algorithms; all for no names.

    Raises:
        ValueError: for an unknown name.
    """
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in files(root):
        by_name[Path(path).stem].append(path)
    catalog = json.loads((root / "flowpolicies/shell/catalog.json").read_text())
    for algorithm in catalog["algorithms"]:
        module = algorithm["home"].partition(":")[0]
        by_name.setdefault(algorithm["name"], by_name[module.rpartition(".")[2]])
    if unknown := [name for name in names if name not in by_name]:
        close = get_close_matches(unknown[0], by_name, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no file {unknown[0]!r} to change; there are: {', '.join(sorted(by_name))}.{hint}")
    return list(dict.fromkeys(path for name in names for path in by_name[name])) or files(root)


def copy(root: Path, to: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in COPIED:
        shutil.copytree(root / folder, to / folder, ignore=ignored)
    shutil.copy(root / "pyproject.toml", to)


def run(
    tree: Path, results: Path, paths: Sequence[str], tests: Sequence[str], jobs: int = 2, budget: float = 20
) -> None:
    """Tries the mutants of some files of a tree with tests of it.

    Args:
        results: file in which verdicts are found and kept.
        paths: the files, below the folder of the package.
        tests: arguments of pytest that select the tests.
        jobs: mutants that are tried at the same time.
        budget: most seconds of tests per mutant; fast ones are taken first.
    """
    search = os.pathsep.join(map(str, (tree, tree / "integrations", Path(__file__).parent)))
    environment = os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    numbers = [str(jobs), str(budget)]
    words = [sys.executable, "-P", "-m", "mutation.trial", str(tree), str(results), *numbers, *paths, "--", *tests]
    subprocess.run(words, cwd=tree, env=environment, check=True)


def report(root: Path, results: Path, paths: Sequence[str], reasons: Mapping[str, str]) -> bool:
    """Prints the counts per file and the mutants that are not explained, and returns whether there are any."""
    verdicts, survivors, total = Results(results, root).verdicts, [], Counter[str]()
    print(f"\n| file | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for path in paths:
        counts: Counter[str] = Counter()
        for mutant in mutants(root / "flowpolicies" / path, path):
            outcome = verdicts.get(mutant.key, ["not tried"])[0]  # If the file was edited meanwhile.
            alive = outcome != "killed"
            counts.update(
                ["mutants", "explained" if alive and mutant.key in reasons else "survived" if alive else "killed"]
            )
            if alive and mutant.key not in reasons:
                survivors.append(f"{outcome}: {mutant.key} (line {mutant.lines[0]})")
            if not alive and mutant.key in reasons:
                print(f"killed, and so needs no explanation any more: {mutant.key}")
        print(f"| {path} | {' | '.join(str(counts[column]) for column in COLUMNS)} |")
        total += counts
    print(f"| all | {' | '.join(str(total[column]) for column in COLUMNS)} |\n")
    print("\n".join(survivors) or "every mutant is killed or explained")
    return bool(survivors)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="Files or algorithms; all by default.")
    parser.add_argument("--jobs", type=int, default=2, help="Mutants that are tried at the same time.")
    parser.add_argument("--budget", type=float, default=10, help="Most seconds of tests per mutant.")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "build" / "mutants.json", help="Where verdicts are kept."
    )
    parser.add_argument("--fresh", action="store_true", help="Forget the verdicts first.")
    arguments = parser.parse_args()
    paths, results = chosen(ROOT, arguments.names), arguments.results.resolve()
    if arguments.fresh:
        results.unlink(missing_ok=True)
    tests = [*TESTS, *CHOSEN, *(f"--ignore={path}" for path in LEFT_OUT)]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        copy(ROOT, tree)
        run(tree, results, paths, tests, arguments.jobs, arguments.budget)
    return int(report(ROOT, results, paths, explained()))


if __name__ == "__main__":
    sys.exit(main())
