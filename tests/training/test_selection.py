"""Held-out episodes, and the best model."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pytest
from torch.testing import assert_close

from flowpolicies.algorithms import FQL
from flowpolicies.data import load_dataset
from flowpolicies.training import RunFolder, load_policy
from flowpolicies.training.selection.best import BestModel


def logged(folder: RunFolder, name: str) -> list[float]:
    with folder.progress.open(newline="") as file:
        return [float(row[name]) for row in csv.DictReader(file) if row.get(name)]


def test_a_dataset_is_divided_by_episodes(reach_file: Any) -> None:
    dataset = load_dataset(reach_file)
    rest, held_out, numbers = dataset.split(0.2)
    assert (rest.num_episodes, held_out.num_episodes) == (8, 2)
    np.testing.assert_array_equal(held_out.observations, dataset.select(numbers).observations)
    together = np.concatenate([rest.observations, held_out.observations])
    assert {*together.ravel().tolist()} == {*dataset.observations.ravel().tolist()}
    np.testing.assert_array_equal(dataset.split(0.2)[2], numbers)
    assert any((dataset.split(0.2, seed)[2] != numbers).any() for seed in range(1, 9))
    assert len(dataset.split(0.001)[2]) == 1
    for share in (0.0, 1.0, 0.99):
        with pytest.raises(ValueError, match="leave a trajectory in each part"):
            dataset.split(share)


def test_losses_on_held_out_episodes_are_logged(run: Any, reach_file: Any) -> None:
    folder = run(validation=0.2)
    record = folder.read_config()
    dataset = load_dataset(reach_file)
    assert record["held_out_episodes"] == dataset.split(0.2)[2].tolist()
    assert record["dataset"]["transitions"] == 64
    assert len(logged(folder, "validation/critic/loss")) == 2
    assert len(logged(folder, "validation/flow_matching/grad_norm")) == 2
    assert len(logged(folder, "train/critic/loss")) == 2


def test_validation_does_not_change_the_training(run: Any, folder: RunFolder, tmp_path: Any) -> None:
    """A run on the other episodes alone has the same weights."""
    validated = run(validation=0.2, eval_episodes=0)
    rest, _, _ = load_dataset(validated.read_config()["dataset"]["address"]).split(0.2)
    alone = run(dataset=f"npz:{rest.save(tmp_path / 'rest.npz')}", eval_episodes=0, run_dir=tmp_path / "alone")
    weights = [dict(load_policy(one.path, "cpu").state_dict()) for one in (validated, alone)]
    assert_close(*weights, rtol=0, atol=0)


def test_a_validated_run_is_continued_exactly(run: Any, tmp_path: Any) -> None:
    options = {"validation": 0.2, "keep_best": "validation/critic/loss", "eval_episodes": 0}
    whole = run(**options, run_dir=tmp_path / "whole")
    run(**options, steps=5)
    parts = run(**options, resume=True)
    for name in ("validation/critic/loss", "train/critic/loss", "validation/actor/loss"):
        assert logged(parts, name) == logged(whole, name)
    best = [json.loads(one.best.with_suffix(".json").read_text()) for one in (whole, parts)]
    assert best[0] == best[1]
    with pytest.raises(ValueError, match=r"validation: 0.2 in the run, 0.3 now"):
        run(**{**options, "validation": 0.3, "keep_best": None}, steps=15, resume=True)


def test_the_best_model_is_kept(run: Any) -> None:
    folder = run(steps=20, eval_every=0, validation=0.2, log_every=5, keep_best="validation/critic/loss")
    losses = logged(folder, "validation/critic/loss")
    note = json.loads(folder.best.with_suffix(".json").read_text())
    assert note["value"] == pytest.approx(min(losses), rel=1e-4)  # The table has six digits.
    assert note["steps"] == {"offline": 5 * (1 + losses.index(min(losses))), "online": 0}
    model = FQL.load(folder.best, device="cpu")
    assert model.offline_steps == note["steps"]["offline"]
    assert load_policy(folder.best, "cpu").predict(np.zeros((2, 1), np.float32))[0].shape == (2, 1)


def test_of_returns_the_largest_is_best_and_equal_values_change_nothing(folder: RunFolder, make_model: Any) -> None:
    model = make_model()
    best = BestModel(folder, model, "eval/ep_rew_mean")
    folder.path.mkdir()
    for step, value in enumerate((-3.0, -1.0, -1.0, -2.0), start=1):
        model.offline_steps = step
        best.write({"eval/ep_rew_mean": value}, {}, step)
    best.write({"train/critic/loss": 1.0}, {}, 5)
    assert best.read() == {"metric": "eval/ep_rew_mean", "value": -1.0, "steps": {"offline": 2, "online": 0}}
    assert FQL.load(folder.best, device="cpu").offline_steps == 2
    again = BestModel(folder, model, "eval/ep_rew_mean")  # As in a run that continues.
    again.write({"eval/ep_rew_mean": -1.5}, {}, 6)
    assert FQL.load(folder.best, device="cpu").offline_steps == 2
    other = BestModel(folder, model, "eval/success_rate")
    assert other.read() is None


def test_an_online_run_keeps_its_best_model(run: Any) -> None:
    folder = run(steps=5, online_steps=16, eval_every=8, eval_episodes=2, keep_best="eval/ep_rew_mean", validation=0.2)
    note = json.loads(folder.best.with_suffix(".json").read_text())
    rows = folder.read_evaluations()
    assert note["value"] == pytest.approx(max(row.mean_return for row in rows), rel=1e-6)
    model = FQL.load(folder.best, device="cpu")
    assert {"offline": model.offline_steps, "online": model.num_timesteps} == note["steps"]


def test_a_number_that_is_never_logged_is_reported(run: Any, settings: Any, capsys: Any) -> None:
    folder = run(keep_best="train/critic/los")
    assert not folder.best.exists()
    assert "No best.zip: the number 'train/critic/los' was never logged. Did you mean" in capsys.readouterr().out
    with pytest.raises(ValueError, match="never logged with --validation 0"):
        settings(keep_best="validation/critic/loss")
    with pytest.raises(ValueError, match="never logged with --eval-episodes 0"):
        settings(keep_best="eval/success_rate", eval_episodes=0)
