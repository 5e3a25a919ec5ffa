"""Files of single episodes, which are kept while a dataset is generated, so that an interrupted run loses none."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, final

import numpy as np

from flowpolicies.data import read_npz, write_npz
from flowpolicies.files import write_json
from flowpolicies.tree import Array

_PARAMETERS = "parameters.json"
"""Name of the file with the parameters of the run that the episodes belong to."""


@final
class EpisodeFolder:
    """A folder of single episodes, which are joined into a data file when all episodes of that file exist.

    Args:
        folder: Path of the folder; `move` deletes it.
        counts: Number of episodes of each split.
        per_file: Largest number of episodes in a data file.
    """

    def __init__(self, folder: Path, counts: Mapping[str, int], per_file: int) -> None:
        self.folder, self.counts, self.per_file = folder, counts, per_file
        self._existing: dict[str, set[int]] = {}

    def open(self, parameters: Mapping[str, Any], *, overwrite: bool) -> None:
        """Continue an interrupted run with these parameters, or start a new one.

        Raises:
            FileExistsError: if the folder has episodes of a run with other parameters, and `overwrite` is off.
        """
        record = self.folder / _PARAMETERS
        found = json.loads(record.read_text()) if record.is_file() else parameters
        if found != parameters:
            other = [f"{key}={found.get(key)!r}" for key, value in parameters.items() if found.get(key) != value]
            if not overwrite:
                raise FileExistsError(
                    f"'{self.folder}' contains the episodes of an interrupted run with {', '.join(other)}. Repeat "
                    "that run to finish it, or pass overwrite=True (--overwrite) to delete its episodes."
                )
            shutil.rmtree(self.folder)
        self.folder.mkdir(exist_ok=True)
        write_json(record, parameters)
        self._existing = {split: self._find_episodes(split) for split in self.counts}

    def missing(self) -> list[tuple[str, int]]:
        """Split and number of each episode that does not exist yet, in order."""
        return [
            (split, number)
            for split, count in self.counts.items()
            for number in range(count)
            if number not in self._existing[split]
        ]

    def add(self, split: str, number: int, episode: Mapping[str, Array]) -> None:
        """Save an episode, and write the data file that it belongs to if it was the last one missing."""
        write_npz(self._episode(split, number), episode)
        self._existing[split].add(number)
        self._join(split, number // self.per_file)

    def move(self, place: Callable[[str, int, int], Path]) -> None:
        """Move all data files to their final paths, and delete the folder.

        Args:
            place: Returns the final path of a data file from its split, its number and the number of files of the
                split.
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

    def _episodes_of_file(self, split: str, number: int) -> range:
        """Numbers of the episodes in a data file."""
        return range(number * self.per_file, min((number + 1) * self.per_file, self.counts[split]))

    def _join(self, split: str, number: int) -> None:
        """Write a data file from its episodes and delete those, if they all exist."""
        numbers = self._episodes_of_file(split, number)
        if self._file(split, number).is_file() or not self._existing[split].issuperset(numbers):
            return
        paths = [self._episode(split, episode) for episode in numbers]
        episodes = [read_npz(path) for path in paths]
        write_npz(
            self._file(split, number),
            {key: np.concatenate([episode.pop(key) for episode in episodes]) for key in list(episodes[0])},
        )
        for path in paths:
            path.unlink()

    def _find_episodes(self, split: str) -> set[int]:
        """Numbers of the episodes that exist, alone or in a data file."""
        episodes = {int(path.stem.rpartition("-")[2]) for path in self.folder.glob(f"{split}-episode-*.npz")}
        done = [number for number in range(self._files(split)) if self._file(split, number).is_file()]
        return episodes.union(*(self._episodes_of_file(split, number) for number in done))

    def _episode(self, split: str, number: int) -> Path:
        return self.folder / f"{split}-episode-{number}.npz"

    def _file(self, split: str, number: int) -> Path:
        return self.folder / f"{split}-file-{number}.npz"
