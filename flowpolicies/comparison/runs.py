"""What the command line names as runs: run folders, folders of them, policies, and labels for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flowpolicies.policies.sharing.finding import BOX, find, shared_source
from flowpolicies.policies.sharing.folder import evaluated_in, is_pretrained
from flowpolicies.training.runs import RunFolder


class NamedRun(NamedTuple):
    """A run or a policy of the command line."""

    path: Path
    """Run folder, policy file, or another name that `flowpolicies.training.load_policy` takes."""
    label: str | None
    """Label that the command line gives it, as in LABEL=PATH; None if it gives none."""

    @property
    def record(self) -> Mapping[str, Any]:
        """The record of the run; empty if the policy is not that of a run."""
        return RunFolder(self.path).read_config() if self.path.is_dir() and not is_pretrained(self.path) else {}

    @property
    def name(self) -> str:
        """The label, or else the algorithm of the run, or the name of the policy's file or folder."""
        return self.label or str(self.record.get("algorithm") or self.path.with_suffix("").name)

    def environment(self) -> str:
        """The environment of the run.

        Raises:
            ValueError: if the run or the policy does not say which environment it is for.
        """
        from flowpolicies.data.foreign import check_environment

        own, stated = self.record.get("env"), None
        if (source := shared_source(self.path)) is not None and isinstance(found := find(source), Path):
            stated = evaluated_in(found)
            own = stated if found.parent == BOX else own
        if own is None:
            hint = "" if stated is None else f" Its author evaluated it in '{stated}'."
            raise ValueError(f"'{self.path}' does not say which environment it is for. Pass --env.{hint}")
        return check_environment(own, self.path)


def name_runs(words: Iterable[str | Path]) -> list[NamedRun]:
    """The runs that words of the command line name: PATH or LABEL=PATH.

    A folder that is no run but holds some stands for all of them, at any depth. Each run occurs once.

    Raises:
        ValueError: if no run is named.
    """
    found: dict[Path, NamedRun] = {}
    for word in map(str, words):
        label, equals, rest = word.partition("=")
        is_labelled = bool(equals and label and rest) and not Path(word).exists()
        path = Path(rest if is_labelled else word)
        for one in _runs_in(path):
            found.setdefault(one, NamedRun(one, label if is_labelled else None))
    if not found:
        raise ValueError("no run is named. Give run folders, such as those in runs/, or files.")
    return list(found.values())


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir() or is_pretrained(path) or RunFolder(path).config.is_file():
        return [path]
    inner = sorted(config.parent for config in path.rglob("config.json") if not is_pretrained(config.parent))
    return inner or [path]


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Path -> its last parts, as many as it takes for no other path to have the same ones."""
    every = list(paths)
    found = {}
    for path in every:
        tails = (path.parts[-number:] for number in range(1, len(path.parts) + 1))
        alone = (tail for tail in tails if sum(other.parts[-len(tail) :] == tail for other in every) == 1)
        found[path] = str(Path(*next(alone, path.parts)))
    return found
