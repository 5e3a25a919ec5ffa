"""Generated data agree with the simulator, also in `flowpolicies data check`, and corrupted data do not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies.cli import main
from flowpolicies_ogbench import generate, load
from flowpolicies_ogbench.resimulation import open_resimulator

POINTMAZE = "pointmaze-medium-navigate-singletask-task1-v0"


@pytest.mark.parametrize("scene", ["cube-single-play", "puzzle-3x3-noisy"])
def test_every_step_of_a_scene_is_simulated_again(scene: str, tmp_path: Path) -> None:
    name = f"{scene}-singletask-v0"
    generate(name, data_dir=tmp_path, num_episodes=1, max_episode_steps=61, seed=1, progress=False)
    dataset, rows = load(name, data_dir=tmp_path), np.arange(60)
    resimulate = open_resimulator(name, dataset, data_dir=tmp_path)
    result = resimulate(rows, dataset.actions)
    step = np.std(dataset.next_observations - dataset.observations, axis=0)
    error = np.abs(result.next_observations - dataset.next_observations)
    # The results are not equal, because the states are stored as float32 and the contact solver has no warm start.
    assert np.quantile(error / (step + 1e-3), 0.99) < 0.01
    np.testing.assert_array_equal(result.rewards, dataset.rewards)
    np.testing.assert_array_equal(result.masks, dataset.masks)
    shifted = resimulate(rows[:-1], dataset.actions[1:])
    assert np.mean(np.abs(shifted.next_observations - dataset.next_observations[:-1])) > 20 * error.mean()


@pytest.mark.usefixtures("global_numpy_state")
def test_rewards_and_masks_are_those_of_the_task(pointmaze_data: Path) -> None:
    dataset = load(POINTMAZE, data_dir=pointmaze_data, sparse=True)
    rows = np.flatnonzero(dataset.masks == 0)
    assert len(rows)
    result = open_resimulator(POINTMAZE, dataset, data_dir=pointmaze_data)(rows, dataset.actions[rows])
    np.testing.assert_array_equal(result.rewards, 0)
    np.testing.assert_array_equal(result.masks, 0)
    np.testing.assert_allclose(result.next_observations, dataset.next_observations[rows], atol=1e-5)


def check(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["data", "check", f"ogbench:{POINTMAZE}", "--data-dir", str(folder)])
    return code, " ".join(capsys.readouterr().out.split())


def test_options_in_an_address_reach_the_simulator(pointmaze_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", f"ogbench:{POINTMAZE},data_dir={pointmaze_data}"]) == 0
    assert "0.0% disagree with the stored next observation" in " ".join(capsys.readouterr().out.split())


def test_generated_data_is_clean(pointmaze_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = check(pointmaze_data, capsys)
    assert code == 0, out
    assert "re-simulated transitions, 0.0% disagree with the stored next observation" in out
    assert "masks are 0 in" in out
    assert out.endswith("no faults, no warnings")


def late_actions(arrays: dict[str, Any]) -> None:
    arrays["actions"] = np.roll(arrays["actions"], 1, axis=0)


def halved_actions(arrays: dict[str, Any]) -> None:
    arrays["actions"] = arrays["actions"] / 2


def joined(arrays: dict[str, Any]) -> None:
    arrays["terminals"][np.flatnonzero(arrays["terminals"])[0]] = False


def lost_states(arrays: dict[str, Any]) -> None:
    arrays["observations"] = np.roll(arrays["observations"], 1, axis=0)


@pytest.mark.parametrize(
    ("corrupt", "messages"),
    [
        (late_actions, ("FAULT [alignment] actions are shifted by one row", "FAULT [resimulation]")),
        (halved_actions, ("FAULT [resimulation]", "with 2 times the actions 0.0% do: actions were scaled")),
        (joined, ("FAULT [trajectories] jumps inside trajectories", "First in row 500")),
        (lost_states, ("FAULT [alignment] actions are shifted by one row", "FAULT [resimulation]")),
    ],
)
def test_a_corrupted_file_is_found_out(
    corrupt: Callable[[dict[str, Any]], None],
    messages: tuple[str, ...],
    pointmaze_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(pointmaze_data, tmp_path / "data"))
    path = folder / "pointmaze-medium-navigate-v0.npz"
    with np.load(path) as file:
        arrays = dict(file)
    corrupt(arrays)
    np.savez(path, **arrays)
    code, out = check(folder, capsys)
    assert code == 1, out
    assert [message for message in messages if message not in out] == []


def test_what_cannot_be_simulated_again_says_why(pointmaze_data: Path, tmp_path: Path) -> None:
    dataset = load(POINTMAZE, data_dir=pointmaze_data)
    with pytest.raises(ValueError, match=r"has 0 files in .*, but re-simulation needs exactly one"):
        open_resimulator(POINTMAZE, dataset, data_dir=tmp_path)
    goals = "pointmaze-medium-navigate-v0"
    with pytest.raises(ValueError, match=f"'{goals}' is goal-conditioned; use '{POINTMAZE}', which has the same data"):
        open_resimulator(goals, dataset, data_dir=pointmaze_data)
    path = tmp_path / "pointmaze-medium-navigate-v0.npz"
    with np.load(pointmaze_data / path.name) as file:
        np.savez(path, **{key: file[key] for key in ("observations", "actions", "terminals")})
    with pytest.raises(ValueError, match="does not contain qpos and qvel"):
        open_resimulator(POINTMAZE, dataset, data_dir=tmp_path)
