"""`flowpolicies train --seeds ... --sweep ...`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS
from flowpolicies.training import RunFolder


def test_seeds_have_a_folder_each_and_can_be_evaluated(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    answer = call("train", "bc", *tiny_run, "--seeds", 0, 2)
    assert answer.code == 0, answer.err
    folders = [RunFolder(tmp_path / "run" / name) for name in ("seed0", "seed2")]
    assert answer.out.endswith("Done. The 2 runs are in:\n" + "".join(f"  {folder.path}\n" for folder in folders))
    assert "seed2: offline step 10: 1 episodes (sampled actions): return " in answer.out
    for folder, seed in zip(folders, (0, 2), strict=True):
        assert folder.read_config()["seed"] == seed
        assert [row.step for row in folder.read_evaluations()] == [5, 10]
    assert call("evaluate", folders[1].path, "--episodes", 1).code == 0
    assert call("export", folders[1].path, "--out", tmp_path / "exported").code == 0
    assert "Continue it with --resume" in call("train", "bc", *tiny_run, "--seeds", 2).err


def test_a_sweep(call: Any, tiny_run: tuple[str, ...], tmp_path: Path) -> None:
    sizes = ("--value-hidden-dims", 8, "--eval-episodes", 0, "--steps", 2)
    words = ("--sweep", "guidance-lambda", 0.5, 2, "--sweep", "rho", 0.1)
    answer = call("train", "qflow", *tiny_run, *sizes, *words, "--seed", 4)
    assert answer.code == 0, answer.err
    records = {
        path.relative_to(tmp_path / "run").parent.as_posix(): RunFolder(path.parent).read_config()["hyperparameters"]
        for path in (tmp_path / "run").rglob("config.json")
    }
    assert {name: (record["guidance_lambda"], record["rho"]) for name, record in records.items()} == {
        "guidance_lambda=0.5/rho=0.1/seed4": (0.5, 0.1),
        "guidance_lambda=2/rho=0.1/seed4": (2.0, 0.1),
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seeds", 0, 1, "--seed", 1), "--seed: given by itself, and by --seeds or --sweep."),
        (("--alpha", 1, "--sweep", "alpha", 1, 2), "--alpha: given by itself, and by --seeds or --sweep."),
        (("--sweep", "alpha"), "--sweep alpha: give a hyperparameter once, with its values behind it"),
        (("--sweep", "alpha", 1, "--sweep", "alpha", 2), "--sweep alpha: give a hyperparameter once"),
        (("--sweep",), "--sweep: give a hyperparameter, and its values behind it"),
        (("--sweep", "alpha", "a"), "--sweep alpha takes numbers, got a"),
        (("--sweep", "ensemble", 2, 4), "ensemble cannot be swept, because all runs of a process compute the same"),
        (("--seeds", 0, 1, "--online-steps", 5), "online_steps is 5, and several seeds are trained together"),
    ],
)
def test_words_that_are_refused(call: Any, tiny_run: tuple[str, ...], words: Any, message: str, tmp_path: Path) -> None:
    answer = call("train", "fql", *tiny_run, *words)
    assert answer.code == 2
    assert message in answer.err
    assert not (tmp_path / "run").exists()


def test_every_algorithm_has_the_flags(call: Any) -> None:
    for name in ("fql", list(ALGORITHMS)[-1]):
        text = call("train", name, "--help").out
        assert "--seeds" in text
        assert "--sweep" in text
