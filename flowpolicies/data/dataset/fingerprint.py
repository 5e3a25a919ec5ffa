"""What identifies data: one number for all of it, whichever way it is stored."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.rows import blocks, read

Array = npt.NDArray[Any]


def fingerprint_of(arrays: Mapping[str, Array]) -> str:
    """SHA-256 of names, shapes, types and bytes of the arrays, as 64 hexadecimal digits; a block in memory at a time.

    Args:
        arrays: in memory, in files, or `Successors`.
    """
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(f"{key} {array.shape} {array.dtype.str}\n".encode())
        for rows in blocks([array]):
            digest.update(np.ascontiguousarray(read(array, rows)).data)
    return digest.hexdigest()
