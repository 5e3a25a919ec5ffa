"""Metadata of a dataset from strangers lead to no import, and their data to no file outside of the folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from minari_worlds import change_metadata
from PIL import Image

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import load_dataset, make_env
from flowpolicies_minari import load
from flowpolicies_minari.allowed import WRAPPERS

EVIL = "evil_of_test_trust"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file behind when it is imported, and whose path is returned."""
    marker = tmp_path / "imported"
    (tmp_path / f"{EVIL}.py").write_text(
        f"import pathlib, gymnasium\npathlib.Path({str(marker)!r}).touch()\n"
        "class Env(gymnasium.Env):\n    pass\n"
        "gymnasium.register('EvilInside-v0', 'gymnasium.envs.classic_control:PendulumEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, EVIL, raising=False)
    return marker


def change_spec(root: Path, **values: Any) -> None:
    path = root / "w-v0" / "data" / "metadata.json"
    spec = json.loads(json.loads(path.read_text())["env_spec"]) | values
    change_metadata(root / "w-v0", env_spec=json.dumps(spec))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "Evil-v0", "entry_point": f"{EVIL}:Env"}, "environment 'Evil-v0'"),
        ({"id": f"{EVIL}:Evil-v0"}, f"environment '{EVIL}:Evil-v0'"),
        ({"id": "Evil-v0", "entry_point": None, "vector_entry_point": f"{EVIL}:Env"}, "environment 'Evil-v0'"),
        ({"additional_wrappers": [{"name": "W", "entry_point": f"{EVIL}:Env", "kwargs": {}}]}, "wrapper 'W'"),
        ({"additional_wrappers": [{"name": "W", "entry_point": f"{EVIL}:TimeLimit", "kwargs": {}}]}, "wrapper 'W'"),
        (
            {
                "additional_wrappers": [
                    {
                        "name": "RecordVideo",
                        "entry_point": "gymnasium.wrappers:RecordVideo",
                        "kwargs": {"video_folder": "x"},
                    }
                ]
            },
            "wrapper 'RecordVideo'",
        ),
        (
            {
                "additional_wrappers": [
                    {
                        "name": "W",
                        "entry_point": "gymnasium.wrappers:FilterObservation",
                        "kwargs": {"filter_keys": ["/etc"]},
                    }
                ]
            },
            "wrapper 'W' .*has the argument 'filter_keys' '/etc', which may be a path",
        ),
        ({"kwargs": {"scale": f"{EVIL}:Env"}}, "has the argument 'scale' .*, which may be a path or an address"),
        ({"kwargs": {"scale": "../x.xml"}}, r"has the argument 'scale' '\.\./x\.xml', which may be a path"),
        ({"kwargs": 3}, "env_spec: .*kwargs"),
    ],
)
def test_what_the_metadata_name_is_not_imported(
    record: Any, root: Path, evil: Path, changes: dict[str, Any], message: str
) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change_spec(root, **changes)
    load("w-v0")
    with pytest.raises(ArtifactError, match=message):
        make_env("minari:w-v0")
    assert not evil.exists()
    assert EVIL not in sys.modules


def test_a_registered_environment_has_the_entry_points_of_its_registration(record: Any, root: Path, evil: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change_spec(root, entry_point=f"{EVIL}:Env", vector_entry_point=f"{EVIL}:Env")
    assert make_env("minari:w-v0").unwrapped.scale == 1
    assert not evil.exists()


def test_trust_follows_the_metadata(record: Any, root: Path, evil: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change_spec(root, id="Evil2-v0", entry_point=f"{EVIL}:Env")
    with pytest.raises(ValueError, match="trust is 'yes', and must be true or false"):
        make_env("minari:w-v0,trust=yes")
    assert not evil.exists()
    with pytest.raises(AttributeError):  # It has no spaces.
        make_env("minari:w-v0,trust=true")
    assert evil.exists()
    load_dataset("minari:w-v0,trust=true")


@pytest.mark.parametrize("address", [f"{EVIL}:Evil-v0", "minari:w-v0", "Evil-v0", 3, ["x"]])
def test_addresses_in_metadata_are_followed_only_to_sources(record: Any, root: Path, evil: Path, address: Any) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change_metadata(root / "w-v0", flowpolicies={"env": address})
    with pytest.raises(ArtifactError, match="it is not followed"):
        make_env("minari:w-v0")
    assert not evil.exists()


def test_all_allowed_wrappers_are_gymnasiums() -> None:
    assert set(gym.wrappers.__all__) >= WRAPPERS
    assert not WRAPPERS & {"RecordVideo", "HumanRendering", "TransformObservation", "TransformAction"}


def test_changed_metadata_are_noticed_also_by_the_environment(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    make_env("minari:w-v0")  # Nothing is recorded yet.
    load("w-v0")
    change_spec(root, max_episode_steps=3)
    for call in (lambda: load("w-v0"), lambda: make_env("minari:w-v0")):
        with pytest.raises(ArtifactError, match=r"\['metadata.json'\] in .* changed"):
            call()


def test_records_without_the_metadata_are_completed(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    load("w-v0")
    path = root / "w-v0" / "flowpolicies.json"
    content = json.loads(path.read_text())
    del content["sha256"]["metadata.json"]
    path.write_text(json.dumps(content))
    load("w-v0")
    assert "metadata.json" in json.loads(path.read_text())["sha256"]
    path.write_text("{}")
    with pytest.raises(ArtifactError, match="it is not a record of hashes"):
        load("w-v0")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"total_steps": 10**12}, "take .* GB in memory"),
        ({"total_steps": -1}, "is empty"),
        ({"total_episodes": "3"}, "total_episodes: it is not of the type int"),
        ({"observation_space": json.dumps({"type": "Discrete", "n": 10**12, "start": 0})}, "are too many"),
        ({"observation_space": json.dumps({"type": "Box", "shape": [10**6, 10**6], "low": 0, "high": 1})}, "too many"),
        ({"observation_space": "[" * 100}, "nested deeper"),
        ({"observation_space": json.dumps({"type": "Evil"})}, "observation_space"),
        ({"flowpolicies": [1]}, "flowpolicies: it is not of the type dict"),
        ({"data_format": "arrow"}, "trust=true"),
        ({"data_format": "evil"}, "trust=true"),
    ],
)
def test_declarations_are_checked_before_memory_is_used(
    record: Any, root: Path, values: dict[str, Any], message: str
) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    change_metadata(root / "w-v0", **values)
    with pytest.raises(ArtifactError, match=message):
        load("w-v0")


@pytest.mark.parametrize("kind", ["soft", "external", "file"])
def test_links_out_of_the_folder_are_refused(record: Any, root: Path, tmp_path: Path, kind: str) -> None:
    record("w-v0", "MinariWorld-v0", 1)
    main = root / "w-v0" / "data" / "main_data.hdf5"
    if kind == "file":
        main.rename(tmp_path / "other.hdf5")
        main.symlink_to(tmp_path / "other.hdf5")
    else:
        with h5py.File(tmp_path / "other.hdf5", "w") as file:
            file["x"] = np.zeros(9)
        with h5py.File(main, "a") as file:
            del file["episode_0/rewards"]
            link = h5py.SoftLink("/episode_0/terminations") if kind == "soft" else None
            file["episode_0/rewards"] = link or h5py.ExternalLink(str(tmp_path / "other.hdf5"), "/x")
    with pytest.raises(ArtifactError, match="it is a link"):
        load("w-v0")


def test_images_are_jpeg_of_the_declared_size(record: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would start Ghostscript for an image in EPS."""
    record("w-v0", "MinariImageWorld-v0", 1)
    main, place = root / "w-v0" / "data" / "main_data.hdf5", "episode_0/observations"
    with h5py.File(main, "a") as file:
        count = len(file[place])

    def replace(encoded: bytes) -> None:
        with h5py.File(main, "a") as file:
            del file[place]
            file.create_dataset(place, (count,), h5py.vlen_dtype(np.uint8))[:] = [
                np.frombuffer(encoded, np.uint8)
            ] * count

    replace(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 33 40\n%%EndComments\n(%pipe%touch x) (w) file\n")
    with pytest.raises(ArtifactError, match="UnidentifiedImageError"):
        load("w-v0")
    path = root / "huge.jpg"
    Image.new("L", (4000, 4000)).save(path)
    replace(path.read_bytes())
    with pytest.raises(ArtifactError, match=r"has \(4000, 4000\) pixels, and its space the shape"):
        load("w-v0")
