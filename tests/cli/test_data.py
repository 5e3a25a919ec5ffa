"""The whole path with OGBench: generate data, train with the environment of the dataset, and evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.save_util import save_to_pkl

from flowpolicies.data import load_dataset
from flowpolicies.training import RunFolder

NAME = "ogbench:pointmaze-medium-navigate-singletask-v0"


def test_generated_data_brings_its_environment(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("ogbench")
    folder = ("--data-dir", tmp_path / "data")
    words = ("data", "generate", NAME, *folder, "--episodes", 2, "--max-episode-steps", 30)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert f"Train on it with --dataset {NAME} --data-dir {tmp_path / 'data'}" in answer.out
    refused = call(*words, "--seed", 1)
    assert refused.code == 2
    assert "seed=0 instead of 1" in refused.err
    assert call(*words, "--seed", 1, "--overwrite").code == 0
    shown = call("data", "show", NAME, *folder)
    assert "transitions     58" in shown.out
    settings = ("--dataset", NAME, *folder, "--env", "None", "--steps", 2, "--eval-every", 0)
    trained = call("train", "bc", *tiny_run, *settings)
    assert trained.code == 0, trained.err
    (row,) = RunFolder(tmp_path / "run").read_evaluations()
    assert (row.phase, row.step, row.success) == ("offline", 2, 0)


@pytest.mark.filterwarnings("ignore:.*using the data that .flowpolicies data generate. made")
def test_a_fresh_machine_generates_and_checks(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ogbench")
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = call("data", "generate", "cube-double-play-v0", "--episodes", 2, "--max-episode-steps", 41)
    assert answer.code == 0, answer.err
    assert "flowpolicies data check ogbench:cube-double-play-v0\n" in answer.out
    for name in ("cube-double-play-singletask-v0", "cube-double-play-v0"):
        answer = call("data", "check", f"ogbench:{name}")
        assert answer.code == 0, answer.out + answer.err
    other = ("--out", tmp_path / "other", "--episodes", 1, "--max-episode-steps", 5)
    assert call("data", "generate", "pointmaze-medium-stitch-v0", *other).code == 0
    assert (tmp_path / "other" / "pointmaze-medium-stitch-v0.npz").is_file()


def test_a_source_that_cannot_generate_is_explained(call: Any) -> None:
    answer = call("data", "generate", "npz:a")
    assert answer.code == 2
    assert "unknown generator source 'npz'" in answer.err


@pytest.mark.parametrize("kind", ["npz", "minari"])
def test_what_was_collected_can_be_shown_and_trained_on(
    call: Any, policy: Path, tiny_run: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "minari":
        pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    out = {"npz": f"npz:{tmp_path}/mine.npz", "minari": "minari:pendulum/mine-v0"}[kind]
    words = ("data", "collect", "--policy", policy, "--env", "Pendulum-v1", "--episodes", 2, "--out", out)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "2 episodes (sampled actions): return -" in answer.out
    assert f"Wrote {out}. Train on it with --dataset {out}" in answer.out
    assert "2/2" in answer.err
    assert "transitions     400" in call("data", "show", out).out
    refused = call(*words)
    assert refused.code == 2
    assert "--overwrite" in refused.err
    assert call(*words, "--overwrite").code == 0
    trained = call(
        "train", "bc", *tiny_run, "--dataset", out, "--steps", 2, "--env", "None" if kind == "minari" else "Pendulum-v1"
    )
    assert trained.code == 0, trained.err


def test_conversion(call: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    words = ("data", "convert", f"npz:{data}", f"npz:{tmp_path}/copy.npz")
    assert call(*words).code == 0
    assert load_dataset(f"npz:{tmp_path}/copy.npz").fingerprint == load_dataset(f"npz:{data}").fingerprint
    refused = call("data", "convert", "npz:missing.npz", f"npz:{tmp_path}/copy.npz")
    assert refused.code == 2
    assert "copy.npz' exists" in refused.err  # Said before the data are read.
    pytest.importorskip("minari")
    open_ended = call("data", "convert", f"npz:{data}", "minari:copy-v0")
    assert open_ended.code == 2  # Random rows are no trajectories.
    assert "trajectory 0 of dataset 'arrays' has a gap" in open_ended.err


def test_options_of_a_source_stand_in_its_address(call: Any, tmp_path: Path) -> None:
    buffer = ReplayBuffer(4, Box(-1, 1, (2,)), Box(-1, 1, (1,)), "cpu")
    for step in range(3):
        observation, action, done = np.full((1, 2), step / 9), np.zeros((1, 1)), np.array([step == 2])
        buffer.add(observation, observation, action, np.ones(1), done, [{}])
    save_to_pkl(tmp_path / "buffer.pkl", buffer)
    address, out = f"sb3:{tmp_path}/buffer.pkl", f"npz:{tmp_path}/buffer.npz"
    refused = call("data", "convert", address, out)
    assert refused.code == 2
    assert "on the command line sb3:PATH,trust=true" in refused.err
    answer = call("data", "convert", f"{address},trust=true", out)
    assert answer.code == 0, answer.err
    assert "transitions     3" in call("data", "show", out).out
    assert "transitions     3" in call("data", "show", f"{address},trust=true").out


def test_ctrl_c_says_that_generating_goes_on_later(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowpolicies.data.generate_dataset", interrupt)
    answer = call("data", "generate", "cube-single-play-v0")
    assert answer.code == 130
    assert answer.err == "Interrupted. The same command continues with the episodes that are done.\n"
