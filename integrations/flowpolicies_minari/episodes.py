"""Reading of Minari's episodes, one at a time."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import minari
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple
from minari.dataset.minari_storage import MinariStorage, is_image_space
from PIL import Image

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.reading.hdf5 import Hdf5Group, open_hdf5
from flowpolicies.tree import Array
from flowpolicies_minari.folder import Folder

MAIN_FILE = "main_data.hdf5"
"""Name of the file of all episodes in the format "hdf5"."""


def read_episodes(
    folder: Folder,
    metadata: Mapping[str, Any],
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    max_bytes: int | None,
    trust: bool,
) -> Iterator[Mapping[str, Any]]:
    """Read all episodes in order: observations, actions, rewards, terminations and truncations.

    Episodes in HDF5 are read by this package, because Minari's own reader follows links out of the file, reads infos,
    and decodes images of every format that Pillow knows. Other formats are read by Minari, and need trust.

    Args:
        folder: Folder of the dataset.
        metadata: Minari's metadata.
        observation_space: Space of the observations.
        action_space: Space of the actions.
        max_bytes: Limit of what is read, see `load`.
        trust: Read other formats than HDF5.

    Raises:
        ArtifactError: if an episode cannot be read; the message names it.
        ImportError: if a package that Minari needs is not installed.
    """
    total = int(metadata["total_episodes"])
    if metadata["data_format"] == "hdf5":
        episodes = _in_hdf5(folder, observation_space, action_space, total, max_bytes)
    elif trust:
        episodes = iter(_storage(folder, metadata).get_episodes(range(total)))
    else:
        raise ArtifactError(
            folder.metadata_path,
            f"the data of '{folder.id}' are in the format '{str(metadata['data_format'])[:80]}', whose reader does not "
            "limit what a file unpacks to; 'hdf5' is read without trust",
            place="data_format",
            hint=f"If you trust its author, pass trust=True (on the command line minari:{folder.id},trust=true).",
        )
    for index in range(total):
        try:
            episode = next(episodes)
        except ImportError:
            raise
        except Exception as error:  # Damaged files raise errors of many classes.
            why = f"{error.place} {error.problem}".strip() if isinstance(error, ArtifactError) else repr(error)
            raise ArtifactError(
                folder.data,
                f"cannot read episode {index} of the {total} of Minari dataset '{folder.id}': {why}",
                hint=folder.advice(),
            ) from error
        yield episode


def _in_hdf5(
    folder: Folder, observations: Space[Any], actions: Space[Any], total: int, max_bytes: int | None
) -> Iterator[Mapping[str, Any]]:
    path: Path = folder.data / MAIN_FILE
    with open_hdf5(path, max_bytes) as file:
        for index in range(total):
            episode = file.group(f"episode_{index}")
            yield {
                "observations": _decode(episode, "observations", observations),
                "actions": _decode(episode, "actions", actions),
                **{key: episode.array(key) for key in ("rewards", "terminations", "truncations")},
            }


def _decode(group: Hdf5Group, name: str, space: Space[Any]) -> Any:
    """The values of a space, `[T, *shape]`; those of a Dict or Tuple are in a group."""
    if isinstance(space, Dict):
        inner = group.group(name)
        return {key: _decode(inner, key, part) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        inner = group.group(name)
        return tuple(_decode(inner, f"_index_{index}", part) for index, part in enumerate(space.spaces))
    # Raw images have one axis more than their space; encoded ones are an array of bytes for each.
    if isinstance(space, Box) and is_image_space(space) and len(group.shape(name)) <= 2:
        return _decode_images(group, name, space)
    return group.array(name)


def _decode_images(group: Hdf5Group, name: str, space: Box) -> Array:
    """Images of one space that are stored as JPEG, `[T, H, W, C]` or `[T, H, W]`."""
    count = group.shape(name)[0] if group.shape(name) else 0
    group.spend(name, count * math.prod(space.shape))
    images = np.empty((count, *space.shape), np.uint8)
    for row, encoded in enumerate(group.byte_strings(name)):
        # Pillow calls other programs for some formats, and the size is known before an image is unpacked.
        image = Image.open(io.BytesIO(encoded), formats=("JPEG",))
        if image.size != (space.shape[1], space.shape[0]):
            raise ValueError(f"image {row} of {name} has {image.size} pixels, and its space the shape {space.shape}")
        images[row] = np.asarray(image, np.uint8)
    return images


def _storage(folder: Folder, metadata: Mapping[str, Any]) -> MinariStorage:
    """Minari's own reader."""
    # `minari.load_dataset` is not used, because it fails on environment specifications of other versions of Gymnasium
    # (minari/dataset/minari_dataset.py).
    try:
        storage = MinariStorage.read(folder.data)
        if "jpeg_encoding" not in metadata and not _is_readable(storage):
            # Versions of Minari before this setting stored images without JPEG, but a missing setting is read as JPEG
            # (`read` in minari/dataset/minari_storage.py).
            storage = type(storage)(folder.data, storage.observation_space, storage.action_space, jpeg_encoding=False)
    except ImportError as error:
        raise ImportError(
            f"cannot read Minari dataset '{folder.id}' ({error}). For HDF5: pip install \"flowpolicies[minari]\""
        ) from error
    except (KeyError, ValueError, AssertionError, NotImplementedError) as error:
        raise ArtifactError(
            folder.data, f"cannot read Minari dataset '{folder.id}': {error!r}", hint=folder.advice()
        ) from error
    return storage


def _is_readable(storage: MinariStorage) -> bool:
    """Whether the first episode can be decoded."""
    try:
        return next(iter(storage.get_episodes([0]))) is not None
    except Exception:  # The errors of image decoders have no common class.
        return False


def check_version(folder: Folder, metadata: Mapping[str, Any]) -> None:
    """Check that the installed version of Minari can read the dataset.

    Raises:
        ArtifactError: if it cannot.
    """
    written_by = metadata["minari_version"]
    if written_by not in minari.supported_dataset_versions:
        raise ArtifactError(
            folder.metadata_path,
            f"dataset '{folder.id}' was written by Minari {written_by[:80]}, which the installed version "
            f"{minari.__version__} cannot read",
            hint="Update Minari with: pip install -U minari",
        )
