from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny

from flowpolicies.algorithms import BC
from flowpolicies.cli.evaluation.evaluate import print_matrix
from flowpolicies.comparison.evaluating import pool
from flowpolicies.comparison.results import read_results
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


@pytest.fixture
def policies(tmp_path: Path, policy: Path, data: Path) -> list[Path]:
    """Two policy files with different networks."""
    tiny(BC, dataset=f"npz:{data}", seed=1).policy.save(tmp_path / "other.safetensors")
    return [policy, tmp_path / "other.safetensors"]


def test_several_policies_have_equal_starts_and_rows(call: Any, policies: list[Path], tmp_path: Path) -> None:
    out, env = tmp_path / "results.jsonl", ("--env", "Pendulum-v1", "--episodes", 4)
    answer = call("evaluate", f"mine={policies[0]}", policies[1], *env, "--out", out, "--json", tmp_path / "a.json")
    assert answer.code == 0, answer.err
    rows = read_results(out)
    assert [(row.label, row.episode) for row in rows] == [(name, i) for name in ("mine", "other") for i in range(4)]
    alone = [call("evaluate", path, *env, "--json", tmp_path / "b.json") and tmp_path / "b.json" for path in policies]
    single = json.loads(alone[1].read_text())["environments"]["Pendulum-v1"]
    assert [row.total for row in rows[4:]] == single["returns"]
    assert [one["policy"] for one in json.loads((tmp_path / "a.json").read_text())["runs"]] == [*map(str, policies)]
    difference = np.mean([one.total - other.total for one, other in zip(rows[4:], rows[:4], strict=True)])
    assert "return, with 95 % intervals" in answer.out
    line = next(line for line in answer.out.splitlines() if " minus " in line)
    assert line.startswith("other.safetensors minus policy.safetensors, 4 pairs of episodes with the same starts:")
    assert float(line.rpartition(": ")[2].split()[0]) == pytest.approx(difference, rel=0.01)


def test_the_matrix_has_a_column_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = [f"ogbench:cube-single-play-singletask-task{task}-v0" for task in (1, 2)]
    won, lost = (Evaluation(np.ones(8), np.ones(8), np.full(8, x), deterministic=False) for x in (1.0, 0.0))
    print_matrix({"a": dict.fromkeys(addresses, won), "b": {addresses[0]: won, addresses[1]: lost}})
    text = capsys.readouterr().out
    assert [cell.strip() for cell in text.splitlines()[2].split("┃")[1:-1]] == ["", "task 1", "task 2", "all"]
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    assert [[cell.split()[0] for cell in row] for row in rows] == [["a", "100", "100", "100"], ["b", "100", "0", "50"]]
    assert "b minus a, 16 pairs of episodes with the same starts: -50 [-75, -25]" in text


def test_tasks_are_those_of_the_environment(call: Any, policy: Path) -> None:
    answer = call("evaluate", policy, "--env", "Pendulum-v1", "--tasks", "1-3")
    assert answer.code == 2
    assert "'Pendulum-v1' has no numbered tasks" in answer.err
    answer = call("evaluate", policy, "--env", "Pendulum-v1", "--workers", 0)
    assert "--workers is the number of processes and must be at least 1, got 0" in answer.err
    answer = call("evaluate", policy, "--env", "ogbench:nothing-play-singletask-v0", "--tasks", "2")
    assert "'nothing-play-singletask-task2-v0'" in answer.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "no run is named"),
        (("a", "--out", "a.json"), "name the results file with the ending .jsonl"),
        (("a.safetensors", "--env", "Pendulum-v1"), "no policy file, run folder or zip of model.save() at"),
    ],
)
def test_wrong_words(call: Any, words: tuple[str, ...], message: str) -> None:
    answer = call("evaluate", *words)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


@pytest.mark.more
def test_results_do_not_depend_on_the_number_of_workers(call: Any, policies: list[Path], tmp_path: Path) -> None:
    files = [tmp_path / f"{workers}.jsonl" for workers in (1, 2)]
    for workers, file in enumerate(files, 1):
        words = (*policies, "--env", "Pendulum-v1", "--episodes", 3, "--workers", workers, "--out", file)
        assert call("evaluate", *words).code == 0
    assert files[0].read_text() == files[1].read_text()
    answer = call("evaluate", *policies, "--env", "Pendulum-v1", "MountainCarContinuous-v0", "--workers", 2)
    assert answer.code == 2
    assert "the policy was trained for observations in" in answer.err
