"""Folders of Minari datasets are downloaded once and checked at each loading, and errors explain what is wrong."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import h5py
import minari
import pytest
from minari_worlds import change_metadata

from flowpolicies_minari import folder, load


def test_a_data_folder_alone_is_no_dataset(root: Path) -> None:
    (root / "half-v0" / "data").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"'half-v0' is incomplete: .* has no metadata\.json\. Delete the folder") as e:
        load("half-v0", download=False)
    assert "minari download half-v0" in str(e.value)


def test_missing_hdf5(record: Any, root: Path) -> None:
    record("half-v0", "MinariWorld-v0")
    (root / "half-v0" / "data" / "main_data.hdf5").unlink()
    with pytest.raises(ValueError, match=r"'half-v0' is incomplete: .* has no main_data\.hdf5"):
        load("half-v0", download=False)


def test_half_a_file(record: Any, root: Path) -> None:
    record("half-v0", "MinariWorld-v0")
    path = root / "half-v0" / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot read episode 0 of the 3 of Minari dataset 'half-v0'"):
        load("half-v0")
    assert not (root / "half-v0" / "flowpolicies.json").exists()


def test_missing_episodes(record: Any, root: Path) -> None:
    record("half-v0", "MinariWorld-v0")
    with h5py.File(root / "half-v0" / "data" / "main_data.hdf5", "a") as file:
        del file["episode_2"]
    with pytest.raises(ValueError, match="cannot read episode 2 of the 3 of Minari dataset 'half-v0'"):
        load("half-v0")


@pytest.mark.parametrize(("change", "message"), [(1, "say .* steps in 3 episodes, but the"), (-1, "exceeds the")])
def test_other_numbers_of_steps(record: Any, root: Path, change: int, message: str) -> None:
    witnessed = record("half-v0", "MinariWorld-v0")
    change_metadata(root / "half-v0", total_steps=sum(len(one["actions"]) for one in witnessed) + change)
    with pytest.raises(ValueError, match=message):
        load("half-v0")


def test_damaged_metadata(record: Any, root: Path) -> None:
    record("half-v0", "MinariWorld-v0")
    change_metadata(root / "half-v0", total_steps=None)
    with pytest.raises(ValueError, match=r"lacks \['total_steps'\], so it does not describe a Minari dataset"):
        load("half-v0")
    (root / "half-v0" / "data" / "metadata.json").write_text("{")
    with pytest.raises(ValueError, match=r"metadata.json': it is damaged"):
        load("half-v0")


def test_an_incomplete_dataset_that_nobody_else_has(record: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("half-v0", "MinariWorld-v0")
    (root / "half-v0" / "data" / "main_data.hdf5").unlink()

    def download(*_: Any, **__: Any) -> None:
        raise ValueError("unknown")

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(ValueError, match=r"incomplete on this machine \(.*no main_data.hdf5\), .* downloaded: unknown"):
        load("half-v0")


def test_metadata_without_spaces_make_no_environment(record: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("half-v0", "MinariWorld-v0")
    change_metadata(root / "half-v0", observation_space=None)
    monkeypatch.setattr(gym, "make", None)
    with pytest.raises(ValueError, match=r"lacks \['observation_space'\]"):
        load("half-v0")


def test_an_empty_dataset(write: Any) -> None:
    write("empty-v0", [])
    with pytest.raises(ValueError, match="'empty-v0' is empty: its metadata say 0 episodes of 0 steps"):
        load("empty-v0")


def test_other_versions_of_minari(record: Any, root: Path) -> None:
    record("new-v0", "MinariWorld-v0")
    change_metadata(root / "new-v0", minari_version="9.9")
    with pytest.raises(ValueError, match=r"written by Minari 9\.9, which the installed .* pip install -U minari"):
        load("new-v0")


def test_files_are_checked_from_the_first_reading_on(record: Any, root: Path) -> None:
    record("w-v0", "MinariWorld-v0")
    first = load("w-v0")
    assert load("w-v0").fingerprint == first.fingerprint
    with h5py.File(root / "w-v0" / "data" / "main_data.hdf5", "a") as file:
        file["episode_1"]["rewards"][0] = 100
    with pytest.raises(ValueError, match=r"\['main_data.hdf5'\] in .* changed\. The files are damaged") as error:
        load("w-v0")
    record_file = root / "w-v0" / "flowpolicies.json"
    assert f"If the change was intended, delete '{record_file}'" in str(error.value)
    record_file.unlink()
    assert load("w-v0").rewards.max() == 100


def test_a_folder_that_nobody_may_write_to(record: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("w-v0", "MinariWorld-v0")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(folder, "write_json", refuse)
    assert load("w-v0").num_episodes == 3
    assert not (root / "w-v0" / "flowpolicies.json").exists()


@pytest.mark.parametrize("name", ["pen", "D4RL/pen/human", "../x-v0", "a b-v0", "/x-v0"])
def test_other_names_are_explained(name: str) -> None:
    with pytest.raises(ValueError, match=r"is not a Minari dataset id\. Ids look like 'D4RL/pen/human-v2', with the"):
        load(name)


def test_a_missing_dataset(record: Any, root: Path) -> None:
    record("worlds/random-v0", "MinariWorld-v0")
    with pytest.raises(FileNotFoundError, match=r"is not on this machine .* minari download worlds/randon-v0") as error:
        load("worlds/randon-v0", download=False)
    assert str(error.value).endswith("Did you mean 'worlds/random-v0'?")
    with pytest.raises(ValueError, match=r"Did you mean 'worlds/random-v0'\?"):
        load("worlds/random")


def test_downloads_are_minaris(record: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record("far/away-v0", "MinariWorld-v0")
    root.rename(tmp_path / "remote")
    calls = []

    def download(name: str, force_download: bool = False) -> None:
        calls.append((name, force_download, os.environ["MINARI_DATASETS_PATH"]))
        print("noise")
        target = Path(os.environ["MINARI_DATASETS_PATH"]) / "far/away-v0"
        shutil.copytree(tmp_path / "remote" / "far/away-v0", target, dirs_exist_ok=True)

    monkeypatch.setattr(minari, "download_dataset", download)
    assert load("hf://someone/far/away-v0", data_dir=tmp_path / "here").num_episodes == 3
    assert calls == [("hf://someone/far/away-v0", False, str(tmp_path / "here"))]
    load("far/away-v0", data_dir=tmp_path / "here")
    assert len(calls) == 1
    (tmp_path / "here/far/away-v0/data/main_data.hdf5").unlink()  # An interrupted download can leave this.
    load("far/away-v0", data_dir=tmp_path / "here")
    assert calls[1] == ("far/away-v0", True, str(tmp_path / "here"))
    path = tmp_path / "remote/far/away-v0/data/main_data.hdf5"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cannot read episode 0"):
        load("far/away-v0", data_dir=tmp_path / "third")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (
            OSError("no route"),
            ConnectionError,
            r"'some/b-v0' is not on this machine .* OSError\('no route'\)\. Run .* on a machine with a",
        ),
        (RuntimeError("offline"), ConnectionError, r"copy the folder to '.*minari/some/b-v0'"),
        (ImportError("no huggingface_hub"), ImportError, r'pip install "flowpolicies\[minari\]"'),
        (ValueError("Couldn't find any version"), ValueError, "cannot be downloaded: Couldn't find any version"),
    ],
)
def test_downloads_that_fail(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception], message: str
) -> None:
    def download(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr(minari, "download_dataset", download)
    with pytest.raises(expected, match=message):
        load("some/b-v0")


def test_offline_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(minari, "download_dataset", calls.append)
    monkeypatch.setenv("FLOWPOLICIES_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"downloads are turned off \(FLOWPOLICIES_OFFLINE or"):
        load("some/b-v0")
    assert not calls


def test_seeds_that_start_together_download_once(record: Any, root: Path, tmp_path: Path) -> None:
    record("far/away-v0", "MinariWorld-v0")
    root.rename(tmp_path / "remote")
    calls = []

    def download(name: str, force_download: bool = False) -> None:
        calls.append(name)
        time.sleep(0.05)
        shutil.copytree(tmp_path / "remote", root, dirs_exist_ok=True)

    found: list[int] = []
    with patch.object(minari, "download_dataset", download):
        threads = [threading.Thread(target=lambda: found.append(len(load("far/away-v0")))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 4
    assert calls == ["far/away-v0"]
