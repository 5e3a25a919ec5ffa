"""Folders from strangers: an index names only files inside its folder, and they are what it says, before training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import pendulum_data

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import load_dataset, open_memmap, write_memmap
from flowpolicies.data.formats import mapped


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_memmap(tmp_path / "data", pendulum_data(100))


def change(folder: Path, function: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "index.json"
    index = json.loads(path.read_text())
    function(index)
    path.write_text(json.dumps(index))


def set_file(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda index: index["columns"]["rewards"].update(file=name)


@pytest.mark.parametrize(
    "name",
    ["../rewards.npy", "/etc/passwd", "", ".", "..", "a/../rewards.npy", "sub/x.npy", "..\\x", "x\0y", "x" * 5000],
)
def test_files_outside_of_the_folder_are_not_opened(folder: Path, name: str) -> None:
    (folder.parent / "rewards.npy").write_bytes((folder / "rewards.npy").read_bytes())
    change(folder, set_file(name))
    with pytest.raises(ArtifactError, match=r"index\.json"):
        open_memmap(folder)


@pytest.mark.parametrize("name", ["rewards.npy", "index.json"])
def test_links_out_of_the_folder_are_not_followed(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)
    with pytest.raises(ArtifactError, match=r"it is a link to '.*', which is not in the folder"):
        open_memmap(folder)


def test_links_to_the_folder_and_inside_of_it_are_followed(folder: Path) -> None:
    (folder / "rewards.npy").rename(folder / "renamed.npy")
    (folder / "rewards.npy").symlink_to("renamed.npy")
    (folder.parent / "link").symlink_to(folder)
    assert len(open_memmap(folder.parent / "link")) == 100


def test_pipes_are_not_opened(folder: Path) -> None:
    (folder / "rewards.npy").unlink()
    os.mkfifo(folder / "rewards.npy")
    with pytest.raises(ArtifactError, match="it is not a file"):
        open_memmap(folder)


@pytest.mark.parametrize("where", [0, 9, 60, -1, -200])
def test_a_changed_byte_is_found_when_a_folder_is_opened(folder: Path, where: int) -> None:
    path = folder / "rewards.npy"
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=str(folder)):
        open_memmap(folder)


@pytest.mark.parametrize("size", [-1, 4, -300])
@pytest.mark.parametrize("in_index", [False, True])
def test_short_and_long_files_are_found(folder: Path, size: int, in_index: bool) -> None:
    path = folder / "rewards.npy"
    os.truncate(path, path.stat().st_size + size)
    if in_index:
        change(folder, lambda index: index["columns"]["rewards"].update(bytes=path.stat().st_size))
    with pytest.raises(ArtifactError, match=r"rewards\.npy': it has \d+ bytes"):
        open_memmap(folder)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda i: i.update(fingerprint="0" * 64), "its arrays have the fingerprint"),
        (lambda i: i.update(fingerprint="x"), "'fingerprint' is not a SHA-256"),
        (lambda i: i.update(rows=99), "'shard_ends' do not ascend to the 99 rows"),
        (lambda i: i.update(rows=99, shard_ends=[99]), "it has not the 99 rows"),
        (lambda i: i.update(rows="100"), "'rows' is missing, or of another type"),
        (lambda i: i.update(shard_ends=[50, 40, 100]), "'shard_ends' do not ascend"),
        (lambda i: i["columns"].pop("masks"), "it has the columns"),
        (lambda i: i["columns"].update(more=i["columns"]["masks"]), "it has the columns"),
        (lambda i: i["columns"]["masks"].update(dtype="<f8"), "and the index says '<f8'"),
        (lambda i: i["columns"]["masks"].update(shape=[100, 1]), "it holds .* and the index says"),
        (lambda i: i["columns"].update(masks=i["columns"]["actions"]), "masks have shape"),
        (lambda i: i["columns"].update(masks=3), "the entry of column 'masks' is damaged"),
        (lambda i: i["observation_space"].update(shape=[10**6, 10**6]), "are too many"),
        (lambda i: i["observation_space"].update(shape=[4], low=0, high=1), "observations have shape"),
        (lambda i: i["action_space"].update(type="Discrete", n=2, start=0, dtype="int64"), "action_space is Discrete"),
        (lambda i: i.update(provenance=[]), "'provenance' is missing, or of another type"),
        (lambda i: i.update(format=None), "it has format None"),
    ],
)
def test_what_an_index_declares_is_compared(folder: Path, function: Any, message: str) -> None:
    change(folder, function)
    with pytest.raises(ArtifactError, match=message):
        open_memmap(folder)


@pytest.mark.parametrize("ends", [[49, 98], [99, 49], [-1, 99], [49, 49, 99], [99]])
def test_ends_of_episodes_are_checked(folder: Path, ends: list[int]) -> None:
    np.save(folder / "episode_ends.npy", np.array(ends))
    size = (folder / "episode_ends.npy").stat().st_size
    change(folder, lambda i: i["columns"]["episode_ends"].update(bytes=size, shape=[len(ends)]))
    with pytest.raises(ArtifactError, match="episode_ends"):
        open_memmap(folder)


def test_deep_and_long_indices_are_refused(folder: Path) -> None:
    (folder / "index.json").write_text("[" * 1000)
    with pytest.raises(ArtifactError, match="nested deeper"):
        open_memmap(folder)
    with open(folder / "index.json", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ArtifactError, match="bytes; at most 16,777,216 are read"):
        open_memmap(folder)


def test_large_folders_are_sampled_and_verified_on_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "SMALL", 0)
    assert len(load_dataset(f"memmap:{folder}")) == 100
    change(folder, lambda index: index.update(fingerprint="0" * 64))
    assert open_memmap(folder).fingerprint == "0" * 64
    with pytest.raises(ArtifactError, match="its arrays have the fingerprint"):
        load_dataset(f"memmap:{folder},verify=true")
    with pytest.raises(ValueError, match="verify is 'yes', and must be true or false"):
        load_dataset(f"memmap:{folder},verify=yes")
    content = bytearray((folder / "rewards.npy").read_bytes())
    content[-1] ^= 1
    (folder / "rewards.npy").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"rewards\.npy': its content was changed after it was written"):
        open_memmap(folder)
    change(folder, lambda index: [entry.pop("sample") for entry in index["columns"].values()])
    assert len(open_memmap(folder)) == 100  # As older versions wrote it.


def test_samples_cover_both_ends_of_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    content = bytearray(np.random.default_rng(0).bytes(3 << 20))
    path.write_bytes(content)
    sample = mapped.sample_of(path)
    for where in (0, len(content) - 1):
        content[where] ^= 1
        path.write_bytes(content)
        assert mapped.sample_of(path) != sample
        content[where] ^= 1
    path.write_bytes(content)
    assert mapped.sample_of(path) == sample
