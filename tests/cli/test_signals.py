"""Exit codes and files after SIGINT and SIGTERM, at every moment of a run."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box
from processes import Copy

from flowpolicies.algorithms import BC
from flowpolicies.cli import main
from flowpolicies.training import RunFolder, load_checkpoint

CODES = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
NEVER = ("--steps", "1000000", "--checkpoint-every", "0", "--eval-every", "0")


class Slow(gym.Env[Any, Any]):
    """Pendulum's spaces, and an evaluation that takes ten minutes."""

    observation_space = Box(-np.inf, np.inf, (3,), np.float32)
    action_space = Box(-2.0, 2.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        print("an episode begins", flush=True)
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(0.01)
        self.steps += 1
        return np.zeros(3, np.float32), 0.0, False, self.steps == 1200, {}


gym.register("Slow-v0", Slow)


@pytest.fixture
def start(tiny_run: tuple[str, ...], tmp_path: Path) -> Callable[..., Copy]:
    def make(*words: str) -> Copy:
        return Copy(lambda: main(["train", "bc", *tiny_run, *words]), tmp_path / "log")

    return make


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


@pytest.mark.parametrize(("number", "code"), CODES)
def test_while_data_are_loaded(
    number: int, code: int, start: Any, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*_: object, **__: object) -> None:
        print("loading", flush=True)
        time.sleep(60)

    monkeypatch.setattr(importlib.import_module("flowpolicies.training.train"), "load_dataset", load)
    process = start()
    process.wait_until(lambda: "loading" in process.output)
    process.send(number)
    assert process.code() == code
    assert not run.path.exists()


@pytest.mark.parametrize(("number", "code"), CODES)
def test_in_the_offline_phase(number: int, code: int, start: Any, run: RunFolder) -> None:
    process = start(*NEVER, "--log-every", "1")
    process.wait_until(lambda: run.progress.is_file() and run.progress.read_text().count("\n") > 2)
    process.send(number)
    assert process.code() == code
    assert "then a checkpoint is saved, within 30 s at most" in process.output
    model = load_checkpoint(BC, run)
    assert model.offline_steps == model._n_updates > 0
    assert "Continue with: flowpolicies train bc" in process.output
    assert not (run.path / ".lock").exists()


@pytest.mark.parametrize(("number", "code"), CODES)
def test_in_the_online_phase(number: int, code: int, start: Any, run: RunFolder) -> None:
    words = ("--steps", "2", "--online-steps", "1000000", "--learning-starts", "2", "--eval-episodes", "0")
    process = start(*NEVER, *words, "--buffer-size", "100000")
    process.wait_until(lambda: (run.events / "online").exists())
    time.sleep(0.3)
    process.send(number)
    assert process.code() == code
    model = load_checkpoint(BC, run)
    assert model.num_timesteps == model.replay_buffer.size() > 0


@pytest.mark.parametrize("is_last", [True, False])
def test_an_evaluation_is_left_at_once_and_made_up_for(is_last: bool, start: Any, run: RunFolder) -> None:
    words = ("--env", "Slow-v0", "--eval-episodes", "50", "--eval-every", "0" if is_last else "5")
    process = start(*words)
    process.wait_until(lambda: "an episode begins" in process.output)
    for _ in range(2):  # Clusters may send it twice.
        process.send(signal.SIGTERM)
    begin = time.monotonic()
    assert process.code() == 143
    assert time.monotonic() - begin < 20
    assert load_checkpoint(BC, run).offline_steps == (10 if is_last else 5)
    assert run.read_evaluations() == []
    again = start(*words, "--env", "Slow-v0", "--resume")
    again.wait_until(lambda: "an episode begins" in again.output)  # The evaluation of the same step.
    again.send(signal.SIGTERM)
    assert again.code() == 143
    assert load_checkpoint(BC, run).offline_steps == (10 if is_last else 5)


def test_two_processes_cannot_train_in_one_folder(start: Any, call: Any, tiny_run: Any, run: RunFolder) -> None:
    process = start(*NEVER)
    process.wait_until(run.config.is_file)
    for wish in ("--resume", "--overwrite"):
        answer = call("train", "bc", *tiny_run, wish)
        assert answer.code == 2
        assert f"is being written by another process: process {process.pid} on" in answer.err
    process.send(signal.SIGTERM)
    assert process.code() == 143


@pytest.mark.slow
def test_a_cluster_ends_all_processes_of_a_run(tiny_run: tuple[str, ...], run: RunFolder) -> None:
    words = (*tiny_run, *NEVER, "--steps", "0", "--online-steps", "1000000", "--n-envs", "2", "--eval-episodes", "0")
    command = [sys.executable, "-m", "flowpolicies", "train", "bc", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    end = time.monotonic() + 90
    while not (run.events / "online").exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert load_checkpoint(BC, run).num_timesteps > 0
