"""`train_seeds`: one run folder for each seed and value, each as of a run of its own, and kills of all of them."""

from __future__ import annotations

import csv
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import killed_at
from same_runs import OFFLINE, assert_same_runs, leftovers, rows
from torch.testing import assert_close

from flowpolicies import FQL, QAM, QFlow, train_seeds
from flowpolicies.data import load_dataset
from flowpolicies.training import RunFolder, load_policy
from flowpolicies.training.checkpoints import remove
from flowpolicies.training.seeds.together import Vectorized

Runs = Callable[..., list[RunFolder]]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def runs(reach_file: Path, parent: Path) -> Runs:
    """Trains FQL as the fixture `run` does, with several seeds, in `parent`."""

    def call(**changes: Any) -> list[RunFolder]:
        tiny = {"actor_hidden_dims": (16, 16), "value_hidden_dims": (16, 16), "flow_steps": 3}
        options = {"batch_size": 16, "learning_starts": 4, "buffer_size": 200, "eval_episodes": 1, "device": "cpu"}
        place = {"dataset": f"npz:{reach_file}", "env": "Reach-v0", "run_dir": parent}
        fixed = {**OFFLINE, **tiny, **options, **place, "seeds": (0, 3)}
        kept = {name: value for name, value in fixed.items() if name not in changes.get("sweep", ())}
        return train_seeds(FQL, **{**kept, **changes})

    return call


@pytest.fixture
def whole(runs: Runs, kept: Path) -> list[RunFolder]:
    """Runs of two seeds that nobody disturbed."""
    folders = [RunFolder(kept / "whole" / f"seed{seed}") for seed in (0, 3)]
    return folders if folders[-1].model.is_file() else runs(run_dir=kept / "whole")


def test_each_folder_is_that_of_a_single_run(run: Any, whole: list[RunFolder], tmp_path: Path) -> None:
    for folder, seed in zip(whole, (0, 3), strict=True):
        single = run(**OFFLINE, seed=seed, run_dir=tmp_path / str(seed))
        names = [sorted(p.name for p in one.path.rglob("*") if "tfevents" not in p.name) for one in (folder, single)]
        assert names[0] == names[1]
        mine, theirs = (FQL.load(one.model, device="cpu") for one in (folder, single))
        assert_close(mine.policy.state_dict(), theirs.policy.state_dict(), rtol=0, atol=1e-6)
        assert mine.generators.state_dict().keys() == theirs.generators.state_dict().keys()
        mine_rows, their_rows = rows(folder), rows(single)
        assert [row.keys() for row in mine_rows] == [row.keys() for row in their_rows]
        for one, other in zip(mine_rows, their_rows, strict=True):
            assert {k: float(v) for k, v in one.items()} == pytest.approx({k: float(v) for k, v in other.items()}, 1e-3)
        found, expected = (one.read_evaluations() for one in (folder, single))
        assert [row[:3] for row in found] == [row[:3] for row in expected]
        assert [row.mean_return for row in found] == pytest.approx([row.mean_return for row in expected], 1e-3)
        records = [one.read_config() for one in (folder, single)]
        assert records[0]["seed"] == records[1]["seed"] == seed
        assert records[0]["hyperparameters"] == records[1]["hyperparameters"]
        assert load_policy(folder.path).predict([0.1])[0].shape == (1,)


def test_one_of_the_runs_continues_alone(runs: Runs, run: Any) -> None:
    folder = runs()[1]
    run(**{**OFFLINE, "steps": 15}, seed=3, run_dir=folder.path, resume=True)
    assert FQL.load(folder.model).offline_steps == 15
    with pytest.raises(FileExistsError, match="is the folder of a single run, and cannot hold runs of several seeds"):
        runs(run_dir=folder.path, resume=True)


def test_the_summary_has_means_over_the_seeds(whole: list[RunFolder]) -> None:
    parent = whole[0].path.parent
    assert (parent / "learning_curve.png").stat().st_size > 1000
    with open(parent / "summary.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(row["runs"], row["step"], row["seeds"]) for row in table] == [("fql", s, "2") for s in ("5", "10", "12")]
    last = [folder.read_evaluations()[-1].mean_return for folder in whole]
    assert float(table[-1]["return"]) == pytest.approx(sum(last) / 2)
    assert (float(table[-1]["return_low"]), float(table[-1]["return_high"])) == pytest.approx((min(last), max(last)))


MORE = [pytest.param(number, marks=pytest.mark.more) for number in range(3, 260, 13)]
"""Two runs have about 230 file operations."""


@pytest.mark.parametrize("number", [112, *MORE])
def test_a_kill_at_any_file_operation_costs_nothing(runs: Runs, whole: Any, number: int) -> None:
    assert killed_at(number, runs) or number > 180
    for folder, expected in zip(runs(resume=True), whole, strict=True):
        assert_same_runs(folder, expected)
        assert leftovers(folder) == []


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.more)])
def test_a_signal_stops_all_runs_after_the_same_step(
    runs: Runs, whole: Any, parent: Path, number: int, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def train(self: Vectorized) -> None:
        update(self)
        if self.models[0]._n_updates == 7:
            os.kill(os.getpid(), number)

    update = Vectorized.train
    monkeypatch.setattr(Vectorized, "train", train)
    with pytest.raises(KeyboardInterrupt):
        runs()
    for name in ("seed0", "seed3"):
        found = RunFolder(parent / name).list_checkpoints()
        assert [path.name for path in found] == ["step_000000005.zip", "step_000000007.zip"]
    assert f"Interrupted. The 2 runs are in '{parent}'." in capsys.readouterr().out
    monkeypatch.undo()
    for folder, expected in zip(runs(resume=True), whole, strict=True):
        assert rows(folder) == rows(expected)
        mine, theirs = (FQL.load(one.model, device="cpu").get_parameters() for one in (folder, expected))
        assert_close(mine, theirs, rtol=0, atol=0)


def test_new_seeds_catch_up_and_runs_that_have_ended_are_not_trained_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs(steps=8, eval_every=0)
    groups = []

    def train(self: Vectorized) -> None:
        groups.append([model.seed for model in self.models])
        update(self)

    update = Vectorized.train
    monkeypatch.setattr(Vectorized, "train", train)
    folders = runs(steps=12, seeds=(0, 3, 4), resume=True, eval_every=0)
    assert groups == [[4]] * 8 + [[0, 3, 4]] * 4
    assert [FQL.load(folder.model).offline_steps for folder in folders] == [12] * 3
    groups.clear()
    before = [folder.read_evaluations() for folder in folders]
    runs(steps=12, seeds=(0, 3, 4), resume=True, eval_every=0)
    assert groups == []
    assert before == [folder.read_evaluations() for folder in folders]


@pytest.mark.more
def test_without_a_common_checkpoint_nothing_is_thrown_away(runs: Runs, whole: Any) -> None:
    folders = runs()
    folders[1].model.unlink()
    for checkpoint in folders[1].list_checkpoints():
        remove(checkpoint)
    for folder, expected in zip(runs(resume=True), whole, strict=True):
        mine, theirs = (FQL.load(one.model, device="cpu").policy.state_dict() for one in (folder, expected))
        assert_close(mine, theirs, rtol=0, atol=1e-6)
        assert folder.read_config()["parts"][-1]["from"]["offline"] == (12 if folder == folders[0] else 0)


def test_a_sweep_has_a_folder_for_each_value(runs: Runs, run: Any, parent: Path, tmp_path: Path) -> None:
    folders = runs(seeds=[0], sweep={"alpha": [1, 30], "gamma": [0.5, 0.99]}, eval_episodes=0)
    names = ["alpha=1/gamma=0.5", "alpha=1/gamma=0.99", "alpha=30/gamma=0.5", "alpha=30/gamma=0.99"]
    assert [folder.path for folder in folders] == [parent / name / "seed0" for name in names]
    found = [folder.read_config() for folder in folders]
    assert [(r["hyperparameters"]["alpha"], r["sb3_hyperparameters"]["gamma"]) for r in found] == [
        (1, 0.5),
        (1, 0.99),
        (30, 0.5),
        (30, 0.99),
    ]
    single = runs(seeds=[0], alpha=30.0, gamma=0.5, run_dir=tmp_path / "single", eval_episodes=0)[0]
    mine, theirs = (FQL.load(one.model, device="cpu").policy.state_dict() for one in (folders[2], single))
    assert_close(mine, theirs, rtol=0, atol=1e-6)


def test_a_dataset_object_and_a_folder_by_default(reach_file: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    data = load_dataset(f"npz:{reach_file}")
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "batch_size": 4, "steps": 1, "eval_episodes": 0}
    (folder,) = train_seeds(QFlow, data, seeds=[2], **sizes)
    assert folder.path == Path(f"runs/qflow-reach-{data.fingerprint[:8]}/seed2")
    assert folder.model.is_file()
    with pytest.raises(TypeError, match="compact: for loading a dataset from its address"):
        train_seeds(QFlow, data, compact=True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sweep": {"ensemble": [2, 4]}}, ValueError, "ensemble cannot be swept, .* it is a whole number, which"),
        ({"sweep": {"flow_steps": [2, 4]}}, ValueError, "flow_steps cannot be swept, .*: --flow-steps VALUE"),
        ({"sweep": {"batch_size": [2, 4]}}, ValueError, "batch_size cannot be swept"),
        ({"sweep": {"actor_hidden_dims": [2, 4]}}, ValueError, "actor_hidden_dims cannot be swept, .* not a number"),
        ({"sweep": {"q_agg": [1, 2]}}, ValueError, "q_agg cannot be swept, .* it is not a number"),
        ({"sweep": {"normalize_q_loss": [0, 1]}}, ValueError, "normalize_q_loss cannot be swept"),
        ({"sweep": {"learning_rate": [1e-4, 1e-3]}}, ValueError, "the optimiser has one learning rate for all"),
        ({"sweep": {"tau": [0.1, 0.2]}}, ValueError, "the target copies of all runs of a process move at the same"),
        ({"sweep": {"alpha_": [1, 2]}}, TypeError, "FQL has no hyperparameter 'alpha_' to sweep. Did you mean 'alpha'"),
        ({"sweep": {"alpha": []}}, ValueError, "the sweep of alpha has no values"),
        ({"sweep": {"alpha": [1, 1.0]}}, ValueError, "the sweep of alpha: 1.0 is given twice"),
        ({"sweep": {"alpha": [1, float("nan")]}}, ValueError, "the sweep of alpha takes finite numbers, got nan"),
        ({"sweep": {"alpha": ["a"]}}, TypeError, "the sweep of alpha takes numbers, got 'a'"),
        ({"sweep": {"alpha": [1, 1.0000001]}}, ValueError, "two values have the same first six digits"),
        (
            {"sweep": {"alpha": [1, 2]}, "alpha": 3.0},
            TypeError,
            "alpha: given once by itself, and once in seeds= or sweep=",
        ),
        ({"sweep": {"gamma": [0.9, 2]}}, ValueError, r"gamma must lie in \[0, 1\], got 2"),
        ({"seed": 3}, TypeError, "seed: given once by itself, and once in seeds="),
        ({"seeds": ()}, ValueError, "seeds is empty"),
        ({"seeds": (1, 1)}, ValueError, "seeds: 1 is given twice"),
        ({"seeds": (-1,)}, ValueError, "a seed must be at least 0, got -1"),
        ({"online_steps": 5}, ValueError, "online_steps is 5, and several seeds are trained together on a dataset"),
        ({"stepz": 5}, TypeError, r"FQL has no hyperparameter 'stepz'; .*Did you mean 'steps'\?"),
    ],
)
def test_what_cannot_be_trained_together(runs: Runs, parent: Path, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        runs(**options)
    assert not parent.exists()


def test_a_value_that_selects_another_policy(reach_file: Path) -> None:
    with pytest.raises(ValueError, match=r"inv_temp cannot be swept, .* it selects how the policy acts, for some"):
        train_seeds(QAM, f"npz:{reach_file}", seeds=[0], sweep={"inv_temp": [0, 1]})


def test_folders_that_hold_runs_are_refused_unless_asked(runs: Runs, whole: list[RunFolder], parent: Path) -> None:
    with pytest.raises(FileExistsError, match=r"holds a run already\. Continue it with --resume"):
        runs(run_dir=whole[0].path.parent, seeds=(7, 3))
    assert not (whole[0].path.parent / "seed7").exists()
