"""Files of OGBench's datasets that are found, downloaded, generated, damaged or refused."""

import hashlib
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import Server, answer, refuse, running_server
from gymnasium.spaces import Box

from flowpolicies.data import DataFault, read_npz, write_npz
from flowpolicies_ogbench import loading, make_env, reading
from flowpolicies_ogbench.loading import load

POINTMAZE = "pointmaze-medium-navigate-singletask-task1-v0"
FILE = "pointmaze-medium-navigate-v0.npz"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A local server that takes the place of OGBench's."""
    monkeypatch.delenv("FLOWPOLICIES_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(loading, "GENERATED_DATA_DIR", tmp_path / "generated")
    with running_server() as server:
        monkeypatch.setattr(loading, "DATASET_URL", server.url.removesuffix("/data.npz"))
        yield server


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_missing_file_without_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("FLOWPOLICIES_OFFLINE", "1" if how == "environment" else "")
    message = (
        r"no file '.*pointmaze-medium-navigate-v0\.npz', and downloads are off .* Or run "
        r"`flowpolicies data generate ogbench:pointmaze-medium-navigate-singletask-task1-v0`, and load it without"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load(POINTMAZE, data_dir=tmp_path, download=how == "environment")
    assert server.requests == []


def test_what_cannot_be_generated_is_not_advised(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"antmaze-large-navigate-v0\.npz'") as caught:
        load("antmaze-large-navigate-singletask-v0", data_dir=tmp_path, download=False)
    assert "data generate" not in str(caught.value)


def test_a_generated_file_elsewhere_is_pointed_at(
    pointmaze_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "GENERATED_DATA_DIR", pointmaze_data)
    with pytest.raises(FileNotFoundError, match=rf"Or use the generated data: pass data_dir='{pointmaze_data}'"):
        load(POINTMAZE, data_dir=tmp_path, download=False)


def test_generated_data_is_found_where_generate_puts_it(
    pointmaze_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "GENERATED_DATA_DIR", pointmaze_data)
    monkeypatch.setattr(loading, "PUBLISHED_DATA_DIR", tmp_path)
    with pytest.warns(
        UserWarning, match=rf"using the data that `flowpolicies data generate` made in '{pointmaze_data}'"
    ):
        found = load(POINTMAZE)
    assert found.provenance["generated"]["seed"] == 7
    for name in (FILE, FILE.replace(".npz", "-val.npz")):
        shutil.copy(pointmaze_data / name, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        published = load(POINTMAZE, download=False)
    assert "generated" not in published.provenance
    assert published.provenance["sha256"] == hashlib.sha256((pointmaze_data / FILE).read_bytes()).hexdigest()


def test_a_failing_download_is_explained(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [refuse(404)]
    message = (
        rf"cannot download '{loading.DATASET_URL}/{FILE}': the server answered 404 Not Found\. Try again later, or put "
        rf"the file at '{tmp_path}/new/{FILE}' by hand\. Or run `flowpolicies data generate ogbench:pointmaze-"
    )
    with pytest.raises(ConnectionError, match=message + r".*`, and load it without data_dir\.$"):
        load(POINTMAZE, data_dir=tmp_path / "new")
    monkeypatch.setattr(loading, "PUBLISHED_DATA_DIR", tmp_path / "new")
    with pytest.raises(ConnectionError, match=message + r"[^`]*`\.$"):
        load(POINTMAZE)


def test_a_download_is_checked_recorded_and_made_once(server: Server, pointmaze_data: Path, tmp_path: Path) -> None:
    content = (pointmaze_data / FILE).read_bytes()
    server.script = [answer(content)]
    first, second = load(POINTMAZE, data_dir=tmp_path), load(POINTMAZE, data_dir=tmp_path, full_check=True)
    assert first.fingerprint == second.fingerprint == load(POINTMAZE, data_dir=pointmaze_data).fingerprint
    assert [path for path, _ in server.requests] == [f"/{FILE}"]
    assert first.provenance["sha256"] == hashlib.sha256(content).hexdigest()
    load(POINTMAZE.replace("task1", "task2"), data_dir=tmp_path, download=False)


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda content: content[:-100], "is not an .npz file, or only a part of one"),
        (lambda content: content[:5000] + b"????" + content[5004:], "array 'observations' is damaged"),
        (lambda _: b"<html>Please log in</html>", "is not an .npz file"),
    ],
    ids=["half", "flipped", "log-in"],
)
def test_a_damaged_download_is_repeated(
    server: Server, pointmaze_data: Path, tmp_path: Path, damage: Callable[[bytes], bytes], fault: str
) -> None:
    content = (pointmaze_data / FILE).read_bytes()
    server.script = [answer(damage(content)), answer(content)]
    assert load(POINTMAZE, data_dir=tmp_path).fingerprint == load(POINTMAZE, data_dir=pointmaze_data).fingerprint
    broken = tmp_path / f"{FILE}.broken-1"
    with pytest.raises(ValueError, match=fault):
        loading._check(broken)


def test_pinned_hashes_are_checked(
    server: Server, pointmaze_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (pointmaze_data / FILE).read_bytes()
    monkeypatch.setitem(loading.SHA256, FILE, hashlib.sha256(content).hexdigest())
    other = (pointmaze_data / FILE.replace(".npz", "-val.npz")).read_bytes()
    server.script = [answer(other), answer(content)]
    load(POINTMAZE, data_dir=tmp_path)
    assert (tmp_path / f"{FILE}.broken-1").read_bytes() == other


def test_damaged_files_are_explained(server: Server, pointmaze_data: Path, tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes((pointmaze_data / FILE).read_bytes()[:-100])
    message = r"is not the requested file \(it is not an \.npz file, or only a part of one\), and downloads are off"
    with pytest.raises(ValueError, match=message):
        load(POINTMAZE, data_dir=tmp_path, download=False)
    server.script = [answer((pointmaze_data / FILE).read_bytes())]
    with pytest.warns(UserWarning, match=rf"it was renamed to '{FILE}\.broken-1', and is downloaded again"):
        load(POINTMAZE, data_dir=tmp_path)
    (tmp_path / "other").mkdir()
    arrays = read_npz(pointmaze_data / FILE)
    del arrays["qpos"]
    write_npz(tmp_path / "other" / FILE, arrays)
    with pytest.raises(ValueError, match=r"cannot read it as OGBench data: 'qpos'"):
        load(POINTMAZE, data_dir=tmp_path / "other")


def test_generated_files_are_not_compared_with_published_ones(
    server: Server, pointmaze_data: Path, tmp_path: Path
) -> None:
    server.script = [answer((pointmaze_data / FILE).read_bytes())]
    load(POINTMAZE, data_dir=tmp_path)
    shutil.copytree(pointmaze_data, tmp_path, dirs_exist_ok=True)
    os.utime(tmp_path / FILE, ns=(0, 0))
    dataset = load(POINTMAZE, data_dir=tmp_path, full_check=True)
    assert "sha256" not in dataset.provenance
    assert len(server.requests) == 1


def test_unknown_splits_and_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown split 'test' of 'pointmaze-.*' \(known: train, val\)\."):
        load(POINTMAZE, data_dir=tmp_path, split="test")
    with pytest.raises(ValueError, match="'pointmaze-medium-v0' is not the name of an OGBench dataset: it contains no"):
        load("pointmaze-medium-v0", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observations": np.zeros((12, 2))}, r"observations have shape \(12, 2\), but there are 8 terminals"),
        ({"actions": np.zeros((9, 2))}, r"actions have shape \(9, 2\), but there are 8 terminals"),
        ({"qpos": np.zeros((20, 2))}, r"qpos have shape \(20, 2\), but there are 8 terminals"),
        (
            {"qpos": np.where(np.arange(16).reshape(8, 2) == 11, np.nan, 0)},
            r"qpos are NaN .* row 5 \(episode 1, step 1\)",
        ),
        ({"actions": np.where(np.arange(16).reshape(8, 2) == 10, 5, 0)}, r"1 of 6 actions .* \(episode 1, step 1\)"),
        (
            {"terminals": np.array([0, 0, 0, 1, 0, 0, 0, 0])},
            r"last of its 8 states does not end .* the data is missing",
        ),
        ({"terminals": np.array([0, 0, 0, 2, 0, 0, 0, 1])}, r"terminals must be 0 or 1, but row 3 has 2\. If"),
        ({"observations": np.full((8, 2), b"0.12")}, r"its columns: observations are \|S4, not numbers\. Convert"),
        ({"actions": np.full((8, 2), b"0.1")}, r"its columns: actions are \|S3, not numbers"),
        ({"terminals": np.zeros((8, 1))}, r"terminals have shape \(8, 1\)"),
        ({"terminals": np.ones(8)}, "it has 8 states but no transition"),
    ],
    ids=str,
)
def test_files_with_wrong_columns_are_refused(
    server: Server, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    arrays = {
        "observations": np.zeros((8, 2)),
        "actions": np.zeros((8, 2)),
        "terminals": np.array([0, 0, 0, 1, 0, 0, 0, 1]),
        "qpos": np.zeros((8, 2)),
    }
    write_npz(tmp_path / FILE, arrays | changes)
    with pytest.raises(DataFault, match=rf"dataset '{POINTMAZE}': .*{message}"):
        load(POINTMAZE, data_dir=tmp_path, download=False)


def test_images_that_are_no_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Floats in [0, 1] would all become 0 as bytes."""
    arrays = {"observations": np.full((3, 64, 64, 3), 0.5), "actions": np.zeros((3, 5)), "terminals": [0, 0, 1]}
    columns = {key: np.asarray(array) for key, array in arrays.items()}
    write_npz(tmp_path / "visual-cube-single-play-v0.npz", {**columns, "qpos": np.zeros((3, 21))})
    env: Any = make_env("cube-single-play-singletask-v0")
    env.observation_space = Box(0, 255, (3, 64, 64), np.uint8)
    monkeypatch.setattr(reading, "make_env", lambda *_, **__: env)
    with pytest.raises(ValueError, match=r"observations are float64, but images must be bytes \(uint8\)"):
        load("visual-cube-single-play-singletask-v0", data_dir=tmp_path)
