"""Episodes that are kept one by one while a dataset is made, so that an interrupted run loses none."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt

from flowpolicies.data import read_npz, write_npz
from flowpolicies.files import write_json

Array = npt.NDArray[Any]

_PARAMETERS = "parameters.json"


@final
class Parts:
    """A folder of episodes, which become files of several when all of a file's episodes are there.

    Args:
        folder: where they are kept; it goes when `move` has put the files in their places.
        counts: episodes of each split.
        per_file: most episodes in a file.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], per_file: int) -> None:
        self.folder, self.counts, self.per_file = folder, counts, per_file
        self._there: dict[str, set[int]] = {}

    def open(self, parameters: Mapping[str, Any], *, overwrite: bool) -> None:
        """Goes on with what an interrupted run with these parameters left, or begins.

        Raises:
            FileExistsError: if a run with other parameters was interrupted, and `overwrite` is off.
        """
        record = self.folder / _PARAMETERS
        found = json.loads(record.read_text()) if record.is_file() else parameters
        if found != parameters:
            other = [f"{key}={found.get(key)!r}" for key, value in parameters.items() if found.get(key) != value]
            if not overwrite:
                raise FileExistsError(
                    f"'{self.folder}' keeps the episodes of an interrupted run with {', '.join(other)}. Run it again "
                    "to finish it, or pass overwrite=True (--overwrite) to drop them."
                )
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        write_json(record, parameters)
        self._there = {split: self._kept(split) for split in self.counts}

    def missing(self) -> list[tuple[str, int]]:
        """Splits and numbers of the episodes that are not there yet, in order."""
        return [(split, i) for split, n in self.counts.items() for i in range(n) if i not in self._there[split]]

    def add(self, split: str, number: int, episode: Mapping[str, Array]) -> None:
        """Keeps an episode; when it is the last one of a file, writes the file."""
        write_npz(self._episode(split, number), episode)
        self._there[split].add(number)
        self._join(split, number // self.per_file)

    def move(self, place: Callable[[str, int, int], Path]) -> None:
        """Puts the files where they belong.

        Args:
            place: path of a file by split, number, and how many the split has.
        """
        for split in self.counts:
            for number in range(self._files(split)):
                self._join(split, number)
                target = place(split, number, self._files(split))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self._file(split, number), target)
        shutil.rmtree(self.folder)

    def _files(self, split: str) -> int:
        return -(-self.counts[split] // self.per_file)

    def _members(self, split: str, number: int) -> range:
        """Episodes of a file."""
        return range(number * self.per_file, min((number + 1) * self.per_file, self.counts[split]))

    def _join(self, split: str, number: int) -> None:
        members = self._members(split, number)
        if self._file(split, number).is_file() or not self._there[split].issuperset(members):
            return
        paths = [self._episode(split, episode) for episode in members]
        episodes = [read_npz(path) for path in paths]
        write_npz(
            self._file(split, number),
            {key: np.concatenate([episode.pop(key) for episode in episodes]) for key in list(episodes[0])},
        )
        for path in paths:
            path.unlink()

    def _kept(self, split: str) -> set[int]:
        episodes = {int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{split}-episode-*.npz")}
        done = [number for number in range(self._files(split)) if self._file(split, number).is_file()]
        return episodes.union(*(self._members(split, number) for number in done))

    def _episode(self, split: str, number: int) -> Path:
        return self.folder / f"{split}-episode-{number}.npz"

    def _file(self, split: str, number: int) -> Path:
        return self.folder / f"{split}-file-{number}.npz"
