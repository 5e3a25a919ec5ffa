"""The local benchmark at toy size: the whole pipeline, its fairness, what a kill leaves, and what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from flowpolicies.cli.app import _parse, main
from flowpolicies.data import TransitionDataset
from flowpolicies.locks import FolderInUseError, FolderLock
from flowpolicies.reproduction import jobs
from flowpolicies.reproduction.local.benchmark import LocalBenchmark, load_benchmark
from flowpolicies.reproduction.local.page import best_run, make_page
from flowpolicies.reproduction.local.plan import LocalRun, Places, RunKey, all_runs, plan_final, plan_sweep
from flowpolicies.reproduction.local.progress import Remaining
from flowpolicies.reproduction.local.results import Provenance, RunResult, Scores, choose, read_results, write_results
from flowpolicies.reproduction.local.run import LocalTable
from flowpolicies.reproduction.local.settings import LocalSettings
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder

TOY = """
title = "toy"
seeds = [0, 1]
sweep_seed = 9
steps = 4
online_steps = 2
evaluations = 2
last = 2
[options]
device = "cpu"
eval_episodes = 2
batch_size = 8
actor_hidden_dims = [8]
value_hidden_dims = [8]
flow_steps = 2
learning_starts = 1
[datasets.line]
address = "npz:PATH"
tasks = [1, 2]
options = { env = "flowpolicies-test/Line-task{task}-v0" }
step_ms = 0.1
evaluation_seconds = 0.1
[algorithms.bc]
hyperparameter = "flow_steps"
values = [1, 2, 3]
learns_online = false
update_ms = 1.0
[algorithms.iql]
hyperparameter = "alpha"
values = [1, 10, 100]
update_ms = 3.0
"""
SWEEP, FINAL = 2 * 3, 2 * 2 * 2
"""Numbers of runs of the toy benchmark: algorithms and values; algorithms, tasks and seeds."""


class Line(gym.Env[np.ndarray, np.ndarray]):
    """A point on a line that should reach a goal within four steps."""

    observation_space = gym.spaces.Box(-9, 9, (1,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, goal: float) -> None:
        self.goal = goal

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.x = np.zeros(1, np.float32)
        return self.x, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.x = np.clip(self.x + action, -9, 9).astype(np.float32)
        success = bool(abs(self.x[0] - self.goal) < 1)
        return self.x, float(success) - 1, success, False, {"success": success}


@pytest.fixture
def benchmark(tmp_path: Path) -> Iterator[LocalBenchmark]:
    """The toy benchmark, with its data and environments."""
    rng, n = np.random.default_rng(0), 40
    arrays = [rng.uniform(-1, 1, (n, 1)).astype(np.float32) for _ in range(3)]
    observations, actions, following = arrays
    ends = np.arange(n) % 10 == 9
    TransitionDataset.from_arrays(
        observations,
        actions,
        rng.normal(size=n),
        following,
        terminations=np.zeros(n, bool),
        truncations=ends,
        observation_space=Line.observation_space,
        action_space=Line.action_space,
    ).save(tmp_path / "line.npz")
    names = {task: f"flowpolicies-test/Line-task{task}-v0" for task in (1, 2)}
    for task, name in names.items():
        gym.register(name, entry_point=lambda task=task: Line(task), max_episode_steps=4)
    yield load_benchmark(TOY.replace("PATH", str(tmp_path / "line.npz")))
    for name in names.values():
        del gym.registry[name]


class Ended:
    """A process that has ended."""

    def __init__(self, returncode: int) -> None:
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode

    def wait(self) -> int:
        return self.returncode

    def send_signal(self, number: int) -> None:
        pass


Started = list[tuple[str, ...]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """Command lines that were started; they run in this process, which is quicker."""
    words_of_all: Started = []

    def start(words: Sequence[str], log: Path, environment: object) -> Ended:
        words_of_all.append(tuple(words))
        return Ended(main(list(words)))

    monkeypatch.setattr(jobs, "start", start)
    monkeypatch.setattr(jobs.time, "sleep", lambda seconds: None)
    return words_of_all


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch, started: Started) -> Started:
    """As `started`, but nothing is trained: each run leaves the files that are read of a finished run."""

    def start(words: Sequence[str], log: Path, environment: object) -> Ended:
        started.append(tuple(words))
        command: Any = _parse(list(words))
        settings, folder = command.settings, RunFolder(command.settings.run_dir)
        folder.write_config(
            {
                "settings": asdict(settings),
                "hyperparameters": asdict(command.hyperparameters),
                "sb3_hyperparameters": asdict(command.sb3_hyperparameters),
                "commands": ["flowpolicies"],
                "software": {"flowpolicies": "0"},
                "hardware": {"platform": "Linux", "processor": "none", "cpu_count": 2},
            }
        )
        for phase, steps in (("offline", settings.steps), ("online", settings.online_steps)):
            for step in range(settings.eval_every, steps + 1, settings.eval_every):
                folder.add_evaluation(evaluation(step, settings.seed / 10)._replace(phase=phase))
        folder.model.touch()
        return Ended(0)

    monkeypatch.setattr(jobs, "start", start)
    return started


@pytest.fixture
def settings(tmp_path: Path) -> LocalSettings:
    return LocalSettings(runs_dir=tmp_path / "runs", workers=1)


def run(benchmark: LocalBenchmark, settings: LocalSettings) -> LocalTable:
    table = LocalTable(benchmark, settings)
    table.run()
    return table


def test_one_command_makes_everything_and_does_not_repeat_it(
    benchmark: LocalBenchmark, started: Started, settings: LocalSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    fewer = {name: replace(one, values=one.values[1:]) for name, one in benchmark.algorithms.items()}
    benchmark = replace(benchmark, seeds=(0,), algorithms=fewer)
    table = run(benchmark, settings)
    folder = table.places.results
    assert len(started) == len(table.results) == 2 * 2 + 2 * 2  # Algorithms and values, algorithms and tasks.
    out = capsys.readouterr().out
    assert "8/8 runs, 100 % of the work, about 0 s left" in out
    assert {path.name for path in folder.glob("local*")} == {"local.csv", "local.md", "local-line.png", "local-iqm.png"}

    results = read_results(folder / "local.csv")
    assert results.keys() == table.results.keys()
    for key, result in results.items():
        assert {row.step for row in result.phase("offline")} == {2, 4}
        learns_online = key.stage == "final" and key.algorithm == "iql"
        assert [row.step for row in result.phase("online")] == ([2] if learns_online else [])
        assert result.origin.parts == 1
    chosen = choose(benchmark, results, "line")
    assert {key.setting for key in results if key.stage == "final"} == {
        f"flow_steps={chosen['bc']:g}",
        f"alpha={chosen['iql']:g}",
    }
    page = (folder / "local.md").read_text()
    assert "4 of 4 reported runs are done" in page
    assert "missing" not in page.partition("## Hyperparameters")[0].partition("## All tasks")[2]
    assert f"| iql | `alpha` | 10, 100 | {chosen['iql']:g} |" in page

    again = run(benchmark, settings)
    assert len(started) == 8
    assert (folder / "local.md").read_text() == page
    assert again.results == results


def test_after_a_kill_the_same_command_does_the_rest(
    benchmark: LocalBenchmark, pretended: Started, settings: LocalSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = jobs.start

    def start(words: Sequence[str], *others: Any) -> Any:
        if len(pretended) == SWEEP + 2:
            raise KeyboardInterrupt
        return whole(words, *others)

    monkeypatch.setattr(jobs, "start", start)
    with pytest.raises(KeyboardInterrupt):
        run(benchmark, settings)
    path = settings.runs_dir / "local.csv" if settings.runs_dir else Path()
    assert len(read_results(path)) == SWEEP + 2

    # A kill between the end of a run and its rows leaves a run that is done, whose rows come from its folder.
    rows = dict(read_results(path))
    lost = next(key for key in rows if key.stage == "final")
    write_results(path, [result for key, result in rows.items() if key != lost])
    monkeypatch.setattr(jobs, "start", whole)
    table = run(benchmark, settings)
    assert len(pretended) == len(set(pretended)) == SWEEP + FINAL
    assert len(read_results(path)) == SWEEP + FINAL
    assert table.results[lost].evaluations == rows[lost].evaluations
    assert np.isnan(table.results[lost].origin.core_seconds)
    assert "1 runs that ended unobserved" in (settings.runs_dir / "local.md").read_text()  # type: ignore[operator]


def test_trainings_that_a_killed_command_has_left_are_waited_for(
    benchmark: LocalBenchmark,
    pretended: Started,
    settings: LocalSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = LocalTable(benchmark, settings)
    orphan = table.open_runs()[0]
    lock = orphan.folder.lock()
    lock.__enter__()
    ends: list[float] = []

    def sleep(seconds: float) -> None:
        if not ends:
            jobs.start(orphan.words, orphan.job.log, {})
            lock.__exit__()
            ends.append(seconds)

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    table.run()
    assert len(ends) == 1
    assert pretended.count(orphan.words) == 1
    assert len(table.results) == SWEEP + FINAL
    assert "This command waits for it." in capsys.readouterr().out


def test_two_commands_do_not_write_the_same_results(
    benchmark: LocalBenchmark, pretended: Started, settings: LocalSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    table = LocalTable(benchmark, settings)
    with FolderLock(table.places.results / ".local.lock"), pytest.raises(FolderInUseError):
        table.run()
    assert not pretended
    table.run()
    before = table.path.read_text()
    other = LocalTable(benchmark, settings)
    del other.results[next(iter(other.results))]
    with FolderLock(table.places.results / ".local.lock"):
        other.write()  # It may show the results so far meanwhile, and leaves the table alone.
    assert table.path.read_text() == before
    assert "13 runs are in" in capsys.readouterr().out


def test_committed_rows_count_as_done_where_the_runs_are_gone(
    benchmark: LocalBenchmark, pretended: Started, settings: LocalSettings, tmp_path: Path
) -> None:
    results = tmp_path / "results"
    run(benchmark, replace(settings, results_dir=results, algorithms=("bc",), seeds=(0,)))
    assert len(pretended) == 3 + 2
    elsewhere = replace(settings, results_dir=results, runs_dir=tmp_path / "elsewhere")
    table = run(benchmark, elsewhere)
    assert len(pretended) == len(table.results) == SWEEP + FINAL
    with pytest.raises(ValueError, match="has results of other settings"):
        LocalTable(benchmark, replace(elsewhere, steps=6))


def test_parts_make_the_table_and_what_is_missing_is_shown_as_missing(
    benchmark: LocalBenchmark, pretended: Started, settings: LocalSettings
) -> None:
    run(benchmark, replace(settings, algorithms=("bc",)))
    table = run(benchmark, replace(settings, algorithms=("iql",), seeds=(0,)))
    scores = Scores(table.benchmark, table.results)
    page = make_page(scores, table.results)
    assert "6 of 8 reported runs are done" in page
    assert scores.iqm("bc", "offline") is not None
    assert scores.iqm("iql", "offline") is None
    assert "| iql | - (2 runs missing) | - (2 runs missing) |" in page
    assert page.count("(1 of 2)") == 4
    assert len(pretended) == SWEEP + 6


def test_a_failed_sweep_chooses_nothing_and_the_others_are_reported(
    benchmark: LocalBenchmark,
    pretended: Started,
    settings: LocalSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = jobs.start

    def start(words: Sequence[str], *others: Any) -> Any:
        return Ended(1) if "--alpha" in words and "100.0" in words else whole(words, *others)

    monkeypatch.setattr(jobs, "start", start)
    table = LocalTable(benchmark, settings)
    with pytest.raises(ChildProcessError, match="1 runs failed, and are missing in the results"):
        table.run()
    assert {key.algorithm for key in table.results if key.stage == "final"} == {"bc"}
    out = capsys.readouterr().out
    assert "iql on line: runs of the sweep failed, so that nothing is chosen and reported." in out
    assert "10/10 runs, 100 % of the work" in out
    page = make_page(Scores(benchmark, table.results), table.results)
    assert "| iql | `alpha` | 1, 10, 100 | - |" in page


def places() -> Places:
    return Places(runs=Path("runs"), results=Path("runs"), data=Path("data"))


def test_the_sweep_has_the_same_budget_for_every_algorithm() -> None:
    whole = load_benchmark()
    for dataset in whole.datasets:
        sweep = plan_sweep(whole, places(), dataset, whole.algorithms)
        of_algorithm: dict[str, list[LocalRun]] = {}
        for one in sweep:
            of_algorithm.setdefault(one.key.algorithm, []).append(one)
        assert of_algorithm.keys() == whole.algorithms.keys()
        budgets = {
            name: sorted(
                (r.values["steps"], r.values["online_steps"], r.values["eval_every"], r.key.task) for r in runs
            )
            for name, runs in of_algorithm.items()
        }
        assert len({tuple(budget) for budget in budgets.values()}) == 1
        assert len(next(iter(budgets.values()))) == whole.candidates >= 3
        assert {one.key.seed for one in sweep} == {whole.sweep_seed}
        shared = ("batch_size", "learning_rate", "gamma", "tau", "horizon", "actor_hidden_dims", "eval_episodes")
        assert len({tuple(one.values[name] for name in shared) for one in sweep}) == 1
        # Only the swept hyperparameter distinguishes the runs of an algorithm.
        for name, runs in of_algorithm.items():
            swept = whole.algorithms[name].hyperparameter
            assert len({one.values[swept] for one in runs}) == whole.candidates
            others = [{k: v for k, v in one.values.items() if k != swept} for one in runs]
            assert all(other == others[0] for other in others)


def test_weights_are_a_factor_of_ten_apart() -> None:
    whole = load_benchmark()
    weights = {"alpha", "alpha_actor", "guidance_lambda", "inv_temp", "beta"}
    swept = {name: one for name, one in whole.algorithms.items() if one.hyperparameter in weights}
    assert len(swept) == 7
    for one in swept.values():
        np.testing.assert_allclose(np.diff(np.log10(one.values)), 1)


def test_no_run_of_the_sweep_is_reported() -> None:
    whole = load_benchmark()
    middle = {name: one.values[1] for name, one in whole.algorithms.items()}
    final = plan_final(whole, places(), "pointmaze-medium", middle, whole.seeds)
    assert whole.sweep_seed not in {one.key.seed for one in final}
    assert len(final) == len(whole.algorithms) * len(whole.seeds) * 2
    with pytest.raises(ValueError, match="seed 100 is the seed of the sweep"):
        LocalTable(whole, LocalSettings(seeds=(100,)))


@pytest.mark.parametrize("values", ["[1, 10]", "[1, 10, 10]"])
def test_an_unfair_sweep_is_refused(values: str) -> None:
    with pytest.raises(ValueError, match=r"the sweep of iql has the values .* every algorithm has 3 different ones"):
        load_benchmark(TOY.replace("[1, 10, 100]", values))


def test_every_command_of_a_dataset_is_understood() -> None:
    whole = load_benchmark()
    for one in all_runs(whole, places(), ["pointmaze-large"], whole.algorithms, [0]):
        if one.key.stage == "final" and one.key.task == 1:
            command: Any = _parse(list(one.words))
            fields = {**vars(command.hyperparameters), **vars(command.sb3_hyperparameters), **vars(command.settings)}
            assert {name: fields[name] for name in one.values} == dict(one.values)


def evaluation(step: int, success: float, mean_return: float = 0.0) -> EvaluationRow:
    return EvaluationRow("offline", step, 10, success, 0, 1, mean_return, 0, 0, 10)


def result(key: RunKey, *rows: EvaluationRow, seconds: float = 60.0) -> RunResult:
    return RunResult(key, Provenance("", seconds, 1, "commit", "machine"), rows)


@pytest.mark.parametrize(
    ("curves", "best"),
    [
        ([(0, 0, 0), (0, 0.5, 0.5), (1, 0.2, 0.4)], 10),  # The last two evaluations decide.
        ([(0.2, 0.5, 0.5), (0, 0.5, 0.5), (0, 0.5, 0.4)], 1),  # Equal there: all evaluations.
        ([(0, 0, 0), (0, 0, 0), (0, 0, 0)], 10),  # Equal altogether: the middle one.
    ],
)
def test_choice_among_values(curves: list[tuple[float, ...]], best: float) -> None:
    toy = load_benchmark(TOY)
    values = toy.algorithms["iql"].values
    keys = [RunKey("sweep", "line", 1, "iql", f"alpha={value:g}", 9) for value in values]
    found = {
        key: result(key, *(evaluation(i, success) for i, success in enumerate(curve)))
        for key, curve in zip(keys, curves, strict=True)
    }
    assert choose(toy, found, "line") == {"iql": best}
    better = dict(found) | {
        keys[2]: result(keys[2], *(evaluation(i, s, 1.0) for i, s in enumerate(curves[best == 10])))
    }
    assert choose(toy, better, "line") == {"iql": 100}  # Equal successes, and a larger return.
    del found[keys[0]]
    assert choose(toy, found, "line") == {}


def test_remaining_time_counts_the_costs_of_runs_and_not_their_number() -> None:
    whole, now = load_benchmark(), [0.0]
    runs = plan_sweep(whole, places(), "pointmaze-medium", ["bc", "qc"])
    costs = {one.key: sum(one.estimate) for one in runs}
    progress = Remaining(runs, {}, 2, lambda: now[0])
    assert progress.seconds_left() == pytest.approx(sum(costs.values()) / 2)
    for one in runs[:3]:  # Half of the runs, those of BC, in the time that they should take on two cores.
        now[0] += costs[one.key] / 2
        progress.end(one, result(one.key, seconds=costs[one.key]))
    assert progress.seconds_left() == pytest.approx(sum(costs[one.key] for one in runs[3:]) / 2)
    assert progress.share() < 0.4
    # The first run of QC takes twice its estimate: those that are left are expected to do so, too.
    now[0] += costs[runs[3].key]
    progress.end(runs[3], result(runs[3].key, seconds=2 * costs[runs[3].key]))
    assert progress.seconds_left() == pytest.approx(2 * 2 * costs[runs[4].key] / 2, rel=0.05)
    for one in runs[4:]:
        progress.drop(one)
    assert progress.seconds_left() == 0
    assert str(progress) == "4/4 runs, 100 % of the work, about 0 s left"


def test_the_best_run_is_the_one_with_the_best_last_phase() -> None:
    whole = load_benchmark()
    final = [RunKey("final", "pointmaze-medium", 3, "qflow", "guidance_lambda=0.2", seed) for seed in (0, 1)]
    found = {final[0]: result(final[0], evaluation(1, 0.5))}
    found[final[1]] = result(final[1], evaluation(1, 0.1), evaluation(1, 0.9)._replace(phase="online"))
    scores = Scores(whole, found)
    assert best_run(scores, "pointmaze-medium") == (final[1], 0.9)
    assert best_run(scores, "pointmaze-large") is None
    recipe = '"pointmaze-medium-qflow": local_recipe("pointmaze-medium", 3, "qflow", 0.2, 1),  # 90 %'
    assert recipe in make_page(scores, found)
    # Runs of other sizes are no recipes, and need a flag to be continued.
    short = make_page(Scores(replace(whole, steps=50), found), found)
    assert recipe not in short
    assert "flowpolicies reproduce table local --workers 2 --steps 50 --results-dir docs/results" in short


def test_one_seed_has_no_interval() -> None:
    keys = [
        RunKey("final", "pointmaze-medium", task, "bc", "flow_steps=5", seed) for task, seed in ((1, 0), (3, 0), (3, 1))
    ]
    found = {key: result(key, evaluation(1, 0.5)) for key in keys}
    page = make_page(Scores(load_benchmark(), found), found)
    assert "| bc | 50 (1 of 3) | 50 [50, 50] (2 of 3) |" in page


def test_dry_run_and_results_run_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call: Callable[[str, str], int] = lambda command, flag: main(
        ["reproduce", command, "local", "--runs-dir", str(tmp_path / "runs"), *flag.split()]
    )
    assert call("table", "--dry-run --algorithms qflow --datasets pointmaze-medium") == 0
    out = capsys.readouterr().out
    assert out.count("flowpolicies train qflow --dataset ogbench:pointmaze-medium-navigate-singletask-task") == 3 + 6
    assert "9 runs to be done" in out
    assert " h with 2 workers" in out or " min with 2 workers" in out
    assert call("results", "") == 0
    assert capsys.readouterr().out == "No run is done yet.\n"
    assert call("table", "--algorithms qflw") == 2
    assert "no algorithm 'qflw'. Did you mean 'qflow'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert main(["reproduce", "table", "--runs-dir", str(tmp_path), "local"]) == 2
    assert "`flowpolicies reproduce table local --dry-run`" in capsys.readouterr().err
