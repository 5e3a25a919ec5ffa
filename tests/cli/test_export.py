"""`flowpolicies export`: from a run to a folder for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from flowpolicies import FlowPolicy
from flowpolicies.training import RunFolder


@pytest.fixture
def run(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> RunFolder:
    """A short run of two evaluations."""
    assert call("train", "bc", *tiny_run, "--seed", 4).code == 0
    return RunFolder(tmp_path / "run")


def test_the_card_is_made_from_the_run(call: Any, run: RunFolder, tmp_path: Path) -> None:
    answer = call("export", run.path, "--out", tmp_path / "out", "--license", "mit", "--name", "me/pendulum")
    assert answer.code == 0, answer.err
    assert "flowpolicies push" in answer.out
    record, results = run.read_config(), json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["dataset"] == record["dataset"]
    assert results["training"]["commands"] == record["commands"]
    assert results["training"]["software"] == record["software"]
    assert results["training"]["hyperparameters"] == record["hyperparameters"]
    assert results["training"]["steps"] == {"offline": 10}
    last, (found,) = run.read_evaluations()[-1], results["evaluations"]
    assert found["mean_return"] == {"mean": last.mean_return, "low": last.return_low, "high": last.return_high}
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert {"bc", "Pendulum-v1"} <= set(card.data.tags)
    assert record["dataset"]["fingerprint"] in card.text
    assert "--seed 4" in card.text
    acts = [
        policy.predict(np.ones(3, np.float32), deterministic=True)[0]
        for policy in (FlowPolicy.load(run.policy), FlowPolicy.from_pretrained(tmp_path / "out"))
    ]
    np.testing.assert_array_equal(*acts)
    again = call(
        "evaluate", run.path, "--episodes", 1, "--seed", found["seed"], "--device", "cpu", "--json", tmp_path / "e"
    )
    assert again.code == 0
    assert json.loads((tmp_path / "e").read_text())["all"]["return"]["mean"] == pytest.approx(last.mean_return)


def test_a_new_evaluation_takes_the_place_of_the_recorded_one(call: Any, run: RunFolder, tmp_path: Path) -> None:
    words = ("export", run.path, "--out", tmp_path / "out", "--episodes", 3, "--seed", 5)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("Pendulum-v1: 3 episodes")
    (found,) = json.loads((tmp_path / "out" / "results.json").read_text())["evaluations"]
    assert (found["environment"], found["episodes"], found["seed"]) == ("Pendulum-v1", 3, 5)
    assert found["return_std"] > 0
    assert call(*words).code == 0


def test_an_evaluation_before_the_last_step_is_not_that_of_the_policy(
    call: Any, run: RunFolder, tmp_path: Path
) -> None:
    run.evaluations.write_text("\n".join(run.evaluations.read_text().splitlines()[:-1]) + "\n")
    run.model.unlink()
    assert call("export", run.path, "--out", tmp_path / "out").code == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["evaluations"] == []
    assert results["training"]["steps"] is None


def test_what_cannot_be_exported_is_said(call: Any, run: RunFolder, tmp_path: Path) -> None:
    for words, message in (
        (("export", tmp_path, "--out", tmp_path / "out"), "is not the folder of a run"),
        (("export", run.path, "--out", run.path), "holds other files"),
        (("export", run.path, "--out", tmp_path / "out", "--env", "X-v0"), "--env is for a new evaluation"),
    ):
        answer = call(*words)
        assert (answer.code, message in answer.err) == (2, True), answer.err
    run.policy.unlink()
    answer = call("export", run.path, "--out", tmp_path / "out")
    assert answer.code == 2
    assert "has no policy.safetensors, which is written when it ends. Continue it with --resume" in answer.err
    assert not (tmp_path / "out").exists()
