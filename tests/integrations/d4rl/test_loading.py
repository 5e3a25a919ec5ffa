from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_server import answer, running_server

from flowpolicies.data import load_dataset, normalized_score
from flowpolicies.data.sources import environment_of
from flowpolicies.reproduction.presets import iterate_presets
from flowpolicies_d4rl import loading
from flowpolicies_d4rl.names import TASKS, find_task


def test_presets_name_datasets_that_there_are() -> None:
    named = {preset.dataset.removeprefix("d4rl:") for preset in iterate_presets() if preset.suite.startswith("d4rl")}
    assert len(named) > 30
    assert named <= set(TASKS)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        (
            "antmaze-umaze-v2",
            "ant_maze_v2/Ant_maze_u-maze_noisy_multistart_False_multigoal_False_sparse_fixed.hdf5",
        ),
        (
            "antmaze-large-diverse-v0",
            "ant_maze_new/Ant_maze_hardest-maze_noisy_multistart_True_multigoal_True_sparse.hdf5",
        ),
        ("pen-cloned-v0", "hand_dapg/pen-demos-v0-bc-combined.hdf5"),
        ("door-human-v1", "hand_dapg_v1/door-human-v1.hdf5"),
        ("hopper-medium-replay-v2", "gym_mujoco_v2/hopper_medium_replay-v2.hdf5"),
        ("kitchen-mixed-v0", "kitchen/kitchen_microwave_kettle_bottomburner_light-v0.hdf5"),
    ],
)
def test_files(name: str, file: str) -> None:
    assert find_task(name).file == file


def test_mazes_are_read_as_papers_read_them(put: Any) -> None:
    """The rows are those of `qlearning_dataset`, masks are 1 - terminals, and trajectories end where rows are cut."""
    terminals = np.zeros(40, bool)
    terminals[[5, 6, 7, 30]] = True
    columns = put("antmaze-large-play-v2", terminals=terminals, rewards=terminals.astype(np.float32))
    dataset = load_dataset("d4rl:antmaze-large-play-v2")
    rows = np.setdiff1d(np.arange(39), [9, 24])
    np.testing.assert_array_equal(dataset.observations, columns["observations"][rows])
    np.testing.assert_array_equal(dataset.next_observations, columns["observations"][rows + 1])
    np.testing.assert_array_equal(dataset.rewards, terminals[rows])
    np.testing.assert_array_equal(dataset.masks, ~terminals[rows])
    following = np.linalg.norm(columns["observations"][rows[1:]] - columns["observations"][rows[:-1] + 1], axis=1)
    np.testing.assert_array_equal(dataset.terminals[:-1], following > 1e-6)
    assert dataset.num_episodes == 3
    assert np.abs(dataset.actions).max() == np.float32(1 - 1e-5)
    assert dataset.action_space.high.max() == 1
    assert dataset.provenance["source"] == "d4rl"
    np.testing.assert_allclose(normalized_score(dataset, [0.0, 0.5]), [0, 50])


def test_hands_end_where_they_terminate_or_time_out(put: Any) -> None:
    terminals = np.zeros(150, bool)
    terminals[20] = True
    put("pen-human-v0", (45, 24), 150, terminals=terminals, timeouts=None)
    dataset = load_dataset("d4rl:pen-human-v0")
    np.testing.assert_array_equal(dataset.episode_lengths, [21, 99, 28])  # Rows 120 and 149 are dropped.
    assert normalized_score(dataset, 3076.8331017826877) == pytest.approx(100)


@pytest.mark.parametrize(("name", "sizes"), [("pen-human-v1", (45, 24)), ("antmaze-umaze-v2", (29, 8))])
def test_storage_and_compact_data(name: str, sizes: tuple[int, int], put: Any, tmp_path: Path) -> None:
    terminals = np.arange(40) % 6 == 2
    columns, address = put(name, sizes, terminals=terminals), f"d4rl:{name}"
    plain = load_dataset(address)
    mapped = load_dataset(address, storage="memmap", compact=True, cache_dir=tmp_path / "cache")
    assert mapped.final_observations is not None
    assert mapped.fingerprint == plain.fingerprint == load_dataset(address, compact=True).fingerprint
    whole = load_dataset(f"{address},clip_actions=false", storage="memmap", cache_dir=tmp_path / "cache")
    assert np.abs(whole.actions).max() == np.abs(columns["actions"]).max() == 1


def test_a_folder_of_ones_own(put: Any, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("pen-human-v1", (45, 24))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "elsewhere"))
    address = f"d4rl:pen-human-v1,data_dir={data_dir}"
    assert load_dataset(address).num_episodes == 3
    assert environment_of(address) == "d4rl:pen-human-v1"


def test_downloads(data_dir: Path, put: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put("pen-human-v1", (45, 24))
    here = data_dir / "pen-human-v1.hdf5"
    content = here.read_bytes()
    here.unlink()
    with pytest.raises(FileNotFoundError, match=r"no file '.*pen-human-v1.hdf5'.*hand_dapg_v1/pen-human-v1.hdf5"):
        load_dataset("d4rl:pen-human-v1")
    monkeypatch.delenv("FLOWPOLICIES_OFFLINE")
    with running_server() as server:
        server.script = [answer(content)]
        monkeypatch.setattr(loading, "SERVER", server.url.rpartition("/")[0])
        assert len(load_dataset("d4rl:pen-human-v1")) == 37
        assert [path for path, _ in server.requests] == ["/hand_dapg_v1/pen-human-v1.hdf5"]
        assert load_dataset("d4rl:pen-human-v1", download=False, full_check=True).num_episodes == 3
        here.write_bytes(content[:2000])
        with pytest.warns(UserWarning, match="pen-human-v1"):
            assert len(load_dataset("d4rl:pen-human-v1")) == 37
        assert here.with_name("pen-human-v1.hdf5.broken-1").is_file()


@pytest.mark.parametrize(
    ("columns", "size", "message"),
    [
        ({"rewards": None}, None, r"lacks \['rewards'\]"),
        ({}, 0, "it is not an HDF5 file"),
        ({}, 5000, "it is damaged, or only a part of a file"),
    ],
)
def test_wrong_files(columns: dict[str, Any], size: int | None, message: str, put: Any, data_dir: Path) -> None:
    put("pen-human-v1", (45, 24), **columns)
    path = data_dir / "pen-human-v1.hdf5"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=message):
        load_dataset("d4rl:pen-human-v1")


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"unknown D4RL dataset 'antmaze-large-play-v1'\. Did you mean 'antmaze-large"):
        load_dataset("d4rl:antmaze-large-play-v1")
