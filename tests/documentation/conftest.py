"""A folder with the files that examples name, and tiny sizes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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


@pytest.fixture
def place(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory of examples, with a copy of the files, where everything is tiny.

    What examples declare is forgotten afterwards.
    """
    registries = [*SOURCES.values(), SAMPLERS, NETWORKS, ENCODERS]
    declared = [ALGORITHMS, gym.registry, *(registry.declared for registry in registries)]
    before = [dict(names) for names in declared]
    make_tiny(monkeypatch)
    shutil.copytree(files, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    yield tmp_path / "place"
    for names, known in zip(declared, before, strict=True):
        for name in set(names) - set(known):
            del names[name]
    gym.registry.update(before[1])  # A page may register an environment again that tests have.
