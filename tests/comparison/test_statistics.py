from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowpolicies.comparison.statistics import (
    interquartile_mean,
    mean_over_tasks,
    performance_profile,
    probability_of_improvement,
)

RECORDED: dict[str, Any] = json.loads((Path(__file__).parent / "rliable.json").read_text())
SCORES = {name: list(np.array(scores).T) for name, scores in RECORDED["scores"].items()}


@pytest.mark.parametrize("name", SCORES)
def test_means_and_intervals_are_those_of_rliable(name: str) -> None:
    for estimate, kind in ((mean_over_tasks, "mean"), (interquartile_mean, "iqm")):
        found, recorded = estimate(SCORES[name]), RECORDED[kind][name]
        assert found.mean == pytest.approx(recorded[0])
        width = recorded[2] - recorded[1]
        np.testing.assert_allclose(found[1:], recorded[1:], atol=width / 10)


def test_the_probability_of_improvement_is_that_of_rliable() -> None:
    found, (mean, low, high) = probability_of_improvement(SCORES["a"], SCORES["b"]), RECORDED["improvement"]
    assert found.mean == pytest.approx(mean)
    np.testing.assert_allclose(found[1:], (low, high), atol=(high - low) / 10)
    assert probability_of_improvement(SCORES["b"], SCORES["a"]).mean == pytest.approx(1 - mean)
    with pytest.raises(ValueError, match="they have 4 and 3 tasks"):
        probability_of_improvement(SCORES["a"], SCORES["b"][:3])


@pytest.mark.parametrize("name", SCORES)
def test_the_performance_profile_is_that_of_rliable(name: str) -> None:
    found = performance_profile(SCORES[name], np.array(RECORDED["thresholds"]))
    shares, low, high = RECORDED["profile"][name]
    np.testing.assert_allclose(found.shares, shares)
    runs = sum(map(len, SCORES[name]))
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=1.01 / runs)


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    groups = [np.array([0.0, 0.2, 0.3, 100.0]), np.array([-50.0, 0.4, 0.5, 0.6])]
    assert interquartile_mean(groups).mean == pytest.approx((0.2 + 0.3 + 0.4 + 0.5) / 4)


def test_every_task_is_resampled_by_itself() -> None:
    # Tasks whose seeds agree have no spread, however much the tasks differ; resampling all scores together would have.
    groups = [np.full(3, 0.1), np.full(3, 0.5), np.array([0.3, 0.3, 0.31]), np.full(3, 0.9)]
    for estimate in (interquartile_mean, mean_over_tasks):
        low, high = estimate(groups)[1:]
        assert high - low < 0.02


def test_tasks_count_equally_however_many_runs_they_have() -> None:
    assert mean_over_tasks([np.zeros(2), np.ones(8)]).mean == 0.5
    assert probability_of_improvement([np.zeros(2), np.ones(8)], [np.ones(2), np.zeros(2)]).mean == 0.5


@pytest.mark.parametrize("estimate", [mean_over_tasks, interquartile_mean])
def test_one_seed_says_nothing_about_seeds(estimate: Any) -> None:
    found = estimate([np.array([0.5, 0.7]), np.array([0.6])])
    assert found.mean == pytest.approx(0.6)
    assert np.isnan(found.low)
    assert np.isnan(found.high)


def test_equal_scores_have_no_spread_and_ties_count_half() -> None:
    assert mean_over_tasks([np.full(3, 2.0)]) == (2.0, 2.0, 2.0)
    assert probability_of_improvement([np.full(3, 2.0)], [np.full(2, 2.0)]) == (0.5, 0.5, 0.5)
