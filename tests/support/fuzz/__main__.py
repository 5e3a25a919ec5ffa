"""Runs a campaign, and prints what became of the cases of each kind.

    PYTHONPATH=.:integrations:tests/support python -m fuzz --cases 20000 --seed 0 --jobs 2 --failures failures
    ... python -m fuzz --seed 0 --replay 1234      # one case, with the traceback

Exit code 1 if a case ended in another way than it should.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from itertools import count, islice
from pathlib import Path

from fuzz.campaign import Campaign, Result
from fuzz.cases import KINDS, kind_of
from tqdm import tqdm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000, help="number of cases, which are dealt to all kinds")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0, help="seed of the campaign")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes")
    parser.add_argument(
        "--failures", type=Path, default=None, help="folder for the artifacts that are not refused well"
    )
    parser.add_argument("--replay", type=int, default=None, help="number of the one case to run")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS), help="kinds of artifacts")
    parser.add_argument("--show", type=int, default=10, help="number of failures to print")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        failures = None if options.failures is None else options.failures.absolute()
        campaign = Campaign(options.seed, Path(folder), options.jobs, failures)
        numbers = (index for index in count(options.first) if kind_of(index) in options.kinds)
        indices = list(islice(numbers, options.cases)) if options.replay is None else [options.replay]
        start, bar = (
            time.monotonic(),
            tqdm(total=len(indices), unit="case", smoothing=0.05, mininterval=1 if sys.stderr.isatty() else 30),
        )

        def show(result: Result) -> None:
            bar.update()
            if options.replay is not None:
                print(*result, sep="\n")

        report = campaign.run(indices, show)
        bar.close()
    print(report)
    total = sum(sum(counts.values()) for counts in report.counts.values())
    print(f"{total:,} cases, {len(report.bad):,} not as they should be, in {time.monotonic() - start:.0f} s")
    for (kind, outcome, last), number in Counter((r.kind, r.outcome, last_line(r)) for r in report.bad).most_common(
        options.show
    ):
        example = next(r for r in report.bad if (r.kind, r.outcome, last_line(r)) == (kind, outcome, last))
        print(f"\n{number} x {kind} {outcome}: {last}\n    such as case {example.index}, {example.what[:200]}")
    return 1 if report.bad else 0


def last_line(result: Result) -> str:
    return (result.detail.strip().split("\n") or [""])[-1][:160]


if __name__ == "__main__":
    sys.exit(main())
