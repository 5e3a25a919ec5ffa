import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import ogbench
import pytest

from flowpolicies.data import read_npz, write_npz
from flowpolicies_ogbench import episode_folder, generate, load
from flowpolicies_ogbench.generation import _find_recipe
from flowpolicies_ogbench.manipulation import ManipulationCollector, _cube_stays_visible
from flowpolicies_ogbench.names import parse_name
from flowpolicies_ogbench.pointmaze import PointMazeCollector

POINTMAZE = "pointmaze-medium-navigate-singletask-v0"
STITCH = "pointmaze-medium-stitch-singletask-v0"
FILE = "pointmaze-medium-navigate-v0.npz"

pytestmark = pytest.mark.usefixtures("global_numpy_state")


def assert_same_rows(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for key, array in a.items():
            np.testing.assert_array_equal(array, b[key])


def test_files_have_the_format_of_ogbench(pointmaze_data: Path) -> None:
    for path, episodes in ((pointmaze_data / FILE, 3), (pointmaze_data / "pointmaze-medium-navigate-v0-val.npz", 1)):
        arrays = read_npz(path)
        assert {key: array.dtype for key, array in arrays.items()} == {
            "observations": np.float32,
            "actions": np.float32,
            "qpos": np.float32,
            "qvel": np.float32,
            "terminals": np.bool_,
        }
        np.testing.assert_array_equal(np.flatnonzero(arrays["terminals"]), 501 * np.arange(1, episodes + 1) - 1)
        np.testing.assert_array_equal(arrays["observations"], arrays["qpos"])
        assert np.abs(arrays["actions"]).max() <= 1
    assert json.loads((pointmaze_data / "pointmaze-medium-navigate-v0.json").read_text()) == {
        "dataset": "pointmaze-medium-navigate-v0",
        "seed": 7,
        "num_episodes": 3,
        "max_episode_steps": 501,
        "workers": 1,
        "versions": json.loads((pointmaze_data / "pointmaze-medium-navigate-v0.json").read_text())["versions"],
    }


def test_the_data_does_not_depend_on_the_number_of_workers(pointmaze_data: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"num_episodes": 3, "max_episode_steps": 501, "seed": 7}
    path = generate(POINTMAZE, data_dir=tmp_path, workers=2, progress=False, **arguments)
    assert path == tmp_path / FILE
    for name in (FILE, "pointmaze-medium-navigate-v0-val.npz"):
        assert (tmp_path / name).read_bytes() == (pointmaze_data / name).read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in pointmaze_data.iterdir())


def test_more_episodes_begin_with_the_same_ones(pointmaze_data: Path, tmp_path: Path) -> None:
    path = generate(POINTMAZE, data_dir=tmp_path, num_episodes=2, max_episode_steps=501, seed=7, progress=False)
    np.testing.assert_array_equal(read_npz(path)["actions"], read_npz(pointmaze_data / FILE)["actions"][:1002])


def test_a_finished_run_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments: dict[str, Any] = {"data_dir": tmp_path, "num_episodes": 1, "max_episode_steps": 5}
    path = generate(POINTMAZE, **arguments, seed=3)
    assert "pointmaze-medium-navigate-v0: 100%" in capsys.readouterr().err
    old = path.stat().st_mtime_ns, path.read_bytes()
    assert generate(POINTMAZE, **arguments, seed=3, workers=2) == path  # Workers change nothing.
    assert (path.stat().st_mtime_ns, path.read_bytes()) == old
    message = (
        r"has 'pointmaze-medium-navigate-v0' with seed=3 instead of 4\. Pass overwrite=True \(--overwrite\) to replace"
    )
    with pytest.raises(FileExistsError, match=message):
        generate(POINTMAZE, **arguments, seed=4)
    generate(POINTMAZE, **arguments, seed=4, overwrite=True, progress=False)
    assert path.read_bytes() != old[1]
    assert capsys.readouterr().err == ""


def test_files_of_others_are_kept(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("published")
    with pytest.raises(FileExistsError, match="has files of 'pointmaze-medium-navigate-v0' that do not come from"):
        generate(POINTMAZE, data_dir=tmp_path, num_episodes=1, max_episode_steps=5)
    assert (tmp_path / FILE).read_text() == "published"


def test_the_walk_takes_the_subgoals_of_ogbench() -> None:
    collector = PointMazeCollector(parse_name(POINTMAZE), num_steps=2)
    env, generator = collector._env, np.random.default_rng(0)
    assert len(collector._free) == 26
    for _ in range(50):
        start, goal = (collector._free[generator.integers(26)] for _ in range(2))
        position = np.array(env.ij_to_xy(start)) + generator.uniform(-1.9, 1.9, 2)
        expected, _ = env.get_oracle_subgoal(position, env.ij_to_xy(goal))
        np.testing.assert_array_equal(collector._subgoal(env.xy_to_ij(position), goal), expected)


def test_goals_are_not_in_hallways() -> None:
    collector = PointMazeCollector(parse_name(POINTMAZE), num_steps=2)
    hallways = set(collector._free) - set(collector._vertices)
    maze = collector._env.maze_map
    for i, j in hallways:
        assert (maze[i - 1, j], maze[i + 1, j], maze[i, j - 1], maze[i, j + 1]) in {(0, 0, 1, 1), (1, 1, 0, 0)}
    assert (3, 3) in hallways
    assert (1, 1) in collector._vertices  # A corner.
    assert (6, 6) in collector._vertices  # A dead end.


def test_navigate_changes_its_goal_and_stitch_does_not() -> None:
    navigate, stitch = (PointMazeCollector(parse_name(name), num_steps=501) for name in (POINTMAZE, STITCH))
    navigate([7, 0, 0])
    stitch([0])
    assert len({goal for _, goal in navigate._subgoals}) > 1
    (goal,) = {goal for _, goal in stitch._subgoals}
    start = next(iter(stitch._subgoals))[0]
    env = stitch._env
    _, distances = env.get_oracle_subgoal(env.ij_to_xy(start), env.ij_to_xy(start))
    assert distances[goal] == 4
    assert np.isfinite(navigate._env.model.geom("target").pos).all()


@pytest.mark.parametrize(
    ("name", "num_episodes", "num_steps"),
    [
        ("pointmaze-large-navigate-singletask-v0", 1000, 1001),
        ("pointmaze-giant-navigate-singletask-v0", 500, 2001),
        ("pointmaze-giant-stitch-singletask-v0", 5000, 201),
        ("cube-triple-noisy-singletask-v0", 3000, 1001),
        ("cube-octuple-play-1b-v0", 1_000_000, 1001),
        ("puzzle-4x6-play-singletask-v0", 5000, 1001),
    ],
)
def test_recipes_are_those_of_the_published_data(name: str, num_episodes: int, num_steps: int) -> None:
    assert _find_recipe(name, parse_name(name))[1:] == (num_episodes, num_steps)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("antmaze-medium-navigate-singletask-v0", "its robot is controlled by policies that OGBench's authors"),
        ("humanoidmaze-large-stitch-v0", "its robot is controlled by policies that OGBench's authors"),
        ("visual-cube-single-play-singletask-v0", "datasets of images are not supported"),
        ("scene-explore-singletask-v0", "OGBench has no script for it"),
    ],
)
def test_other_datasets_cannot_be_generated(name: str, why: str, tmp_path: Path) -> None:
    message = (
        rf"'{name}' cannot be generated: {why}.* can be generated: pointmaze-\* with navigate, stitch, explore; cube-"
    )
    with pytest.raises(ValueError, match=message):
        generate(name, data_dir=tmp_path)


def test_large_sets_have_a_recipe() -> None:
    assert _find_recipe("", parse_name("puzzle-4x4-play-100m-v0"))[1:] == (100_000, 1001)
    assert _find_recipe("", parse_name("pointmaze-medium-explore-v0"))[1:] == (10_000, 501)


def arrays_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {str(path.relative_to(folder)): read_npz(path) for path in sorted(folder.rglob("*.npz"))}


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"num_episodes": 5, "max_episode_steps": 11, "progress": False}
    generate(POINTMAZE, data_dir=tmp_path / "at-once", **arguments)
    collected: list[list[int]] = []

    def collect(self: PointMazeCollector, seed: list[int]) -> list[dict[str, Any]]:
        if len(collected) == 3:
            raise KeyboardInterrupt
        collected.append(seed)
        return original(self, seed)

    original = PointMazeCollector.__call__
    monkeypatch.setattr(PointMazeCollector, "__call__", collect)
    with pytest.raises(KeyboardInterrupt):
        generate(POINTMAZE, data_dir=tmp_path / "twice", **arguments)
    assert collected == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    with pytest.raises(FileExistsError, match=r"contains the episodes of an interrupted run with seed=0\. Repeat that"):
        generate(POINTMAZE, data_dir=tmp_path / "twice", **arguments, seed=1)
    collected[:] = [[9]]  # So two more are collected before the interruption.
    with pytest.raises(KeyboardInterrupt):
        generate(POINTMAZE, data_dir=tmp_path / "twice", **{**arguments, "num_episodes": 6}, overwrite=True)
    monkeypatch.setattr(PointMazeCollector, "__call__", original)
    path = generate(POINTMAZE, data_dir=tmp_path / "twice", **arguments, overwrite=True)
    assert_same_arrays(arrays_of(path.parent), arrays_of(tmp_path / "at-once"))
    assert not (tmp_path / "twice" / ".pointmaze-medium-navigate-v0.parts").exists()


def test_only_missing_episodes_are_collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"num_episodes": 5, "max_episode_steps": 11, "progress": False, "shard_size": 20}
    generate(POINTMAZE, data_dir=tmp_path / "at-once", **arguments)
    collected: list[list[int]] = []

    def collect(self: PointMazeCollector, seed: list[int]) -> list[dict[str, Any]]:
        collected.append(seed)
        if len(collected) == 4:  # The first file, of two episodes, is complete; the second is not.
            raise KeyboardInterrupt
        return original(self, seed)

    original = PointMazeCollector.__call__
    monkeypatch.setattr(PointMazeCollector, "__call__", collect)
    with pytest.raises(KeyboardInterrupt):
        generate(POINTMAZE, data_dir=tmp_path / "twice", **arguments)
    path = generate(POINTMAZE, data_dir=tmp_path / "twice", **arguments)
    assert collected == [[0, 0, n] for n in (0, 1, 2, 3)] + [[0, 0, 3], [0, 0, 4], [0, 1, 0]]
    assert path == tmp_path / "twice" / "pointmaze-medium-navigate-v0"
    assert_same_arrays(arrays_of(tmp_path / "twice"), arrays_of(tmp_path / "at-once"))


def assert_same_arrays(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> None:
    assert list(first) == list(second)
    for name, arrays in first.items():
        assert_same_rows([arrays], [second[name]])


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = rf"cannot write 'pointmaze-medium-navigate-v0' to '{tmp_path}/file': File exists\. Solve that and repeat"
    with pytest.raises(FileExistsError, match=message):
        generate(POINTMAZE, data_dir=tmp_path / "file", num_episodes=1, max_episode_steps=5)


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"data_dir": tmp_path, "num_episodes": 3, "max_episode_steps": 5, "progress": False}
    written: list[Path] = []

    def fill_the_disk(path: Path, arrays: dict[str, Any]) -> Path:
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        return write_npz(path, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(episode_folder, "write_npz", fill_the_disk)
        message = rf"to '{tmp_path}': No space left on device\. Solve that and repeat the command"
        with pytest.raises(OSError, match=message):
            generate(POINTMAZE, **arguments)
    assert all(path.is_file() for path in written)
    assert len(read_npz(generate(POINTMAZE, **arguments))["actions"]) == 15


def test_shards_hold_what_one_file_would(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"num_episodes": 5, "max_episode_steps": 11, "progress": False}
    whole = generate(POINTMAZE, data_dir=tmp_path / "whole", **arguments)
    folder = generate(POINTMAZE, data_dir=tmp_path / "shards", **arguments, shard_size=29)
    name = "pointmaze-medium-navigate-v0"
    assert sorted(path.name for path in folder.iterdir()) == [f"{name}-{n:03d}.npz" for n in range(3)]
    assert (tmp_path / "shards" / f"{name}-val.npz").is_file()
    shards = [read_npz(path) for path in sorted(folder.iterdir())]
    assert [len(shard["actions"]) for shard in shards] == [22, 22, 11]
    for key, array in read_npz(whole).items():
        np.testing.assert_array_equal(np.concatenate([shard[key] for shard in shards]), array)
    assert generate(POINTMAZE, data_dir=tmp_path / "shards", **arguments) == folder  # It is done.
    dataset = load(POINTMAZE, data_dir=tmp_path / "shards", cache_dir=tmp_path / "cache")
    assert dataset.fingerprint == load(POINTMAZE, data_dir=tmp_path / "whole").fingerprint
    assert load(POINTMAZE, data_dir=tmp_path / "shards", storage="ram").fingerprint == dataset.fingerprint
    assert isinstance(dataset.observations, np.memmap)
    assert dataset.provenance["files"] == 3
    assert len(load(POINTMAZE, data_dir=tmp_path / "shards", split="val")) == 10


def test_exploring_keeps_a_direction_for_ten_steps(tmp_path: Path) -> None:
    path = generate(
        "pointmaze-medium-explore-v0", data_dir=tmp_path, num_episodes=20, max_episode_steps=101, progress=False
    )
    actions = read_npz(path)["actions"].reshape(20, 101, 2)[:, :100].reshape(200, 10, 2)
    means = np.linalg.norm(actions.mean(1), axis=-1)
    shuffled = np.random.default_rng(0).permutation(actions.reshape(-1, 2)).reshape(200, 10, 2)
    assert means.mean() > 1.5 * np.linalg.norm(shuffled.mean(1), axis=-1).mean()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_episodes": 0}, r"^episodes \(num_episodes\) is 0, but generating 'pointmaze-.*' needs at least 1\."),
        ({"max_episode_steps": 1}, "max_episode_steps is 1, .* at least 2"),
        ({"workers": 0}, "workers is 0, .* at least 1"),
        ({"seed": -1}, "seed is -1, .* at least 0"),
    ],
)
def test_numbers_are_checked(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        generate(POINTMAZE, data_dir=tmp_path, **arguments)


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")  # OGBench's environments warn.
@pytest.mark.parametrize("scene", ["cube-single-play", "cube-single-noisy", "scene-noisy", "puzzle-3x3-play"])
def test_manipulation_data_is_read_alike_by_ogbench_and_by_us(scene: str, tmp_path: Path) -> None:
    name = f"{scene}-singletask-v0"
    path = generate(name, data_dir=tmp_path, num_episodes=2, max_episode_steps=41, progress=False)
    arrays = read_npz(path)
    assert ("button_states" in arrays) == (not scene.startswith("cube"))
    assert len(arrays["observations"]) == 82
    assert np.abs(np.diff(arrays["qpos"][:41, :6], axis=0)).max() > 0.01  # The arm moves.
    dataset = load(name, data_dir=tmp_path)
    state = np.random.get_state()
    _, expected, _ = ogbench.make_env_and_datasets(name, dataset_path=str(path))
    np.random.set_state(state)
    for key in ("observations", "next_observations", "rewards", "masks", "terminals"):
        np.testing.assert_array_equal(getattr(dataset, key), expected[key])


@pytest.mark.parametrize("scene", ["scene-play", "puzzle-3x3-noisy"])
def test_manipulation_episodes_do_not_depend_on_those_before(scene: str) -> None:
    task = parse_name(f"{scene}-singletask-v0")
    used = ManipulationCollector(task, num_steps=60)
    used([0])
    assert_same_rows(used([1]), ManipulationCollector(task, num_steps=60)([1]))


def test_a_scene_loses_episodes_in_which_the_cube_hides() -> None:
    def visible(*positions: tuple[float, float]) -> bool:
        return _cube_stays_visible([{"qpos": np.array([0.0] * 15 + list(position))} for position in positions])

    assert visible((0.0, 0.02), (-0.31, 0.07), (0.28, 0.02))
    assert not visible((0.0, 0.02), (0.29, 0.02))  # Off the table.
    assert not visible((-0.3, 0.05))  # Behind the drawer.
    assert not visible((-0.3, 0.09))  # On it.
