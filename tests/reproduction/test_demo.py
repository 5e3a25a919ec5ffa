"""The commands of the demo, its progress bar, its data without cells, and its pictures."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from flowpolicies.cli.app import _parse
from flowpolicies.data import TransitionDataset
from flowpolicies.policies.evaluation import Interval
from flowpolicies.reproduction.costs import Costs
from flowpolicies.reproduction.demo import DemoRun, DemoSettings, make_runs, run_all
from flowpolicies.reproduction.demo.drawing import draw
from flowpolicies.reproduction.demo.maze import (
    Maze,
    check_maze,
    episode_paths,
    load_paths,
    read_maze,
    save_paths,
    without_cells,
)
from flowpolicies.reproduction.demo.pictures import Bars, Panel, draw_paths, draw_rollout, draw_success
from flowpolicies.reproduction.demo.progress import GUESSES, Progress
from flowpolicies.reproduction.demo.results import as_markdown, curves, gather_results, make_table
from flowpolicies.reproduction.demo.run import what_next
from flowpolicies.reproduction.demo.runs import address, bc_report, folder_of, steps_of_evaluations, work_done
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder


def test_every_command_is_understood() -> None:
    settings = DemoSettings(tasks=(1, 3), unseen_task=3, qflow_options=("rho=0.5",))
    runs = make_runs(settings, Path("data"), Path("unseen.npz"))
    assert [run.name for run in runs] == ["qflow-task3-unseen", "qflow-task1", "qflow-task3", "bc"]
    commands = [_parse(list(words)) for run in runs for words in run.commands]
    assert len(commands) == 3 + 1 + len(steps_of_evaluations(settings))
    assert commands[0].hyperparameters.rho == 0.5
    for line in what_next(settings, Path("data"))[1:]:
        program, *words = shlex.split(line.partition("(")[0])
        assert program == "flowpolicies"
        _parse(words)


def test_without_cells_there_is_no_unseen_start() -> None:
    runs = make_runs(DemoSettings(tasks=(2,), unseen=()), Path("data"), None)
    assert [run.name for run in runs] == ["qflow-task2", "bc"]


def test_a_wrong_option_is_named() -> None:
    with pytest.raises(ValueError, match=r"NAME=VALUE, such as rho=0\.5, got 'rho'"):
        DemoSettings(qflow_options=("rho",))
    with pytest.raises(ValueError, match="at least one task"):
        DemoSettings(tasks=())


def run(*codes: str) -> DemoRun:
    return DemoRun(RunFolder(Path("a")), tuple((code,) for code in codes), {"x update": 10}, Path("a/model.zip"))


@pytest.mark.usefixtures("program")
def test_commands_of_a_run_run_one_after_the_other() -> None:
    run_all([run("print('first')", "print('second')")], 2)
    assert Path("a.log").read_text() == "first\nsecond\n"


@pytest.mark.usefixtures("program")
def test_a_command_that_fails_is_shown_and_the_next_one_not_begun() -> None:
    with pytest.raises(RuntimeError, match=r"a failed with exit code 3; the end of a\.log:\nfirst"):
        run_all([run("print('first'); sys.exit(3)", "print('second')")], 1)
    assert Path("a.log").read_text() == "first\n"


def test_an_interrupted_run_continues_with_the_first_report_that_is_missing(tmp_path: Path) -> None:
    first, second = tmp_path / "1.json", tmp_path / "2.json"
    commands = (("train", "bc"), ("evaluate", "1"), ("evaluate", "2"))
    one = DemoRun(RunFolder(tmp_path / "bc"), commands, {"start": 3}, second, {first: 5, second: 20})
    assert one.job.commands == commands
    first.write_text("{}")
    assert one.job.commands == (("evaluate", "2"),)


def test_work_is_counted_in_the_files_of_a_run(tmp_path: Path) -> None:
    folder, report = RunFolder(tmp_path / "bc"), tmp_path / "1.json"
    work = {"start": 2, "bc update": 500, "bc episode": 30, "online step": 50}
    one = DemoRun(folder, (("train", "bc"), ("evaluate", "1")), work, report, {report: 20})
    assert work_done(one) == dict.fromkeys(work, 0)
    folder.path.mkdir()
    folder.progress.write_text("time/offline_steps,time/total_timesteps\n100,\n200,\n,40\n3")  # Being written.
    folder.add_evaluation(EvaluationRow("offline", 200, 10, 1, 1, 1, 0, 0, 0, 9))
    assert work_done(one) == {"start": 1, "bc update": 200, "bc episode": 10, "online step": 40}
    report.write_text("{}")
    assert work_done(one) == {"start": 2, "bc update": 200, "bc episode": 30, "online step": 40}


TRUTH = {"start": 9.0, "bc update": 0.004, "bc episode": 0.3, "qflow update": 0.03, "online step": 0.05}
"""Seconds per unit, on a computer that is slower than the guesses."""


class Shown(NamedTuple):
    """What is shown at one moment."""

    time: float
    left: float
    share: float
    units: int
    """Units of work that are done, all kinds alike."""


def simulate(work: Mapping[str, Mapping[str, int]]) -> list[Shown]:
    """Two workers, with a clock of their own: each does the units of a run one kind after the other."""
    now, waiting, running, shown = 0.0, list(work), dict[str, float](), list[Shown]()
    progress, total = Progress(work, 2, lambda: now), {name: dict.fromkeys(units, 0) for name, units in work.items()}
    while waiting or running:
        while waiting and len(running) < 2:
            running[waiting[0]] = now
            progress.start(waiting[0], total[waiting.pop(0)])
        now += 0.5
        for name, began in list(running.items()):
            left = now - began
            for kind, units in work[name].items():
                step = 100 if kind.endswith(("update", "step")) else 10 if kind.endswith("episode") else 1
                total[name][kind] = min(units, int(max(left, 0.0) / TRUTH[kind] / step) * step)
                left -= units * TRUTH[kind]
            progress.observe(name, total[name])
            if left >= 0:
                progress.end(name)
                del running[name]
        units = sum(map(sum, (one.values() for one in total.values())))
        shown.append(Shown(now, progress.seconds_left(), progress.share_done(), units))
    return shown


def test_the_remaining_time_is_right_although_the_runs_cost_differently() -> None:
    bc = {"start": 2, "bc update": 4000, "bc episode": 60}
    qflow = {"start": 1, "qflow update": 2000, "online step": 1000}
    shown = simulate({"bc": bc, "a": qflow, "b": qflow, "c": qflow})
    end = shown[-1].time
    errors = {one.time: abs(one.left - (end - one.time)) / end for one in shown}
    assert max(error for time, error in errors.items() if time > 0.15 * end) < 0.25  # Not all kinds were seen yet.
    assert max(error for time, error in errors.items() if time > 0.5 * end) < 0.05
    assert all(abs(one.share - one.time / end) < 0.15 for one in shown)
    early = next(one for one in shown if one.time > 0.2 * end)
    alike = early.time * (shown[-1].units - early.units) / early.units
    assert errors[early.time] < 0.5 * abs(alike - (end - early.time)) / end


def test_costs_are_learned_from_intervals_with_several_kinds() -> None:
    costs = Costs({kind: GUESSES[kind] for kind in ("qflow episode", "qflow update")})
    for _ in range(50):
        costs.measure({"qflow update": 100}, 5.0)
        costs.measure({"qflow update": 100, "qflow episode": 20}, 45.0)
    assert costs.of({"qflow update": 100}) == pytest.approx(5, rel=0.05)
    assert costs.of({"qflow episode": 20}) == pytest.approx(40, rel=0.05)


def test_a_demo_that_is_continued_counts_what_was_done() -> None:
    work, now = {"a": {"qflow update": 1000}}, [0.0]
    progress = Progress(work, 2, lambda: now[0])
    progress.start("a", {"qflow update": 500})
    assert progress.share_done() == pytest.approx(0.5)
    assert progress.seconds_left() == pytest.approx(5)
    progress.end("a")
    assert (progress.share_done(), progress.seconds_left()) == (1, 0)


def test_starting_again_is_not_taken_for_slow_updates() -> None:
    work, now = {"a": {"start": 1, "qflow update": 1000}}, [0.0]
    progress = Progress(work, 2, lambda: now[0])
    progress.start("a", {"start": 1, "qflow update": 500})
    now[0] = 7.0  # Six seconds of imports, then a hundred updates of 10 ms.
    progress.observe("a", {"start": 1, "qflow update": 600})
    assert progress.seconds_left() == pytest.approx(4, rel=0.1)


@pytest.fixture
def maze() -> Maze:
    """A corridor of three cells, from left to right, with walls around it."""
    walls = np.ones((3, 5), bool)
    walls[1, 1:4] = False
    return Maze(walls, np.array([-4.0, -4.0]), 4.0, np.array([0.0, 0.0]), np.array([8.0, 0.0]))


def walk(*xs: float) -> TransitionDataset:
    xy = np.array([[x, 0.0] for x in xs], np.float32)
    flags = np.arange(len(xy) - 1) == len(xy) - 2
    return TransitionDataset.from_arrays(
        xy[:-1], xy[1:] * 0, -np.ones(len(xy) - 1), xy[1:], terminations=0 * flags, truncations=flags
    )


def test_data_without_a_cell_end_where_an_episode_enters_it(maze: Maze) -> None:
    left = without_cells(walk(0, 1, 1.9, 3, 5, 6.1, 8, 9), maze, [(1, 2)])
    assert left.observations[:, 0].tolist() == pytest.approx([0, 1, 6.1, 8])
    assert left.next_observations[:, 0].tolist() == pytest.approx([1, 1.9, 8, 9])
    assert left.terminals.tolist() == [0, 1, 0, 1]
    assert left.masks.tolist() == [1, 1, 1, 1]  # Values bootstrap where an episode is cut.
    assert left.provenance["without_cells"] == ["1-2"]


def test_what_is_wrong_with_the_cells_is_said_before_anything_is_trained(maze: Maze) -> None:
    check_maze(maze, ["1-2", "1-1"])
    check_maze(maze, [])
    with pytest.raises(ValueError, match="the cell 0-2 is a wall or outside of the maze; free cells: 1-1, 1-2, 1-3"):
        check_maze(maze, ["0-2"])
    with pytest.raises(ValueError, match=r"the task starts in the cell 1-1, .* Pass --unseen 1-1, or another"):
        check_maze(maze, ["1-2"])
    with pytest.raises(ValueError, match="ROW-COLUMN, such as 6-5, got '6,5'"):
        check_maze(maze, ["6,5"])
    with pytest.raises(ValueError, match="all 1 transitions"):
        without_cells(walk(0, 1), maze, [(1, 1)])


def test_the_default_cells_are_where_the_task_starts() -> None:
    pytest.importorskip("ogbench")
    settings = DemoSettings()
    maze = read_maze(address(settings, settings.unseen_task), settings.unseen_task)
    check_maze(maze, settings.unseen)
    assert maze.unit == 4
    assert not maze.walls[tuple(maze.cells(maze.goal[None])[0])]
    with pytest.raises(ValueError, match="is not a maze, so the demo cannot draw it"):
        read_maze("Pendulum-v1", 1)


def test_paths_of_episodes_have_all_their_positions(tmp_path: Path) -> None:
    paths = {"x/y": episode_paths(walk(0, 1, 2)), "z": [np.zeros((4, 2)), np.ones((2, 2))]}
    save_paths(tmp_path / "paths.npz", paths)
    again = load_paths(tmp_path / "paths.npz")
    assert again["x/y"][0][:, 0].tolist() == [0, 1, 2]
    assert [one.shape for one in again["z"]] == [(4, 2), (2, 2)]


def test_pictures_show_what_they_are_given(maze: Maze, tmp_path: Path) -> None:
    there = np.linspace((0, 0), (8, 0), 50)
    stuck = Panel("before", maze, [there[:1].repeat(300, 0)], "#0072B2", ((1, 1),))
    panels = [stuck, Panel("after", maze, [there, there + 0.5], "#009E73", ((1, 1),))]
    with Image.open(draw_paths(panels, tmp_path / "paths.png")) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert {(0x9A, 0x9A, 0x9A), (0xFB, 0xE3, 0xC8), (255, 255, 255)} <= colors  # Walls, an unseen cell, the floor.
    with Image.open(draw_rollout(panels, tmp_path / "rollout.gif", frames=8)) as moving:
        assert moving.n_frames == 8
        assert moving.info["loop"] == 0
        first = np.asarray(moving.convert("RGB"), float)
        moving.seek(moving.n_frames - 1)
        change = np.abs(np.asarray(moving.convert("RGB"), float) - first).sum(-1) > 100
    half = change.shape[1] // 2
    assert change[:, half:].sum() > 5 * change[: int(0.6 * len(change)), :half].sum()  # Only the right one moves.
    assert (tmp_path / "rollout.gif").stat().st_size < 200_000


def test_bars_are_drawn_in_their_colors(tmp_path: Path) -> None:
    bars = [Bars("BC", "#D55E00", {"task 1": Interval(0.5, 0.3, 0.7)}), Bars("Q-Flow", "#0072B2", {})]
    with pytest.raises(ValueError, match="no success rates of Q-Flow"):
        draw_success(["task 1"], bars, tmp_path / "success.png", "title")
    with Image.open(draw_success(["task 1"], bars[:1], tmp_path / "success.png", "title")) as picture:
        colors = {color for _, color in picture.convert("RGB").getcolors(2**24)}
    assert (0xD5, 0x5E, 0x00) in colors


@pytest.fixture
def finished(tmp_path: Path) -> DemoSettings:
    """A demo whose runs have ended: BC never arrives, Q-Flow does in half of the episodes, and then in all."""
    settings = DemoSettings(tasks=(1, 3), unseen_task=3, steps=400, eval_every=200, eval_episodes=4, run_dir=tmp_path)
    for key in (1, 3, "unseen"):
        folder = folder_of(settings, key)  # type: ignore[arg-type]
        folder.add_evaluation(EvaluationRow("offline", 200, 4, 0, 0, 0.5, -9, -9, -9, 1000))
        folder.add_evaluation(EvaluationRow("offline", 400, 4, 0.5, 0.2, 0.8, -9, -9, -9, 600))
        folder.add_evaluation(EvaluationRow("online", 1000, 4, 1, 0.5, 1, -9, -9, -9, 200))
    (tmp_path / "bc").mkdir()
    interval = {"mean": 0.0, "low": 0.0, "high": 0.5}
    one = {"episodes": 4, "success": interval, "return": interval, "length": 1000.0}
    for step in (200, 400):
        found = {"environments": {address(settings, task): one for task in (1, 3)}}
        bc_report(settings, step).write_text(json.dumps(found))
    return settings


def test_the_table_has_all_tasks_and_the_unseen_start(finished: DemoSettings) -> None:
    results = gather_results(finished, make_runs(finished, Path("data"), Path("unseen.npz")))
    assert len(results["commands"]) == 6
    assert as_markdown(make_table(finished, results)) == (
        "| task | BC | Q-Flow, offline | Q-Flow, fine-tuned |\n"
        "| --- | --- | --- | --- |\n"
        "| 1 | 0 [0, 49], 1000 | 50 [15, 85], 600 | 100 [51, 100], 200 |\n"
        "| 3 | 0 [0, 49], 1000 | 50 [15, 85], 600 | 100 [51, 100], 200 |\n"
        "| all | 0 [0, 32], 1000 | 50 [22, 78], 600 | 100 [68, 100], 200 |\n"
        "| 3, unseen start |  | 50 [15, 85], 600 | 100 [51, 100], 200 |\n"
    )


def test_bc_is_a_curve_over_all_tasks(finished: DemoSettings) -> None:
    found = curves(finished)
    assert [(row.step, row.success) for row in found["BC"]] == [(200, 0), (200, 0), (400, 0), (400, 0)]
    assert {label: len(rows) for label, rows in found.items()} == {"Q-Flow": 6, "BC": 4, "Q-Flow,\nunseen start": 3}


@pytest.mark.more
def test_pictures_of_a_finished_demo_are_drawn_once(finished: DemoSettings) -> None:
    pytest.importorskip("ogbench")
    walked = [np.linspace((12, 16), (4, 12), 30)]
    save_paths(finished.run_dir / "paths.npz", dict.fromkeys(("behaviour", "offline", "before", "after"), walked))
    results = gather_results(finished, make_runs(finished, Path("data"), Path("unseen.npz")))
    draw(finished, results, Path("data"), Path("unseen.npz"))
    drawn = {path.name: path.stat().st_mtime_ns for path in finished.run_dir.glob("*.[pg]*[gf]")}
    assert drawn.keys() == {"success.png", "learning_curve.png", "paths.png", "rollout.gif"}
    draw(finished, results, Path("data"), Path("unseen.npz"))
    assert {name: (finished.run_dir / name).stat().st_mtime_ns for name in drawn} == drawn
