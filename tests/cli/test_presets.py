"""Presets on the command line of `flowpolicies train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowpolicies.cli.app import _parse
from flowpolicies.training import RunFolder

SMALL = (
    *("--steps", "2", "--online-steps", "0", "--eval-episodes", "0", "--checkpoint-every", "0", "--device", "cpu"),
    *("--actor-hidden-dims", "16", "16", "--value-hidden-dims", "16", "16", "--batch-size", "16"),
)


@pytest.fixture
def own(data: Path, tmp_path: Path) -> tuple[str, ...]:
    """Flags that turn a run with a preset into a short one on data of Pendulum."""
    return ("--dataset", f"npz:{data}", "--run-dir", str(tmp_path / "run"), *SMALL)


def test_a_preset_is_the_default_of_the_flags(call: Any, own: tuple[str, ...], tmp_path: Path) -> None:
    answer = call("train", "fql", "--preset", "ogbench/antmaze-giant-navigate", *own, "--seed=3")
    assert answer.code == 0, answer.err
    record = RunFolder(tmp_path / "run").read_config()
    assert record["hyperparameters"]["q_agg"] == "min"
    assert record["hyperparameters"]["alpha"] == 10.0
    assert record["sb3_hyperparameters"]["gamma"] == 0.995
    assert record["settings"]["eval_every"] == 100_000
    assert record["settings"]["steps"] == 2
    assert record["preset"]["name"] == "ogbench/antmaze-giant-navigate-task1"
    assert record["preset"]["values"]["steps"] == 1_000_000
    assert any("README.md" in source for source in record["preset"]["sources"])
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["q_agg", "min", "preset"] in lines
    assert ["steps", "2", "command", "line"] in lines
    assert ["seed", "3", "command", "line"] in lines
    assert ["tau", "0.005", "default"] in lines
    assert "source: github.com/seohongpark/fql, README.md, offline runs on state-based OGBench" in answer.out


def test_a_switch_can_be_said_both_ways_whatever_the_preset_says() -> None:
    for said, means in (("--max-q-backup", True), ("--no-max-q-backup", False)):
        for words in ((), ("--preset", "d4rl/antmaze-large-play-v0"), ("--preset", "d4rl/hopper-medium-v2")):
            command: Any = _parse(["train", "cac", *words, said])
            assert command.hyperparameters.max_q_backup is means


def test_options_of_an_address_do_not_hide_its_environment() -> None:
    address = "ogbench:scene-play-singletask-task3-v0,storage=ram"
    command: Any = _parse(["train", "fql", "--preset", "auto", "--dataset", address])
    assert command.published.name == "ogbench/scene-play-task3"
    assert command.settings.dataset == address


def test_a_run_with_a_preset_is_continued(call: Any, own: tuple[str, ...]) -> None:
    words = ("train", "fql", "--preset", "ogbench/scene-play", *own)
    assert call(*words).code == 0
    answer = call(*words, "--steps", 3, "--resume")
    assert answer.code == 0, answer.err
    assert "Continuing after 2 offline" in answer.out
    refused = call(*words, "--steps", 4, "--resume", "--alpha", 5)
    assert refused.code == 2
    assert "alpha: 300.0 in the run, 5.0 now" in refused.err


def test_without_a_preset_nothing_changes(call: Any, own: tuple[str, ...], tmp_path: Path) -> None:
    answer = call("train", "fql", *own)
    assert answer.code == 0, answer.err
    assert "source:" not in answer.out
    assert RunFolder(tmp_path / "run").read_config()["preset"] is None


def test_help_shows_the_presets_values(call: Any) -> None:
    answer = call("train", "fql", "--preset", "ogbench/antmaze-giant-navigate-task2", "--help")
    assert answer.code == 0
    text = " ".join(answer.out.replace("│", " ").split())
    assert "(default: ogbench:antmaze-giant-navigate-singletask-task2-v0)" in text
    assert "(default: min)" in text


def test_auto_says_what_it_chose(call: Any, own: tuple[str, ...]) -> None:
    words = ("--env", "ogbench:scene-play-singletask-task2-v0")
    answer = call("train", "qam", "--preset", "auto", *own, *words, "--reward-transform", "none", "--horizon", 1)
    assert answer.code == 0, answer.err
    assert answer.out.startswith("--preset auto: ogbench-advanced/scene-play-task2\n")
    answer = call("train", "fql", "--preset=auto")
    assert answer.code == 2
    assert "--preset auto chooses by --dataset or --env" in answer.err


def test_what_a_preset_cannot_say_is_told(call: Any, own: tuple[str, ...]) -> None:
    answer = call("train", "qgpo", "--preset", "d4rl/walker2d-medium-v2", *own, "--reward-transform", "none")
    assert answer.code == 0, answer.err
    assert "warning: the published runs also have ema = 0.9999, which flowpolicies does not have yet." in answer.out


def test_pixel_presets_need_images(call: Any, own: tuple[str, ...]) -> None:
    answer = call("train", "fql", "--preset", "ogbench-pixels/visual-scene-play", *own)
    assert answer.code == 2
    assert "warning:" not in answer.out
    assert "frame_stack=3 needs observations that are one image" in answer.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("fql", "--preset", "ogbench/scene-pla"), "Did you mean 'ogbench/scene-play'?"),
        (("fql", "--preset", "auto", "--dataset", "npz:a"), "shows all. Without --preset it trains with its defaults."),
        (
            ("fql", "--preset", "auto", "--dataset", "ogbench:cube-sngle-play-v0"),
            "for 'ogbench:cube-sngle-play-v0'. Did you mean 'ogbench/cube-single-play'? It has presets in ogbench/",
        ),
        (("rql", "--preset", "ogbench/scene-play"), "rql has no preset 'ogbench/scene-play'. It has presets in"),
        (
            ("fql", "--preset", "ogbench/scene-play", "--dataset", "ogbench:cube-single-play-singletask-v0"),
            "is for 'ogbench:scene-play-singletask-task2-v0', not for 'ogbench:cube-single-play-singletask-v0'",
        ),
        (
            ("fql", "--preset", "ogbench/scene-play", "--env", "ogbench:cube-single-play-singletask-v0"),
            "not for 'ogbench:cube-single-play-singletask-v0'. Give the preset of that environment",
        ),
    ],
)
def test_errors(call: Any, words: tuple[str, ...], error: str, tmp_path: Path) -> None:
    answer = call("train", *words, "--run-dir", tmp_path / "run")
    assert answer.code == 2
    assert error in answer.err
    assert not (tmp_path / "run").exists()


def test_large_data_come_with_advice(call: Any, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr("flowpolicies.training.train", refuse)
    words = ("train", "qam", "--preset", "ogbench-advanced/puzzle-4x4-play")
    advice = "for the standard dataset pass --dataset ogbench:puzzle-4x4-play-singletask-task4-v0"
    answer = call(*words)
    assert answer.code == 2
    assert advice in answer.out
    assert advice not in call(*words, *own).out


def test_a_field_that_the_algorithm_lacks(call: Any) -> None:
    answer = call("train", "qflow", "--preset", "ogbench/scene-play", "--guidance-lamda", 3)
    assert answer.code == 2
    assert "--guidance-lambda" in answer.err


def test_presets_and_tables_are_listed(call: Any) -> None:
    assert "  ogbench/scene-play  " in call("list", "presets").out
    tables = call("list", "tables").out
    assert "  qflow-standard  " in tables
    assert "  local  " in tables
