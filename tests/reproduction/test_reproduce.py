from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.algorithms import get_algorithm
from flowpolicies.cli.app import _parse
from flowpolicies.reproduction.jobs import flags
from flowpolicies.reproduction.presets import load_preset
from flowpolicies.reproduction.published import list_tables, load_table
from flowpolicies.reproduction.reproduce import PlannedRun, plan, without_twins
from flowpolicies.reproduction.scores import compare_columns, deviations, read_scores
from flowpolicies.training import SB3Hyperparameters, TrainSettings
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder

TABLES = Path(__file__).parents[1] / "presets_tables"


def test_every_table_names_what_there_is() -> None:
    for name in list_tables():
        table = load_table(name)
        runs, left_out = plan(table, Path("runs"))
        everything, nothing = plan(table, Path("runs"), with_defaults=True)
        assert runs
        assert not nothing
        cells = {(run.task, run.column) for run in everything}
        assert len(everything) == len(cells) * len(table.seeds)
        assert len(runs) + sum(map(len, left_out.values())) * len(table.seeds) == len(everything)
        assert {run.folder.path for run in everything} == {
            Path("runs", name, f"{run.preset.algorithm}-{run.task}-seed{run.seed}") for run in everything
        }
        assert len({run.words for run in everything}) == len(without_twins(everything))
        if table.published:
            assert {run.row for run in everything} | {"Average"} >= {row for row, _ in table.published}
            unpublished = {"BDPO", "TFQL", "RQL"} if name == "rql" else set()
            assert {run.column for run in everything} == {column for _, column in table.published} | unpublished


@pytest.mark.parametrize(
    ("name", "runs"),
    # Algorithms x tasks x seeds: FQL and Q-Flow everywhere, others where the papers say their hyperparameters: IQL,
    # ReBRAC and IFQL on humanoidmaze-medium (5 tasks), CAC, FAWAC, FBRAC and IFQL on QFQL's five tasks.
    [
        ("qflow-standard", (2 * 50 + 3 * 5 + 4 * 5) * 8),
        # QAM-E is QAM on two environments, QAM-F on two.
        ("qflow-advanced", (9 * 50 - 2 * 5) * 12),
        ("qam-offline", (16 * 50 - 4 * 5) * 12),
        ("qam-online", (17 * 50 - 4 * 5) * 12),
        ("qfql", (5 * 8 + 7) * 8),
        ("rql", (17 * 50 - 4 * 5) * 4),  # As QAM's, and RQL.
        ("fql-d4rl", 18 * 8),
        ("pendulum", 39 * 3),
        ("pendulum-tuned", 7 * 3),
    ],
)
def test_number_of_runs(name: str, runs: int) -> None:
    assert len(without_twins(plan(load_table(name), Path("runs"))[0])) == runs


def test_a_run() -> None:
    table = load_table("qflow-advanced")
    (run,), left_out = plan(
        table,
        Path("runs"),
        seeds=[7],
        tasks=["antmaze-large-navigate-task3"],
        algorithms=["QAM-E"],
        extra=["--eval-envs", "4"],
    )
    assert not left_out
    assert (run.row, run.column, run.task, run.seed) == ("antmaze-large", "QAM-E", "antmaze-large-navigate-task3", 7)
    folder = "runs/qflow-advanced/qam_e-antmaze-large-navigate-task3-seed7"
    assert " ".join(run.words) == (
        "train qam_e --preset ogbench-advanced/antmaze-large-navigate-task3 --online-steps 0 --seed 7 "
        f"--run-dir {folder} --resume --eval-envs 4"
    )
    assert str(run).startswith(
        "open  qam_e  antmaze-large-navigate-task3  seed 7  ogbench-advanced/antmaze-large-navigate-task3  flowpolicies"
    )


def test_a_run_with_defaults_has_what_the_environment_has() -> None:
    (run,), _ = plan(
        load_table("qflow-standard"),
        Path("runs"),
        seeds=[0],
        tasks=["puzzle-3x3-play-task1"],
        algorithms=["idql"],
        with_defaults=True,
    )
    assert not run.is_published
    words = " ".join(run.words)
    assert words.startswith("train idql --dataset ogbench:puzzle-3x3-play-singletask-task1-v0 --steps 1000000 ")
    assert "--gamma 0.99" in words
    assert "--preset" not in words
    assert "algorithm defaults in ogbench/puzzle-3x3-play-task1" in str(run)


def test_bdpo_has_a_stage_of_its_own_before_the_steps_of_all() -> None:
    """RQL's paper, appendix C.1. With the defaults of BDPO's paper, all steps would be pretraining."""
    table = load_table("rql")
    (run,), _ = plan(
        table, Path("runs"), seeds=[0], tasks=["scene-play-task1"], algorithms=["BDPO"], with_defaults=True
    )
    command: Any = _parse(run.words)
    assert (command.settings.steps, command.hyperparameters.pretrain_steps) == (2_000_000, 1_000_000)
    assert command.settings.online_steps == 0  # The table goes before the suite.
    assert (command.hyperparameters.horizon, command.settings.reward_transform) == (5, "sparse")


def test_a_column_that_is_another_one_shares_its_runs() -> None:
    table = load_table("qam-offline")
    runs, _ = plan(table, Path("runs"), seeds=[0], tasks=["cube-double"], algorithms=["QAM", "QAM-F", "QAM-E"])
    assert len(runs) == 15
    assert {run.preset.algorithm for run in runs} == {"qam"}
    assert len(without_twins(runs)) == 5


def test_seeds_come_one_after_the_other() -> None:
    runs, _ = plan(load_table("qflow-standard"), Path("runs"), tasks=["cube-single"], algorithms=["fql"])
    assert [run.seed for run in runs] == [seed for seed in range(8) for _ in range(5)]


@pytest.mark.parametrize("name", ["scene", "ogbench/scene-play-task2", "scene-play", "scene-play-task2"])
def test_ways_to_name_a_task(name: str) -> None:
    runs, _ = plan(load_table("qflow-standard"), Path("runs"), seeds=[0], tasks=[name], algorithms=["fql"])
    assert {run.preset.environment for run in runs} == {"scene-play"}
    assert len(runs) == (1 if "task2" in name else 5)


def test_unknown_names() -> None:
    table = load_table("qflow-standard")
    with pytest.raises(ValueError, match=r"unknown table 'qflow-standrd' \(known: .*Did you mean 'qflow-standard'\?"):
        load_table("qflow-standrd")
    with pytest.raises(ValueError, match=r"no task 'cube-singl'\. Did you mean 'cube-single'\? It has ant.* \d+ more"):
        plan(table, Path("runs"), tasks=["cube-singl"])
    with pytest.raises(ValueError, match="has no algorithm 'rql'"):
        plan(table, Path("runs"), algorithms=["rql"])


def finish(run: PlannedRun, successes: list[float], phase: str = "offline", **provenance: Any) -> None:
    """Writes the files of a finished run."""
    nan = math.nan
    run.folder.write_config({"dataset": {"provenance": provenance}})
    for step, success in enumerate(successes, 1):
        run.folder.add_evaluation(EvaluationRow(phase, step, 50, success, nan, nan, -1.0, nan, nan, 9.0))
    run.folder.model.touch()


def test_scores(tmp_path: Path) -> None:
    table = load_table("qflow-standard")
    runs, _ = plan(table, tmp_path, seeds=[0, 1], tasks=["scene-play"], algorithms=["fql"])
    assert read_scores(table, runs) == {}
    first = [run for run in runs if run.task.endswith(("task1", "task2"))]
    for run, last in zip(first, (0.4, 0.8, 0.2, 0.6), strict=True):
        finish(run, [1.0, last - 0.1, last + 0.1, last])  # The mean of the last three.
    mean, std, count, interval, iqm = read_scores(table, runs)["scene", "FQL"]
    assert (mean, std, count) == pytest.approx((50.0, 10.0, 4))  # Seeds: 60 and 40.
    assert interval.mean == pytest.approx(50.0)
    assert 40 <= interval.low < 50 < interval.high <= 60
    assert iqm.mean == pytest.approx((40 + 60) / 2)
    (columns,) = compare_columns(table, runs).table.values()
    assert sorted(score for seeds in columns.values() for score in seeds.values()) == pytest.approx([20, 40, 60, 80])
    runs[0].folder.model.unlink()
    mean, std, count = read_scores(table, runs)["scene", "FQL"][:3]
    assert (mean, count) == (pytest.approx((20 + (80 + 60) / 2) / 2), 3)
    assert math.isnan(std)


def test_returns_where_success_is_not_known_and_the_phase(tmp_path: Path) -> None:
    table = load_table("fql-d4rl")
    (run,), _ = plan(table, tmp_path, seeds=[0], tasks=["pen-human-v1"])
    finish(run, [math.nan, math.nan])
    assert read_scores(table, [run])["pen-human-v1", "FQL"].mean == -1.0
    (run,), _ = plan(table, tmp_path / "scored", seeds=[0], tasks=["antmaze-large-play-v2"])
    finish(run, [0.3], reference_scores={"min": -5.0, "max": 15.0})
    assert read_scores(table, [run])["antmaze-large-play-v2", "FQL"].mean == 20.0  # 100 (-1 + 5) / (15 + 5), not 30.
    table = load_table("qam-online")
    (run,), _ = plan(table, tmp_path, seeds=[0], tasks=["scene-play-task1"], algorithms=["qam"])
    finish(run, [1.0])
    finish(run, [0.0, 0.5], "online")
    assert read_scores(table, [run])["scene-sparse", "QAM"].mean == 50.0


def test_a_table_of_two_benchmarks_averages_as_each_of_them_does(tmp_path: Path) -> None:
    """FQL's protocol: the last three evaluations on OGBench, the last one on D4RL."""
    table = load_table("qfql")
    found: dict[tuple[str, str], float] = {}
    for task in ("scene-play-task2", "antmaze-large-diverse-v2"):
        (run,), _ = plan(table, tmp_path, seeds=[0], tasks=[task], algorithms=["FQL"])
        finish(run, [0.0, 0.3, 0.6, 0.9])
        found |= {key: score.mean for key, score in read_scores(table, [run]).items()}
    assert found == {
        ("scene-play-task2", "FQL"): pytest.approx(60.0),
        ("antmaze-large-diverse-v2", "FQL"): pytest.approx(90.0),
    }


@pytest.mark.parametrize(("name", "phase"), [("qam_offline", "offline"), ("qam_online", "online")])
def test_the_published_numbers_of_qam_are_those_of_its_data(name: str, phase: str) -> None:
    table = load_table(f"qam-{phase}")
    lines = (TABLES / f"{name}.md").read_text().splitlines()
    header, _, *rows = ([cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines)
    names = {"am": "antmaze", "hm": "humanoidmaze", "pz": "puzzle", "c": "cube"}
    full = [names.get(cell.split("-")[0], cell.split("-")[0]) + cell[len(cell.split("-")[0]) :] for cell in header]
    found = {}
    for method, *cells in rows:
        for column, cell in zip(full[1:-1], cells[:-1], strict=True):
            row = {"cube-quad": "cube-quadruple", "all": "Average"}.get(column, column)
            row += "-sparse" if row.startswith(("scene", "puzzle")) else ""
            found[row, method] = float(cell)
    assert {key: cell.mean for key, cell in table.published.items()} == found


def test_the_folder_is_done_when_the_model_is_there(tmp_path: Path) -> None:
    (run,), _ = plan(load_table("rql"), tmp_path, seeds=[0], tasks=["scene-play-task1"], algorithms=["rql"])
    assert not run.is_done
    RunFolder(run.folder.path).path.mkdir(parents=True)
    assert not run.is_done
    run.folder.model.touch()
    assert run.is_done
    assert str(run).startswith("done  rql")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, {}),
        ({"alpha": 3.0}, {"alpha": 3.0}),
        ({"steps": 5}, {"steps": 5}),
        ({"online_steps": 500_000}, {"online_steps": 500_000}),  # The preset's, but not the table's.
        ({"dataset": "ogbench:scene-play-singletask-v0"}, {"dataset": "ogbench:scene-play-singletask-v0"}),
        ({"eval_envs": 4, "data_dir": "elsewhere"}, {}),
        ({"flow_steps": 5}, {"flow_steps": 5}),  # Not in the preset: the algorithm's default is the published value.
        ({"learning_rate": 1e-3}, {"learning_rate": 1e-3}),
        ({"env": "Pendulum-v1"}, {"env": "Pendulum-v1"}),
    ],
)
def test_deviations(changes: dict[str, Any], found: dict[str, Any], tmp_path: Path) -> None:
    table = load_table("qam-offline")
    (run,), _ = plan(table, tmp_path, seeds=[0], tasks=["scene-play-task1"], algorithms=["fql"])
    had = {**run.preset.values, "online_steps": 0, "seed": 0, **changes}
    run.folder.write_config({"settings": had, "sb3_hyperparameters": {}, "hyperparameters": {}})
    assert deviations(run, table) == found
    meant = {**changes, "data_dir": Path("elsewhere")}  # A path, as the command line gives it.
    assert deviations(run, table, meant) == {}


def test_values_that_json_writes_otherwise_are_no_deviations(tmp_path: Path) -> None:
    """Tuples, the name "none", and values that are None."""
    table = load_table("fql-d4rl")
    (run,), _ = plan(table, tmp_path, seeds=[0], tasks=["pen-human-v1"])
    for algorithm, name in (("cac", "d4rl/hopper-medium-v2"), ("bdpo", "d4rl/antmaze-umaze-diverse-v0")):
        run = dataclasses.replace(run, preset=load_preset(algorithm, name))
        parts = {
            kind: dataclasses.asdict(kind(**run.preset.fields_of(kind))) for kind in (TrainSettings, SB3Hyperparameters)
        }
        config = get_algorithm(algorithm).Config
        own = dataclasses.asdict(config(**run.preset.fields_of(config)))
        run.folder.write_config(
            {"settings": parts[TrainSettings], "sb3_hyperparameters": parts[SB3Hyperparameters], "hyperparameters": own}
        )
        assert deviations(run, table) == {}


def test_values_as_words_of_a_command_line() -> None:
    values = {"q_norm": False, "temperature": None, "reward_transform": "none", "actor_hidden_dims": (8, 8), "rho": 0.5}
    words = ["--no-q-norm", "--temperature", "None", "--reward-transform", "none", "--actor-hidden-dims", "8", "8"]
    assert flags(values) == [*words, "--rho", "0.5"]
    bdpo: Any = _parse(["train", "bdpo", "--dataset", "npz:a", *words[1:], "--no-max-q-backup"])
    assert bdpo.hyperparameters.temperature is None
    assert not bdpo.hyperparameters.max_q_backup
    assert bdpo.hyperparameters.actor_hidden_dims == (8, 8)


def test_runs_that_end_online_are_scored_there_in_a_table_of_ends(tmp_path: Path) -> None:
    table = load_table("pendulum")
    runs, _ = plan(table, tmp_path, seeds=[0], algorithms=["bc", "sac"])
    assert [run.words[2:4] for run in runs] == [("--preset", "pendulum/mixed")] * 2
    for run, phase in zip(runs, ("offline", "online"), strict=True):
        finish(run, [math.nan], phase)
    assert {key: score.mean for key, score in read_scores(table, runs).items()} == {
        ("mixed", "bc"): -1.0,
        ("mixed", "sac"): -1.0,
    }
