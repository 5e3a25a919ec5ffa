from __future__ import annotations

import numpy as np
import pytest

from flowpolicies.policies.intervals import iqm_interval


def test_interquartile_mean_leaves_out_the_outer_quarters() -> None:
    groups = [np.array([0.0, 0.2, 0.3, 100.0]), np.array([-50.0, 0.4, 0.5, 0.6])]
    assert iqm_interval(groups).mean == pytest.approx((0.2 + 0.3 + 0.4 + 0.5) / 4)


def test_every_task_is_resampled_by_itself() -> None:
    # Tasks whose seeds agree have no spread, however much the tasks differ; resampling all scores together would have.
    low, high = iqm_interval([np.full(3, 0.1), np.full(3, 0.5), np.array([0.3, 0.3, 0.31]), np.full(3, 0.9)])[1:]
    assert high - low < 0.02


def test_interval_is_that_of_a_bootstrap_by_hand() -> None:
    rng = np.random.default_rng(1)
    groups = [rng.random(5) for _ in range(8)]
    found = iqm_interval(groups)
    drawn = np.sort([np.concatenate([rng.choice(group, 5) for group in groups]) for _ in range(5000)])
    low, high = np.percentile(drawn[:, 10:30].mean(1), [2.5, 97.5])
    np.testing.assert_allclose(found[1:], (low, high), atol=0.01)


def test_one_seed_says_nothing_about_seeds() -> None:
    found = iqm_interval([np.array([0.5, 0.7]), np.array([0.6])])
    assert found.mean == pytest.approx(0.6)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
