from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flowpolicies.cli.evaluation.evaluate import pool
from flowpolicies.policies import Evaluation
from flowpolicies.training import RunFolder


def test_numbers_with_intervals_and_json(call: Any, policy: Path, tmp_path: Path) -> None:
    words = ("evaluate", policy, "--env", "Pendulum-v1", "--episodes", 3, "--json", tmp_path / "a.json")
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("Pendulum-v1: 3 episodes (sampled actions): return -")
    record = json.loads((tmp_path / "a.json").read_text())
    found = record["environments"]["Pendulum-v1"]
    assert found["episodes"] == len(found["returns"]) == 3
    assert found["success"] is None
    assert found["return"]["low"] < found["return"]["mean"] < found["return"]["high"]
    assert np.mean(found["returns"]) == found["return"]["mean"]
    assert record["all"] == found
    assert call(*words).out == answer.out
    assert call(*words, "--seed", 1).out != answer.out
    assert "(zero noise)" in call(*words, "--deterministic").out


def test_several_environments_are_pooled(call: Any, policy: Path) -> None:
    answer = call("evaluate", policy, "--env", "Pendulum-v1", "ogbench:nothing", "--episodes", 1)
    assert answer.code == 2
    assert "'nothing' is not the name of an OGBench dataset" in answer.err
    first = Evaluation(np.ones(2), np.ones(2), np.array([1.0, 0.0]), deterministic=False)
    second = Evaluation(np.zeros(1), np.ones(1), np.array([0.0]), deterministic=False)
    assert pool([first, second]).success_rate().mean == 1 / 3
    assert len(pool([first, second])) == 3
    unknown = Evaluation(np.zeros(1), np.ones(1), None, deterministic=False)
    assert pool([first, unknown]).successes is None


def test_a_run_knows_its_environment(call: Any, tiny_run: tuple[str, ...], tmp_path: Path, policy: Path) -> None:
    assert call("train", "bc", *tiny_run, "--eval-episodes", 0).code == 0
    folder = RunFolder(tmp_path / "run")
    lines = {call("evaluate", folder.path, "--episodes", 1, "--device", "cpu").out}
    for path in (folder.policy, folder.model, folder.latest()):
        lines.add(call("evaluate", path, "--env", "Pendulum-v1", "--episodes", 1, "--device", "cpu").out)
    assert len(lines) == 1
    assert "return -" in lines.pop()
    answer = call("evaluate", policy)
    assert answer.code == 2
    assert "does not say which environment it is for. Pass --env." in answer.err


def test_an_environment_that_does_not_fit_is_refused(call: Any, policy: Path) -> None:
    answer = call("evaluate", policy, "--env", "MountainCarContinuous-v0", "--episodes", 1)
    assert answer.code == 2
    assert answer.err.startswith(
        "flowpolicies: the policy was trained for observations in Box([-1. -1. -8.], [1. 1. 8.]"
    )
    assert "but those of this environment are in Box([-1.2 " in answer.err
