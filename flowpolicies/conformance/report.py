"""What the checks found for one class."""

from __future__ import annotations

from collections import Counter
from typing import Literal, NamedTuple, get_args

from flowpolicies.conformance.promises import Promise

CheckResult = Literal["passed", "failed", "refused", "not applicable"]
RESULTS: tuple[CheckResult, ...] = get_args(CheckResult)


class Verdict(NamedTuple):
    """What one check found."""

    promise: Promise
    result: CheckResult
    message: str = ""
    """Why the check failed or does not apply, or the text of the refusal."""
    seconds: float = 0.0
    """Wall-clock time of the check in seconds."""
    declared: bool = False
    """Whether the class lists the check in `conformance_exceptions`."""


class Report(NamedTuple):
    """What all checks found for one class.

    Examples:
        >>> from stable_baselines3 import SAC
        >>> from flowpolicies.conformance import check
        >>> report = check(SAC, only="policies_become_vectors", policy_kwargs={"net_arch": [8]})
        >>> report.counts["passed"]
        1
    """

    name: str
    """Name of the class."""
    rows: list[Verdict]
    """One verdict per check, in the order of the checks."""

    @property
    def counts(self) -> dict[CheckResult, int]:
        """Number of checks by result."""
        found = Counter(row.result for row in self.rows)
        return {result: found[result] for result in RESULTS}

    @property
    def failures(self) -> list[Verdict]:
        """The checks that failed."""
        return [row for row in self.rows if row.result == "failed"]

    @property
    def stale(self) -> list[str]:
        """Names of the checks that the class declares as exceptions and that pass all the same."""
        return [row.promise.name for row in self.rows if row.declared and row.result == "passed"]

    @property
    def seconds(self) -> float:
        """Wall-clock time of all checks in seconds."""
        return sum(row.seconds for row in self.rows)

    def summary(self) -> str:
        """One line with the counts."""
        counted = ", ".join(f"{number} {result}" for result, number in self.counts.items())
        return f"{self.name}: {len(self.rows)} checks in {self.seconds:.0f} s: {counted}"

    def to_markdown(self) -> str:
        """A table of all checks, after a line with the counts."""
        lines = [self.summary(), "", "| check | promise | result |", "|---|---|---|"]
        for promise, result, message, *_ in self.rows:
            shown = f"{result}: {one_line(message)}" if message else result
            lines.append(f"| `{promise.name}` | {one_line(promise.text)} | {shown} |")
        return "\n".join(lines) + "\n"

    def raise_for_failures(self) -> None:
        """Raises an AssertionError that lists the checks that failed, if any did."""
        if self.failures:
            lines = [f"{row.promise.name}: {row.message}" for row in self.failures]
            raise AssertionError("\n".join([self.summary(), *lines]))


def one_line(text: str, longest: int = 300) -> str:
    """The text on one line of a table, cut after a number of characters."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= longest else f"{flat[: longest - 3]}..."
