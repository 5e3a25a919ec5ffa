"""A folder with the files that examples name, and tiny sizes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
import pytest
from stand_ins import make_files, make_tiny

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.data.sources import SOURCES
from flowpolicies.networks import ENCODERS, NETWORKS
from flowpolicies.samplers import SAMPLERS


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the data, policies and runs that examples name."""
    folder = tmp_path_factory.mktemp("files")
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)
        patch.chdir(folder)
        make_files(folder)
    return folder


@contextmanager
def examples_in(folder: Path) -> Iterator[None]:
    """Examples are run in a folder, and everything is tiny. What they declare is forgotten afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        make_tiny(patch)  # It looks sources up, which declares them.
        registries = [*SOURCES.values(), SAMPLERS, NETWORKS, ENCODERS]
        declared = [ALGORITHMS, gym.registry, *(registry.declared for registry in registries)]
        before = [dict(names) for names in declared]
        patch.chdir(folder)
        patch.setenv("MINARI_DATASETS_PATH", str(folder.parent / "minari"))
        yield
        for names, known in zip(declared, before, strict=True):
            for name in set(names) - set(known):
                del names[name]
        gym.registry.update(before[1])  # A page may register an environment again that tests have.


@pytest.fixture
def place(files: Path, tmp_path: Path) -> Iterator[Path]:
    """The working directory of the examples of a page, with a copy of the files."""
    shutil.copytree(files, tmp_path / "place")
    with examples_in(tmp_path / "place"):
        yield tmp_path / "place"


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The working directory of all examples of docstrings, which name no files but those that they write."""
    with examples_in(tmp_path_factory.mktemp("docstrings")):
        yield
