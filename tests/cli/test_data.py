"""The whole way with OGBench: make data, train with the environment that the data names, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

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


def test_a_source_that_cannot_generate_is_explained(call: Any) -> None:
    answer = call("data", "generate", "npz:a")
    assert answer.code == 2
    assert "unknown generator source 'npz'" in answer.err
