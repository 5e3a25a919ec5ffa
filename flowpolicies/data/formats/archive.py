"""Datasets as .npz files: those that `TransitionDataset.save` writes, and those of others."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.compact import nest, unpack
from flowpolicies.data.dataset.dataset import FIELDS, FLAGS, TransitionDataset
from flowpolicies.data.formats.npz import read_npz, write_npz
from flowpolicies.spaces.json import space_from_json, space_to_json

Array = npt.NDArray[Any]

_DESCRIPTION = "flowpolicies_dataset"  # The array of a saved file that holds the spaces and the provenance as JSON.
_NEEDED = list(FIELDS[:4])


def save_npz(dataset: TransitionDataset, path: str | os.PathLike[str]) -> Path:
    """See `TransitionDataset.save`."""
    description = {
        "format": 1,
        "observation_space": space_to_json(dataset.observation_space),
        "action_space": space_to_json(dataset.action_space),
        "provenance": dataset.provenance,
    }
    encoded = np.frombuffer(json.dumps(description).encode(), np.uint8)
    return write_npz(path, {**dataset.stored(), _DESCRIPTION: encoded})


def load_npz(path: str | os.PathLike[str], options: Mapping[str, Any]) -> TransitionDataset:
    """See `TransitionDataset.load`; `options` are those that were given."""
    arrays = read_npz(path)
    description = arrays.pop(_DESCRIPTION, None)
    if description is None:
        return _from_plain_npz(path, nest(arrays), options)
    if options:
        raise ValueError(f"'{path}' has its own spaces and provenance: load it without {sorted(options)}.")
    described = _decode_description(path, description)
    names = {key.partition("/")[0] for key in arrays}
    wanted = {*FIELDS} if "next_observations" in names else {*FIELDS, "final_observations"} - {"next_observations"}
    if names != wanted:
        raise ValueError(
            f"'{path}' holds {sorted(names)}, and a dataset {sorted(wanted)}: it was changed after it was written. "
            "Write it again with TransitionDataset.save."
        )
    return TransitionDataset(**unpack(arrays), **described)


def _from_plain_npz(
    path: str | os.PathLike[str], fields: Mapping[str, Any], options: Mapping[str, Any]
) -> TransitionDataset:
    missing = [key for key in _NEEDED if key not in fields]
    if set(missing) == {"rewards", "next_observations"} and "terminals" in fields:
        raise ValueError(
            f"'{path}' looks like a file of OGBench, which holds no rewards: they depend on the task. Load it by a "
            f"task's name, such as ogbench:cube-single-play-singletask-task1-v0, with data_dir='{Path(path).parent}'."
        )
    if missing:
        raise ValueError(
            f"'{path}' lacks {missing} (it holds {sorted(fields)}). Needed are {_NEEDED}, and terminations "
            "(with truncations, if any) or masks and terminals."
        )
    known = {key: fields[key] for key in (*_NEEDED, *FLAGS) if key in fields}
    return TransitionDataset.from_arrays(**known, **{"name": Path(path).stem, **options})


def _decode_description(path: str | os.PathLike[str], encoded: Array) -> dict[str, Any]:
    try:
        description = json.loads(encoded.tobytes())
        if description["format"] == 1:
            return {
                "observation_space": space_from_json(description["observation_space"]),
                "action_space": space_from_json(description["action_space"]),
                "provenance": description["provenance"],
            }
        found = description["format"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'{path}' has a damaged description of spaces and provenance ({error!r}). Write it again with "
            "TransitionDataset.save."
        ) from error
    raise ValueError(f"'{path}' has format {found}, this version reads 1. Update flowpolicies.")
