"""Words that options of datasets take. The command line needs them for its help, so this module imports no other."""

from typing import Literal, get_args

Storage = Literal["ram", "memmap"]
"""Storage of a dataset. ram: arrays in memory. memmap: files of any size, shared by all processes."""

RewardTransformName = Literal[
    "none", "sparse", "iql_locomotion", "iql_mujoco", "iql_antmaze", "cql_antmaze", "antmaze100", "normalize"
]
"""Names of reward transforms; `iql_mujoco` is another name of `iql_locomotion`."""

REFERENCE = "reference_scores"
"""Key of a dataset's provenance for the returns `min` and `max` that correspond to scores of 0 and 100."""

INDEX = "index.json"
"""Name of the index of a folder of memory-mapped files."""

FILES = {"hdf5": "an HDF5 file", "npz": "an .npz file", "sb3": "a replay buffer (.pkl)"}
"""Source of datasets that reads one file -> what messages call the file."""


def check_storage(storage: str) -> None:
    """Checks the name of a storage.

    Raises:
        ValueError: if there is no such storage.
    """
    if storage not in get_args(Storage):
        raise ValueError(f"unknown storage '{storage}' (known: {', '.join(get_args(Storage))}).")
