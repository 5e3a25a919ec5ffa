"""Kills runs, continues them, and says what differs from the undisturbed runs.

    PYTHONPATH=.:integrations:tests/support python -m kills --offline 50 --online 50

Exit code 1 if a run does not continue, or ends in another state than the undisturbed one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from kills.scenarios import OFFLINE, ONLINE, Scenario
from kills.trials import Outcome, Trials
from tiny import pendulum_data
from tqdm import tqdm


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--offline", type=int, default=50, help="number of kills in the offline phase")
    parser.add_argument("--online", type=int, default=50, help="number of kills of runs that train online")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--only", default="", help="only scenarios whose names hold this text")
    parser.add_argument("--most", type=int, default=5, help="kills of one run at most")
    parser.add_argument("--keep", type=Path, default=None, help="folder in which the runs are kept")
    options = parser.parse_args()
    os.environ.setdefault("FLOWPOLICIES_OFFLINE", "1")
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        root = Path(temporary) if options.keep is None else options.keep.absolute()
        root.mkdir(parents=True, exist_ok=True)
        trials = Trials(root, pendulum_data(100).save(root / "data.npz"), options.seed)
        start, failed = time.monotonic(), list[Outcome]()
        for name, number, scenarios in (("offline", options.offline, OFFLINE), ("online", options.online, ONLINE)):
            chosen = [scenario for scenario in scenarios if options.only in scenario.name]
            failed += campaign(trials, name, number, chosen, options.most)
    print(f"{options.offline} kills offline and {options.online} online in {time.monotonic() - start:.0f} s: ", end="")
    print(
        f"{len(failed)} runs differ or do not continue"
        if failed
        else "every run is bit-identical to the undisturbed one"
    )
    return 1 if failed else 0


def describe(outcome: Outcome) -> str:
    """What became of a trial that failed."""
    problems = "\n".join(f"  {problem[:300]}" for problem in outcome.problems[:12])
    log = outcome.log[-1500:].strip().replace("\n", "\n    ")
    title = f"\nFAILED {outcome.scenario}\n  killed {'; '.join(outcome.kills) or 'never'}"
    return f"{title}\n{problems}\n  the log ends:\n    {log}"


def campaign(trials: Trials, name: str, number: int, scenarios: list[Scenario], most: int) -> list[Outcome]:
    """Trials of the scenarios in turn until `number` processes were killed; returns those that failed."""
    failed, turn, done = list[Outcome](), 0, 0
    with tqdm(total=number, desc=f"kills {name}", unit="kill", mininterval=2 if sys.stderr.isatty() else 30) as bar:
        while done < number and scenarios:
            kills = min(number - done, trials.rng.randint(1, most))
            try:
                outcome = trials.trial(scenarios[turn % len(scenarios)], kills)
            except RuntimeError as error:
                outcome = Outcome(scenarios[turn % len(scenarios)].name, [""], [str(error)], "")
            turn, done = turn + 1, done + len(outcome.kills)
            bar.update(len(outcome.kills))
            if outcome.problems:
                failed.append(outcome)
                bar.set_postfix(failed=len(failed))
                tqdm.write(describe(outcome), file=sys.stdout)
                sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
