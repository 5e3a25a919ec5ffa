"""Results of evaluations as JSON lines, a row for each episode: the schema results/v1 of docs/guides/evaluation.md."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from flowpolicies.artifacts import ArtifactError, parse_json
from flowpolicies.files import atomic_write

SCHEMA = "results/v1"
"""Name and version of the schema, which each row begins with."""

ENDING = ".jsonl"
"""Ending of the names of results files."""


@final
@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode of an evaluation. Rows with equal environment, seed and episode have the same start."""

    run: str
    """Run folder or policy file that was evaluated, as the command line named it."""
    label: str
    """Name under which runs are compared: the algorithm, or the name of the policy file."""
    algorithm: str | None
    """Name of the algorithm that trained the policy; None if it is not known."""
    run_seed: int | None
    """Seed of the training run; None if it is not known."""
    environment: str
    """Address or Gymnasium id of the environment."""
    task: int | None
    """Number of the task in the environment's address; None if it has none."""
    seed: int
    """Seed of the evaluation, from which the seeds of its episodes are derived."""
    episode: int
    """Number of the episode, counted from 0."""
    total: float
    """Sum of the rewards of the episode; the key of the row is `return`."""
    length: int
    """Number of environment steps of the episode."""
    success: float | None
    """Success at the last step, 0 or 1; None if the environment does not report it."""
    score: float | None
    """D4RL's normalised score of the return; None if the dataset has no reference returns."""
    deterministic: bool
    """Whether flows started at zero noise."""
    flowpolicies: str
    """Version of flowpolicies that played the episode."""

    def to_json(self) -> dict[str, Any]:
        """The row as JSON data."""
        row = {"schema": SCHEMA, **asdict(self)}
        return {("return" if key == "total" else key): value for key, value in row.items()}


_WRITER = "`flowpolicies evaluate RUN --out FILE.jsonl` writes such files."

_NUMBER, _COUNT = (int, float), (int,)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("run", "label", "environment", "flowpolicies"), (str,)),
    **dict.fromkeys(("seed", "episode", "length"), _COUNT),
    **dict.fromkeys(("run_seed", "task"), (*_COUNT, type(None))),
    **dict.fromkeys(("success", "score"), (*_NUMBER, type(None))),
    "algorithm": (str, type(None)),
    "return": _NUMBER,
    "deterministic": (bool,),
}
"""Key of a row -> types that its value may have in JSON."""


def write_results(path: Path, rows: Iterable[EpisodeResult]) -> None:
    """Writes a results file, atomically."""
    with atomic_write(path) as file:
        file.writelines((json.dumps(row.to_json()) + "\n").encode() for row in rows)


def read_results(path: Path) -> list[EpisodeResult]:
    """Reads a results file, or several that were joined. Keys that the schema does not have are ignored.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if a line is not a row of this version of the schema.
    """
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    if not lines:
        raise ArtifactError(
            path, "it has no rows", hint="`flowpolicies evaluate RUN --out FILE.jsonl` writes such files."
        )
    return [_parse(line, path, f"line {number}") for number, line in enumerate(lines, start=1)]


def _parse(line: bytes, path: Path, place: str) -> EpisodeResult:
    row = parse_json(line, path, place)
    schema = row.get("schema") if isinstance(row, dict) else None
    if schema != SCHEMA:
        is_of_other_version = isinstance(schema, str) and schema.startswith(SCHEMA.partition("/")[0] + "/")
        raise ArtifactError(
            path,
            f"its schema is {schema!r}, and this version of flowpolicies reads {SCHEMA!r}",
            place=place,
            hint="Another version of flowpolicies wrote it: update flowpolicies." if is_of_other_version else _WRITER,
        )
    values: dict[str, Any] = {}
    for key, kinds in _KINDS.items():
        if key not in row:
            raise ArtifactError(path, f"the row has no {key!r}", place=place, hint=_WRITER)
        value = row[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            allowed = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            raise ArtifactError(path, f"{key!r} must be {allowed}, got {value!r:.80}", place=place)
        values["total" if key == "return" else key] = value
    return EpisodeResult(**values)


def is_results(path: Path) -> bool:
    """Whether a path is that of a results file, by its name."""
    return path.suffix == ENDING and not path.is_dir()


def check_ending(path: Path) -> Path:
    """The path, unchanged.

    Raises:
        ValueError: if its ending is not that of results files, by which `compare` knows them.
    """
    if path.suffix != ENDING:
        raise ValueError(f"'{path}': name the results file with the ending {ENDING}, such as results{ENDING}.")
    return path
