"""Loading of Minari's datasets: an episode of T+1 observations becomes T transitions."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium.spaces import Box, Space

from flowpolicies.data import DataFault, TransitionDataset
from flowpolicies.data.dataset.checks import as_flags, as_numbers, reading_data, warn_if_clipped
from flowpolicies.data.dataset.compact import successors
from flowpolicies.data.dataset.transforms import REFERENCE
from flowpolicies.data.formats.memmap import Storage, from_shards
from flowpolicies.data.reading.limits import Budget, check_max_bytes
from flowpolicies.data.switches import as_switch
from flowpolicies.spaces.layout import ACTION_MARGIN, Observations, clip_inside
from flowpolicies.tree import Array
from flowpolicies_minari.environment import environment_id
from flowpolicies_minari.episodes import check_version, read_episodes
from flowpolicies_minari.folder import METADATA, Folder, fetch_folder
from flowpolicies_minari.observations import ObservationConverter
from flowpolicies_minari.rewards import RewardConvention, apply_convention, check_convention
from flowpolicies_minari.spaces import read_space

_FLAGS = ("terminations", "truncations")


def load(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    reward_convention: RewardConvention = "stored",
    clip_actions: bool = False,
    compact: bool = False,
    storage: Storage | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    download: bool = True,
    trust: bool = False,
    max_bytes: int | None = None,
) -> TransitionDataset:
    """Load the transitions of a Minari dataset. The environment need not be installed.

    Observations of any structure become arrays of a Box or of a flat Dict of Boxes, see `ObservationConverter`;
    `make_env` gives the same. A termination sets the mask to 0. The last step of an episode ends a trajectory, whatever
    its flags are. When a dataset was read completely, the hashes of its files and of its metadata are stored beside it,
    and they are checked at every later loading. Nothing that the metadata name is imported.

    Args:
        name: Minari's id, such as "D4RL/pen/human-v2", or the id after a server to download from:
            "hf://farama-minari/D4RL/pen/human-v2".
        data_dir: Folder of all datasets; None: Minari's (MINARI_DATASETS_PATH, or ~/.minari/datasets).
        reward_convention: "stored", or "d4rl-antmaze" for rewards r - 1 and masks of 0 at the goal.
        clip_actions: Clip actions to slightly inside their bounds, as papers do for policies that squash actions.
        compact: Store each state once, which halves the memory; batches are the same.
        storage: "ram", or "memmap" for files that are written once and opened afterwards; None: "ram".
        cache_dir: Folder of the memory-mapped files; None: ~/.cache/flowpolicies/memmap.
        download: Let Minari download a dataset that is missing or incomplete.
        trust: Read data in Arrow or Parquet, whose size in memory is not limited; `make_env` knows this option too.
        max_bytes: Bytes that the arrays may take in memory; None: the larger of 256 MiB and 100 times the size of the
            files.

    Raises:
        ArtifactError: if the dataset is incomplete or was changed, or its data are faulty; the message names the
            episode.
        ValueError: if the dataset does not exist, or an option has a wrong value.
        FileNotFoundError: if it is missing and downloads are turned off.
        ImportError: if a package that Minari needs is not installed.
        ConnectionError: if it cannot be downloaded.
    """
    check_convention(reward_convention)
    check_max_bytes(max_bytes)
    trust = as_switch("trust", trust)
    folder = fetch_folder(name, data_dir, download=download)
    options = {"reward_convention": reward_convention, "clip_actions": clip_actions, "compact": compact}

    def read(_: Path) -> TransitionDataset:
        with reading_data(folder.path):
            return _read(
                folder,
                reward_convention,
                clip_actions=clip_actions,
                compact=compact,
                trust=trust,
                max_bytes=max_bytes,
            )

    identity = {"name": folder.id, "source": "minari", "minari": minari.__version__, "files": folder.status()}
    return from_shards(identity | options, [folder.data / "metadata.json"], read, storage or "ram", cache_dir)


def _read(
    folder: Folder,
    reward_convention: RewardConvention,
    *,
    clip_actions: bool,
    compact: bool,
    trust: bool,
    max_bytes: int | None,
) -> TransitionDataset:
    """Read a complete dataset from its folder into memory."""
    hashes = folder.hashes()
    is_recorded = folder.check_record(hashes)
    metadata = folder.metadata()
    check_version(folder, metadata)
    spaces = [read_space(metadata[key], folder.metadata_path, key) for key in ("observation_space", "action_space")]
    action_space = _check_actions(spaces[1], folder.id)
    converter = ObservationConverter(spaces[0], folder.id)
    arrays = _TransitionArrays(folder, metadata, converter, action_space.shape, compact=compact, max_bytes=max_bytes)
    for index, episode in enumerate(read_episodes(folder, metadata, *spaces, max_bytes=max_bytes, trust=trust)):
        arrays.add(index, episode, reward_convention)
    columns = arrays.finish()
    if clip_actions:
        warn_if_clipped(f"dataset '{folder.id}'", columns["actions"], action_space)
        columns["actions"] = clip_inside(columns["actions"], action_space)
    provenance = {**_provenance(folder, metadata, hashes), "reward_convention": reward_convention}
    if converter.converted:
        provenance["converted"] = converter.converted
    if reward_convention != "stored":
        # The reference scores are returns of the stored rewards.
        provenance.pop(REFERENCE, None)
    dataset = TransitionDataset.from_arrays(
        **columns,
        observation_space=converter.space,
        action_space=action_space,
        name=folder.id,
        provenance=provenance | ({"action_margin": ACTION_MARGIN} if clip_actions else {}),
    )
    if arrays.inner_terminations and "flowpolicies" not in metadata:
        warnings.warn(
            f"dataset '{folder.id}': {arrays.inner_terminations} terminations are inside episodes that continue; masks "
            "are 0 there, and the trajectory continues.",
            stacklevel=5,
        )
    if not is_recorded:
        folder.write_record(hashes)
    return dataset


class _TransitionArrays:
    """Arrays of all transitions of a dataset, which are filled episode by episode.

    Args:
        folder: Folder of the dataset.
        metadata: Minari's metadata of the dataset.
        converter: Converter of the observations.
        action_shape: Shape of an action.
        compact: Keep only the final observations of the next observations, see `load`.
        max_bytes: Limit of the arrays, see `load`.
    """

    def __init__(
        self,
        folder: Folder,
        metadata: Mapping[str, Any],
        converter: ObservationConverter,
        action_shape: tuple[int, ...],
        *,
        compact: bool,
        max_bytes: int | None = None,
    ) -> None:
        self.folder, self.converter, self.compact = folder, converter, compact
        self.episodes, self.steps = int(metadata["total_episodes"]), int(metadata["total_steps"])
        if self.episodes < 1 or self.steps < 1:
            raise DataFault(
                f"Minari dataset '{folder.id}' is empty: its metadata say {self.episodes} episodes of {self.steps} "
                "steps. Collect it again."
            )
        space = converter.space
        boxes: dict[str, Space[Any]] = {"": space} if isinstance(space, Box) else dict(space.spaces)
        row = sum(math.prod(box.shape or ()) * np.dtype(box.dtype).itemsize for box in boxes.values())
        row = (1 if compact else 2) * row + 4 * (math.prod(action_shape) + 3)
        Budget(folder.path, max_bytes, folder.size()).spend(self.steps * row, f"total_steps of {METADATA}")
        self.now = {key: _empty(self.steps, box) for key, box in boxes.items()}
        self.next = {key: _empty(0 if compact else self.steps, box) for key, box in boxes.items()}
        self.finals: dict[str, list[Array]] = {key: [] for key in boxes}
        self.actions = np.empty((self.steps, *action_shape), np.float32)
        self.rewards, self.masks, self.terminals = (np.empty(self.steps, np.float32) for _ in range(3))
        self.row, self.inner_terminations = 0, 0

    def add(self, index: int, episode: Mapping[str, Any], convention: RewardConvention) -> None:
        """Add an episode of T steps and T+1 observations.

        Raises:
            DataFault: if its arrays do not fit each other, their spaces or the metadata.
        """
        where = f"episode {index} of Minari dataset '{self.folder.id}'"
        rewards = as_numbers(where, "rewards", episode["rewards"]).astype(np.float32, copy=False).reshape(-1)
        terminations, truncations = (as_flags(where, flag, episode[flag]).reshape(-1) for flag in _FLAGS)
        actions = as_numbers(where, "actions", episode["actions"]).astype(np.float32, copy=False)
        try:
            observations = self.converter.batch(episode["observations"])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            why = error if isinstance(error, ValueError) else repr(error)
            raise DataFault(f"{where}: observations do not fit their space ({why}).") from error
        lengths = {"actions": len(actions), "terminations": len(terminations), "truncations": len(truncations)}
        _check_lengths(where, len(rewards), lengths, {key: len(array) for key, array in observations.items()})
        self._check_room(where, len(rewards))
        if len(rewards) == 0:
            return
        if truncations[:-1].any():
            raise DataFault(
                f"{where} is truncated at step {int(truncations.argmax())} of {len(rewards)} but continues: the "
                "observation after it may belong to another episode. Split the episode there."
            )
        rows = slice(self.row, self.row + len(rewards))
        for key, array in observations.items():
            _check(self.now[key], array, where, f"observations {key}".strip())
            self.now[key][rows] = array[:-1]
            if self.compact:
                self.finals[key].append(array[-1].copy())
            else:
                self.next[key][rows] = array[1:]
        _check(self.actions, actions, where, "actions")
        self.actions[rows] = actions
        self.inner_terminations += int(terminations[:-1].sum())
        rewards, terminations = apply_convention(convention, rewards, terminations, self.folder.id)
        self.rewards[rows], self.masks[rows], self.terminals[rows] = rewards, ~terminations, 0
        self.row = rows.stop
        self.terminals[self.row - 1] = 1

    def finish(self) -> dict[str, Any]:
        """The arrays as arguments of `TransitionDataset.from_arrays`.

        Raises:
            DataFault: if episodes are missing.
        """
        if self.row != self.steps:
            raise DataFault(
                f"Minari dataset '{self.folder.id}' is incomplete: its metadata say {self.steps} steps in "
                f"{self.episodes} episodes, but the files have only {self.row}. {self.folder.advice()}"
            )
        following: Observations = self.next.get("", self.next)
        observations: Observations = self.now.get("", self.now)
        if self.compact:
            finals = {key: np.stack(arrays).astype(self.now[key].dtype) for key, arrays in self.finals.items()}
            following = successors(observations, finals.get("", finals), np.flatnonzero(self.terminals))
        return {
            "observations": observations,
            "actions": self.actions,
            "rewards": self.rewards,
            "next_observations": following,
            "masks": self.masks,
            "terminals": self.terminals,
        }

    def _check_room(self, where: str, length: int) -> None:
        if self.row + length > self.steps:
            raise DataFault(
                f"{where} exceeds the {self.steps} steps that the metadata say the dataset has. {self.folder.advice()}"
            )


def _empty(rows: int, box: Space[Any]) -> Array:
    assert box.shape is not None
    return np.empty((rows, *box.shape), box.dtype)


def _check(column: Array, values: Array, where: str, what: str) -> None:
    """Check that values fit the column that they are to be stored in."""
    if values.shape[1:] != column.shape[1:]:
        raise DataFault(f"{where}: {what} have shape {values.shape[1:]}, but their space has {column.shape[1:]}.")
    if values.dtype != np.uint8 and not np.isfinite(values).all():
        step = int(np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(1))[0])
        raise DataFault(f"{where}: {what} are NaN or infinite at step {step}. Drop or repair the episode.")


def _check_lengths(where: str, steps: int, lengths: Mapping[str, int], observations: Mapping[str, int]) -> None:
    wrong = [f"{found} {key}" for key, found in lengths.items() if found != steps]
    if wrong:
        raise DataFault(f"{where} has {steps} rewards, but {' and '.join(wrong)}.")
    for key, found in observations.items():
        if found != steps + 1:
            which = f"observations '{key}'" if key else "observations"
            raise DataFault(
                f"{where} has {found} {which} for {steps} steps; {steps + 1} are needed, one before the first step and "
                "one after each step. Without the last one the next observation of the last step is unknown. Collect "
                "the data with minari.DataCollector, or drop the last step of such episodes."
            )


def _check_actions(space: Any, name: str) -> Box:
    if isinstance(space, Box) and np.issubdtype(space.dtype, np.floating) and space.is_bounded("both"):
        return space
    raise DataFault(
        f"dataset '{name}' has the action space {space}, but flow policies need a Box of floating-point numbers with "
        "finite bounds. Collect the data with such an action_space."
    )


def _provenance(folder: Folder, metadata: Mapping[str, Any], hashes: Mapping[str, str]) -> dict[str, Any]:
    """Origin of the data, from Minari's metadata."""
    provenance: dict[str, Any] = {
        "source": "minari",
        "minari": minari.__version__,
        "written_by_minari": metadata["minari_version"],
        "dataset_version": int(folder.id.rpartition("-v")[2]),
        "env": environment_id(metadata),
        "episodes": metadata["total_episodes"],
        "sha256": dict(hashes),
    }
    copied = ("algorithm_name", "author", "code_permalink", "description", "requirements", "combined_datasets")
    provenance |= {key: metadata[key] for key in copied if metadata.get(key)}
    if metadata.get("ref_max_score") is not None and metadata.get("ref_min_score") is not None:
        provenance[REFERENCE] = {"min": metadata["ref_min_score"], "max": metadata["ref_max_score"]}
    if metadata.get("jpeg_encoding") is not None:
        provenance["jpeg_encoding"] = metadata["jpeg_encoding"]
    if "flowpolicies" in metadata:
        provenance["collected"] = metadata["flowpolicies"].get("provenance", {})
    return provenance
