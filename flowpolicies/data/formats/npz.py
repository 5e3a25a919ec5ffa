"""Reading and writing of .npz files: whole or not at all, and never a pickle."""

import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowpolicies.data.downloads.files import existing_file

Array = npt.NDArray[Any]


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an .npz file by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not an .npz file, is damaged, or holds pickled objects.
    """
    path = existing_file(path, "an .npz file")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"'{path}' is not an .npz file, or only a part of one. Write it again with np.savez.")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise ValueError(
            f"cannot read '{path}': {error}. Files must be whole and hold plain arrays: "
            "pickled objects are never loaded."
        ) from error


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> Path:
    """Write `arrays` uncompressed to exactly `path`, and return it.

    Readers see the old file or the whole new one: the data goes to a temporary file in the same folder, which then
    takes the place of `path`. The folder is made if it is missing.

    Raises:
        ValueError: if an array holds Python objects, which only pickle could write.
    """
    path = Path(path).expanduser()
    if pickled := [key for key, array in arrays.items() if array.dtype.hasobject]:
        raise ValueError(f"cannot write '{path}': {pickled} hold Python objects. Convert them to numbers first.")
    path.parent.mkdir(parents=True, exist_ok=True)
    members: dict[str, Any] = dict(arrays)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "wb") as file:
            np.savez(file, **members)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
