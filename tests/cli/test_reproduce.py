"""The commands `flowpolicies reproduce table` and `results`."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.cli.reproduce import _print_cells
from flowpolicies.training import RunFolder

TASK = ("reproduce", "table", "qflow-standard", "--tasks", "cube-single-play-task2", "--seeds", "0")


@pytest.fixture
def extra(data: Path) -> str:
    """Flags that make the runs of a table short."""
    return (
        f"--extra=--dataset npz:{data} --env Pendulum-v1 --steps 4 --eval-every 2 --eval-episodes 1 --device cpu "
        "--batch-size 16 --actor-hidden-dims 16 16 --value-hidden-dims 16 16 --flow-steps 2"
    )


def test_dry_run(call: Any, tmp_path: Path) -> None:
    answer = call("reproduce", "table", "qflow-standard", "--dry-run", "--no-estimate", "--runs-dir", tmp_path)
    assert answer.code == 0, answer.err
    lines = answer.out.splitlines()
    runs = [line for line in lines if line.startswith("open  ")]
    assert len(runs) == (2 * 50 + 3 * 5 + 4 * 5) * 8
    assert lines[-1] == f"{len(runs)} runs, 0 done, {len(runs)} open."
    command = f"flowpolicies train qflow --preset ogbench/scene-play-task5 --seed 7 --run-dir {tmp_path}"
    assert any(command in line for line in runs)
    assert "idql: no published hyperparameters for antmaze-large-navigate-task1, " in answer.out
    assert not list(tmp_path.iterdir())


def test_runs_are_made_once_and_continued(call: Any, tmp_path: Path, extra: str) -> None:
    flag, _, flags = extra.partition("=")
    words = (*TASK, "--algorithms", "fql", "qflow", "--runs-dir", tmp_path, "--parallel", 2, flag, flags)
    answer = call(*words)
    assert answer.code == 0, answer.err
    assert "[1/2] " in answer.out
    assert "[2/2] " in answer.out
    assert "0 s left" in answer.out
    assert re.search(r"^fql \(ogbench\): [\d.e-]+ ms per update$", answer.out, re.MULTILINE)
    assert "The updates will take about 0 s on this machine with --parallel 2" in answer.out
    assert "Over the 1 of 1 tasks that all columns have" in answer.out
    assert "P(better than FQL)" in answer.out
    folders = [tmp_path / "qflow-standard" / f"{name}-cube-single-play-task2-seed0" for name in ("fql", "qflow")]
    config = RunFolder(folders[0]).read_config()
    assert config["hyperparameters"]["alpha"] == 300.0
    assert config["preset"]["name"] == "ogbench/cube-single-play-task2"
    with open(tmp_path / "qflow-standard" / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["column"], row["runs"]) for row in rows] == [
        ("cube-single", "FQL", "1"),
        ("cube-single", "Q-Flow", "1"),
    ]
    assert [row["published_mean"] for row in rows] == ["96.0", "95.0"]
    assert [row["published_settings"] for row in rows] == ["False", "False"]
    assert "! Some of the runs had other settings than the published ones; see their config.json." in answer.out

    results = call("reproduce", "results", "qflow-standard", "--runs-dir", tmp_path)
    assert results.code == 0
    assert "cube-single" in results.out
    assert "| 96±1" in results.out

    again = call(*words)
    assert "2 runs, 2 done, 0 open." in again.out
    assert "[1/" not in again.out

    (folders[1] / "model.zip").unlink()
    third = call(*words)
    assert "2 runs, 1 done, 1 open." in third.out
    assert "[1/1] qflow-cube-single-play-task2-seed0: done" in third.out
    log = folders[1].with_suffix(".log").read_text()
    assert "Continuing after 4 offline and 0 online steps." in log
    assert len(RunFolder(folders[1]).read_config()["commands"]) == 2


def test_runs_with_other_settings_are_not_taken_for_done(call: Any, tmp_path: Path, extra: str) -> None:
    words = (*TASK, "--algorithms", "fql", "--runs-dir", tmp_path)
    assert call(*words, extra + " --eval-envs 1").code == 0
    assert "1 runs, 1 done, 0 open." in call(*words, extra, "--dry-run").out
    for own in ((), (extra.replace("--steps 4", "--steps 6"),)):
        dry = call(*words, *own, "--dry-run")
        assert dry.code == 0
        assert "other  fql  cube-single-play-task2" in dry.out
        assert "1 runs, 0 done, 1 done with other settings, 0 open." in dry.out
        answer = call(*words, *own)
        assert answer.code == 2
        assert "1 runs ended with other settings than this command's" in answer.err
        assert "steps=4" in answer.err


def test_extra_flags_are_understood_before_anything_runs(call: Any, tmp_path: Path) -> None:
    answer = call(*TASK, "--algorithms", "fql", "--runs-dir", tmp_path, "--extra=--stepz 4")
    assert answer.code == 2
    assert "`flowpolicies train fql` does not accept --extra '--stepz 4'; nothing was run." in answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.more
def test_a_failure_is_reported_and_the_rest_goes_on(call: Any, tmp_path: Path, extra: str) -> None:
    blocked = tmp_path / "qflow-standard" / "fql-cube-single-play-task2-seed0"
    blocked.mkdir(parents=True)
    (blocked / "something").touch()
    answer = call(*TASK, "--algorithms", "fql", "qflow", "--runs-dir", tmp_path, extra)
    assert answer.code == 2
    assert "[1/2] fql-cube-single-play-task2-seed0: FAILED with exit code 2, see " in answer.out
    assert "[2/2] qflow-cube-single-play-task2-seed0: done" in answer.out
    assert "    flowpolicies: " in answer.out  # The error itself.
    assert "is not the folder of a run" in answer.out
    assert "1 of 2 runs failed; their logs: " in answer.err
    assert "is not the folder of a run" in blocked.with_suffix(".log").read_text()


@pytest.mark.more
def test_ctrl_c_lets_runs_save_and_the_same_command_goes_on(
    interrupt: Any, tmp_path: Path, data: Path, extra: str
) -> None:
    long = extra.replace("--steps 4 --eval-every 2 --eval-episodes 1", "--steps 30000 --eval-episodes 0")
    words = (*TASK, "--algorithms", "fql", "--runs-dir", str(tmp_path), long + " --checkpoint-every 20")
    folder = RunFolder(tmp_path / "qflow-standard" / "fql-cube-single-play-task2-seed0")
    answer = interrupt(folder, *words)
    assert answer.code == 130, answer.err
    assert "Traceback" not in answer.err
    assert "Interrupted after 0 of 1 runs. The same command continues them." in answer.out
    log = folder.path.with_suffix(".log").read_text()
    assert "Interrupted. The run is in" in log
    assert "Press Ctrl-C again to stop at once" in log
    assert folder.policy.is_file()
    assert not folder.model.is_file()


def test_results_before_there_are_any(call: Any, tmp_path: Path) -> None:
    answer = call("reproduce", "results", "rql", "--runs-dir", tmp_path)
    assert (answer.code, answer.out) == (0, "No run has an evaluation yet.\n")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("qflow-standrd",), "Did you mean 'qflow-standard'?"),
        (("qflow-standard", "--algorithms", "qflw"), "Did you mean 'qflow'?"),
        (("qflow-standard", "--parallel", 0, "--tasks", "cube-single"), "must be at least 1, got 0"),
    ],
)
def test_errors(call: Any, words: tuple[object, ...], error: str, tmp_path: Path) -> None:
    answer = call("reproduce", "table", *words, "--runs-dir", tmp_path)
    assert answer.code == 2
    assert error in answer.err
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("rows", "columns", "first"),
    [(("a", "b"), ("X", "Y"), "a"), (("a",), ("X", "Y"), "X")],
)
def test_algorithms_are_rows_where_that_is_less_wide(
    rows: tuple[str, ...], columns: tuple[str, ...], first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _print_cells({(row, column): row + column for row in rows for column in columns}, rows, columns)
    lines = [[cell.strip() for cell in line.strip("│").split("│")] for line in capsys.readouterr().out.splitlines()]
    assert lines[3][:2] == [first, "aX"]
