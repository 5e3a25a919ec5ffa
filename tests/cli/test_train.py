from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import BC
from flowpolicies.cli.train import parse_train
from flowpolicies.training import EvaluationCallback, RunFolder, load_checkpoint


def test_training_and_resuming(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    answer = call("train", "bc", *tiny_run)
    assert answer.code == 0, answer.err
    assert "offline step 10: 1 episodes (sampled actions): return " in answer.out
    assert f"Evaluate it with: flowpolicies evaluate {folder.path}" in answer.out
    assert folder.read_config()["commands"] == [shlex.join(("flowpolicies", "train", "bc", *tiny_run))]
    assert [row.step for row in folder.read_evaluations()] == [5, 10]
    refused = call("train", "bc", *tiny_run)
    assert refused.code == 2
    assert "Continue it with --resume, replace it with --overwrite" in refused.err
    resumed = call("train", "bc", *tiny_run, "--steps", 15, "--resume")
    assert "Continuing after 10 offline and 0 online steps." in resumed.out
    assert [row.step for row in folder.read_evaluations()] == [5, 10, 15]


def test_online_training_follows(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    words = ("--online-steps", 8, "--eval-every", 0, "--buffer-size", 100, "--learning-starts", 2)
    assert call("train", "bc", *tiny_run, *words).code == 0
    rows = RunFolder(tmp_path / "run").read_evaluations()
    assert [(row.phase, row.step) for row in rows] == [("offline", 10), ("online", 8)]


def test_an_interrupt_in_a_callback(
    call: Any, tiny_run: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_step(self: EvaluationCallback) -> bool:
        if self.num_timesteps == 7:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(EvaluationCallback, "_on_step", on_step)
    answer = call("train", "bc", *tiny_run, "--overwrite")
    folder = RunFolder(tmp_path / "run")
    assert answer.code == 130
    assert folder.latest() == folder.checkpoints / "step_000000007.zip"
    assert len(folder.progress.read_text().splitlines()) == 3  # A header, step 5, step 7.
    command = shlex.join(("flowpolicies", "train", "bc", *tiny_run, "--resume"))
    assert f"Continue with: {command}\n" in answer.out


def test_a_real_ctrl_c(interrupt: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    words = ("train", "bc", *tiny_run, "--steps", "1000000", "--eval-episodes", "0", "--checkpoint-every", "20")
    answer = interrupt(folder, *words)
    assert answer.code == 130, answer.err
    assert "Stopping after this step" in answer.err
    assert "Traceback" not in answer.err
    assert f"its latest checkpoint is {folder.latest()}" in answer.out
    assert "--resume" in answer.out
    steps = int(folder.latest().stem.removeprefix("step_"))
    model = load_checkpoint(BC, folder)
    assert model.offline_steps == model._n_updates == steps
    assert folder.progress.read_text().count("\n") > 1
    assert folder.policy.is_file()


def test_a_renamed_flag_works_under_its_old_name_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--behaviour-learning-rate", "1e-4"], ["--behaviour_learning_rate=1e-4"]):
        parsed = parse_train(["train", "bdpo", "--dataset", "npz:a", *words])
        assert parsed.hyperparameters.behavior_learning_rate == 1e-4
        assert "is now --behavior-learning-rate; the old flag works until 1.0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "choice"),
    [
        ("--compile-backend inductor", True),
        ("--compile_backend=inductor", True),
        ("--compile-backend None", False),
        ("--compile auto", "auto"),
        ("--compile True", True),
        ("", False),
    ],
)
def test_the_former_flag_of_compiling_works(words: str, choice: bool | str, capsys: pytest.CaptureFixture[str]) -> None:
    parsed = parse_train(["train", "bc", "--dataset", "npz:x", *words.split(), "--steps", "7"])
    assert parsed.settings.compile == choice
    assert parsed.settings.steps == 7
    assert ("is now --compile" in capsys.readouterr().err) == ("backend" in words)
