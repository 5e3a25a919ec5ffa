"""Files of results, `bench-KIND.json`, and the comparison with the results before."""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowpolicies.artifacts import parse_json
from flowpolicies.benchmarking.machine import is_same_machine
from flowpolicies.files import write_json

UNITS = ("ms", "us", "seconds")
"""Words in the names of numbers that are times, which are compared."""
SMALLEST_CHANGE = 0.03
"""Smallest change that is printed, as a fraction."""


class Change(NamedTuple):
    """One time of two measurements."""

    name: str
    """Path in the results, such as "results/fql/eager/min_ms"."""
    before: float
    after: float

    @property
    def percent(self) -> float:
        """Change in percent; negative if the new measurement is faster."""
        return 100 * (self.after / self.before - 1)


def path_of(kind: str, folder: Path) -> Path:
    """The file with the results of a kind of measurement."""
    return folder / f"bench-{kind}.json"


def read_results(kind: str, folder: Path) -> dict[str, Any] | None:
    """The last results of a kind of measurement; None if there are none."""
    path = path_of(kind, folder)
    return parse_json(path.read_bytes(), str(path)) if path.is_file() else None


def write_results(
    kind: str, folder: Path, results: Mapping[str, Any], machine: Mapping[str, Any], command: Sequence[str]
) -> dict[str, Any]:
    """Writes results to their file, which is complete or as before at any moment, and returns its content.

    Args:
        kind, folder, results, machine, command: as of `save_results`.
    """
    data = {
        "kind": kind,
        "command": shlex.join(command),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dict(machine),
        **results,
    }
    write_json(path_of(kind, folder), data)
    return data


def save_results(
    kind: str, folder: Path, results: Mapping[str, Any], machine: Mapping[str, Any], command: Sequence[str]
) -> list[str]:
    """Writes results, and returns lines that compare them with those that the file held before.

    Args:
        kind: kind of measurement, such as "step".
        folder: folder of the file.
        results: plain data.
        machine: what `describe_machine` returned.
        command: words of the command line.
    """
    before = read_results(kind, folder)
    data = write_results(kind, folder, results, machine, command)
    return [f"written to {path_of(kind, folder)}", *_compared(before, json.loads(json.dumps(data, default=str)))]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Times that both results have, in the order of the new ones. Medians are left out where there is a minimum."""
    old = dict(_times(before))
    return [Change(name, old[name], value) for name, value in _times(after) if old.get(name)]


def _compared(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    if before is None:
        return ["no results before these to compare with"]
    if not is_same_machine(before["machine"], after["machine"]):
        return [
            f"not compared with the results of {before['time']}, which were measured on another machine or number of "
            f"threads ({before['machine'].get('processor')})"
        ]
    found = changes(before, after)
    large = [change for change in found if abs(change.percent) >= 100 * SMALLEST_CHANGE]
    commit = before["machine"].get("software", {}).get("flowpolicies_commit", "of an unknown commit")
    title = f"changes since {before['time']} ({commit[:12]}): {len(large)} of {len(found)} times by 3 % or more"
    return [title, *(f"  {c.name}: {c.before:.4g} -> {c.after:.4g} ({c.percent:+.0f} %)" for c in large)]


def _times(data: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, float]]:
    if isinstance(data, Mapping):
        least = any("min" in str(key).split("_") for key in data)
        for key, value in data.items():
            words = str(key).split("_")
            if isinstance(value, int | float) and not isinstance(value, bool):
                if set(words) & set(UNITS) and not (least and "median" in words):
                    yield "/".join((*path, str(key))), float(value)
            else:
                yield from _times(value, (*path, str(key)))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from _times(value, (*path, str(number)))
