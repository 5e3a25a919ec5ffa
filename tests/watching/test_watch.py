"""`flowpolicies watch`: the status of runs from their files, and what the terminal shows."""

from __future__ import annotations

import io
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from finished_runs import make_run, make_runs
from rich.console import Console

from flowpolicies.cli import main
from flowpolicies.training.logs import write_table
from flowpolicies.training.runs import RunFolder
from flowpolicies.watching.frames import picture, sparkline
from flowpolicies.watching.status import Curve, RunStatus, read_status

LOG = ("time/offline_steps", "time/time_elapsed", "time/steps_per_second", "train/critic/loss", "time/total_timesteps")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was asked for 1000 offline and 500 online steps, and has made 400, at 20 steps per second."""
    path = make_run(tmp_path, "fql", 1, 0, [0.1, 0.5, 0.3])
    note(path, {"asked": {"offline": 1000, "online": 500}, "from": {"offline": 0, "online": 0}})
    write_log(path, [(100 * i, 5 * i, 33.0, 2.0 / i, "") for i in range(1, 5)])
    return path


def note(path: Path, part: dict[str, Any]) -> None:
    """Writes the newest part of a run into its record."""
    record = RunFolder(path).read_config()
    RunFolder(path).write_config({**record, "parts": [part]})


def end(path: Path, offline: int, online: int) -> None:
    """Notes that the run has ended after so many steps."""
    note(path, {**RunFolder(path).read_config()["parts"][-1], "to": {"offline": offline, "online": online}})
    (path / "policy.safetensors").touch()


def write_log(path: Path, rows: Sequence[Sequence[object]], columns: Sequence[str] = LOG) -> None:
    write_table(path / "progress.csv", columns, rows)


@contextmanager
def lock_left_behind(path: Path) -> Iterator[None]:
    """The folder holds the lock of a process of this computer that was killed."""
    with RunFolder(path).lock() as lock:
        content = json.loads(lock.path.read_text())
    lock.path.write_text(json.dumps({**content, "pid": 2**22 + 1}))
    yield
    lock.path.unlink()


def shown(*statuses: RunStatus, width: int = 100) -> str:
    console = Console(width=width, color_system=None, record=True, file=io.StringIO())
    console.print(picture({status.folder.path.name: status for status in statuses}, console))
    return console.export_text()


def test_a_running_run_shows_progress_evaluations_losses_and_the_time_that_is_left(run: Path) -> None:
    with RunFolder(run).lock():
        status = read_status(run)
        text = shown(status)
    assert status.state == "running"
    assert f"running, by process {os.getpid()} on" in text
    assert "fql on ogbench:cube-single-play-singletask-task1-v0, seed 0" in text
    assert "400 of 1,000 steps, 20 steps/s, about 30 s left" in text  # (1000 - 400) / 20, not by the stated 33.
    assert "0 of 500 steps" in text
    assert "success 30 % [20, 40], return -170 (offline step 300, 50 episodes)" in text
    assert "success 50 % [40, 60], return -150 (offline step 200, 50 episodes)" in text
    assert "critic/loss" in text
    assert "2 to 0.5" in text


def test_the_time_that_is_left_falls_while_no_row_is_written(run: Path) -> None:
    earlier = time.time() - 10
    os.utime(run / "progress.csv", (earlier, earlier))
    with RunFolder(run).lock():
        left = read_status(run).seconds_left
    assert left == pytest.approx(20, abs=5)


def test_the_speed_is_that_since_the_run_was_resumed(run: Path) -> None:
    write_log(run, [(100, 50, 2, 1, ""), (200, 100, 2, 1, ""), (300, 10, 10, 1, ""), (400, 20, 10, 1, "")])
    assert read_status(run).phases[0].pace == 10


def test_the_speed_that_the_log_states_counts_while_it_covers_few_seconds(run: Path) -> None:
    write_log(run, [(100, 0, 70.0, 1, ""), (200, 1, 75.0, 1, "")])
    assert read_status(run).phases[0].pace == 75


def test_online_the_phase_and_its_steps_are_those_of_the_environment(run: Path) -> None:
    rows = [(1000, 50, 20, 1.0, ""), ("", 10, "", 0.5, 100), ("", 20, "", 0.4, 200)]
    write_log(run, rows)
    with RunFolder(run).lock():
        status = read_status(run)
    assert status.current is not None
    assert status.current[:3] == ("online", 200, 500)
    assert status.seconds_left == pytest.approx(30, abs=10)
    assert status.curves["train/critic/loss"] == Curve([1.0, 0.5, 0.4], 1)


def test_each_end_of_a_run_is_told_from_the_others(run: Path, tmp_path: Path) -> None:
    assert read_status(run).state == "failed"
    with lock_left_behind(run):
        assert read_status(run).state == "killed"
        assert "its lock was left behind by process" in read_status(run).reason
    end(run, 400, 0)
    assert read_status(run).state == "stopped"
    with RunFolder(run).lock():
        assert read_status(run).state == "running"  # It is resumed.
    end(run, 1000, 503)  # Several environments take a few steps more.
    assert read_status(run).state == "finished"
    assert shown(read_status(run)).count("left") == 0
    (empty := tmp_path / "empty").mkdir()
    assert read_status(empty).state == "not begun"
    with RunFolder(empty).lock():
        assert read_status(empty).state == "starting"
    with lock_left_behind(empty):
        assert read_status(empty).state == "not begun"


def test_a_run_of_another_machine_is_judged_by_its_sign_of_life(run: Path) -> None:
    with lock_left_behind(run):
        lock = RunFolder(run).lock().path
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "host": "elsewhere"}))
        assert read_status(run).state == "running"
        assert "on elsewhere" in read_status(run).reason
        assert "last sign of life 0 s ago" in read_status(run).reason
        os.utime(lock, (1, 1))
        assert read_status(run).state == "killed"


def test_a_run_of_the_first_version_that_noted_no_end_is_finished_if_it_has_its_model(tmp_path: Path) -> None:
    path = make_run(tmp_path, "fql", 1, 0, [0.5])
    assert read_status(path).state == "failed"
    (path / "model.zip").touch()
    assert read_status(path).state == "finished"


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_row_that_is_being_written_does_not_show(run: Path, cut: int) -> None:
    before = shown(read_status(run))
    for name, row in {
        "progress.csv": "500,25,33,0.25,\n",
        "evaluations.csv": "offline,400,50,0.9,1,1,3,4,5,6\n",
    }.items():
        with open(run / name, "a") as file:
            file.write(row[: min(cut, len(row) - 2)])
    assert shown(read_status(run)) == before


def test_what_is_wrong_is_said_below(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step_000000300.zip.damaged").touch()
    columns = (*LOG, "diagnosis/saturation", "diagnosis/saturation_judgement", "diagnosis/spread_judgement")
    rows = [(100, 5, 20, 1, "", 0.5, 2, 1), (200, 10, 20, "nan", "", 0.9, 2, 0), (300, 15, 20, "nan", "", "", "", "")]
    write_log(run, rows, columns)
    assert read_status(run).warnings == [
        "train/critic/loss is nan since offline step 200; see docs/guides/troubleshooting.md",
        f"saturation is bad (0.9); `flowpolicies diagnose {run}` says what to do",
        "the checkpoint step_000000300.zip was damaged",
    ]
    assert "warning" in shown(read_status(run))


def test_a_damaged_log_hides_nothing_else(run: Path) -> None:
    text = (run / "progress.csv").read_text()
    (run / "progress.csv").write_text(text.replace("200,", "200,7,", 1))
    status = read_status(run)
    assert "row 2 below the header: the row has 6 cells" in "".join(status.warnings).replace("'", "")
    assert len(status.evaluations) == 3
    (run / "progress.csv").write_text(text.replace("200,10", "many,10", 1))
    assert "many" in read_status(run).warnings[0]
    (run / "config.json").write_text('{"parts": 3}')
    with pytest.raises(ValueError, match=r"config\.json"):
        read_status(run)


def test_characters_that_a_terminal_obeys_are_not_shown(run: Path) -> None:
    RunFolder(run).write_config({**RunFolder(run).read_config(), "algorithm": "\x1b]0;fooled\x07[red]"})
    assert "?]0;fooled?[red] on" in shown(read_status(run))


def test_several_runs_are_a_table_also_on_a_narrow_terminal(tmp_path: Path) -> None:
    statuses = [read_status(path) for path in sorted(make_runs(tmp_path).iterdir())]
    text = shown(*statuses, width=100)
    assert "12 runs: 12 failed" in text
    rows = [line for line in text.splitlines() if "fql-task2-seed1" in line]
    assert len(rows) == 1
    assert rows[0].count("75 %") == 2  # The last evaluation is the best one.
    assert max(map(len, shown(*statuses, width=60).splitlines())) <= 60


def test_reading_changes_nothing(run: Path) -> None:
    def state() -> dict[Path, tuple[int, bytes]]:
        files = (run, *run.rglob("*"))
        return {path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in files}

    with lock_left_behind(run):
        before = state()
        read_status(run)
        assert state() == before


def test_a_sparkline_has_the_shape_of_its_numbers() -> None:
    assert sparkline(Curve([0, 1, 2, 3, 4, 5, 6, 7], 8), 40) == "▁▂▃▄▅▆▇█"
    assert sparkline(Curve([0, 7, 7, 0], 2), 40, unicode=False) == "_#|#_"
    assert sparkline(Curve([0.5, 1.0], 2), 40, low=0, high=1) == "▅█"
    assert sparkline(Curve([3, 3], 2), 40) == "▄▄"
    assert sparkline(Curve([1, math.nan, 0], 3), 40) == "█!▁"
    assert sparkline(Curve([], 0), 40) == ""
    long = sparkline(Curve(list(range(1000)), 500), 30)
    assert len(long) <= 30
    assert long.count("│") == 1
    assert list(long.replace("│", "")) == sorted(long.replace("│", ""))


def test_the_command_shows_one_picture_where_there_is_no_terminal(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    other = make_run(run.parent, "bc", 2, 1, [])
    with RunFolder(run).lock():
        assert main(["watch", f"mine={run}", str(other)]) == 0
    text = capsys.readouterr().out
    assert "2 runs: 1 running, 1 failed" in text
    assert "│ mine " in text
    assert "│ bc-task2-seed1 " in text


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.usefixtures("terminal")
def test_the_picture_follows_the_run_to_its_end(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([500, 600, 1000])

    def train(seconds: float) -> None:
        if (step := next(steps)) == 1000:
            end(run, 1000, 500)
            lock.__exit__()
        write_log(run, [(100, 5, 20, 1, ""), (step, step // 20, 20, 1, "")])

    monkeypatch.setattr("flowpolicies.cli.evaluation.watch.time.sleep", train)
    with RunFolder(run).lock() as lock:
        assert main(["watch", str(run)]) == 0
    text = capsys.readouterr().out
    places = [text.index(f"{words} of 1,000 steps") for words in ("400", "500", "600")]
    assert places == sorted(places)
    assert text.rindex("finished") > text.rindex("running")


@pytest.mark.usefixtures("terminal")
def test_ctrl_c_ends_it_as_other_commands(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowpolicies.cli.evaluation.watch.time.sleep", interrupt)
    with RunFolder(run).lock():
        assert main(["watch", str(run)]) == 130
        assert main(["watch", str(run), "--once"]) == 0
    assert "Traceback" not in capsys.readouterr().err
