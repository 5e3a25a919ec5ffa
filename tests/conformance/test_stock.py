"""Stable-Baselines3's own classes keep all promises: the promises are theirs and not ours.

Their classes change only with their releases, so `make more` checks them.
"""

from __future__ import annotations

from typing import Any

import pytest
from stable_baselines3 import DDPG, SAC, TD3

from flowpolicies.conformance import PROMISES, check
from flowpolicies.conformance.report import Report

NOT_APPLICABLE = {
    "SAC": set(),
    "TD3": {"state_dependent_exploration_is_accepted", "the_seed_changes_stochastic_actions"},
    "DDPG": {
        "state_dependent_exploration_is_accepted",
        "the_seed_changes_stochastic_actions",
        "stats_window_size_is_obeyed",
    },
}
"""What each class lacks. Besides, a package that records videos may be missing."""


@pytest.mark.more
@pytest.mark.parametrize("cls", [SAC, TD3, DDPG], ids=lambda cls: cls.__name__)
def test_stock_classes_keep_all_promises(cls: Any) -> None:
    report: Report = check(cls, policy_kwargs={"net_arch": [8, 8]})
    report.raise_for_failures()
    without = {row.promise.name for row in report.rows if row.result == "not applicable"}
    assert without - {"learns_with_a_video_recorder"} == NOT_APPLICABLE[cls.__name__]
    assert report.counts["refused"] == 0


def test_there_is_a_promise_of_each_kind() -> None:
    groups = {promise.group for promise in PROMISES.values()}
    assert len(PROMISES) > 300
    assert len(groups) == 14


def test_promises_are_whole_sentences() -> None:
    texts = {promise.text for promise in PROMISES.values()}
    assert [text for text in texts if not text.endswith(".")] == []
    assert [text for text in texts if not (text[0].isupper() or text[0] == "`")] == []
    assert [text for text in texts if not 4 <= len(text.split()) <= 60] == []
