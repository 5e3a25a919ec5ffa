from __future__ import annotations

import pytest

from flowpolicies.benchmarking.timing import MAX_ROUNDS, MIN_ROUNDS, interleaved


class Clock:
    """A clock that only the measured work moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.calls: list[str] = []
        monkeypatch.setattr("time.perf_counter", lambda: self.now)

    def work(self, name: str, *seconds: float) -> object:
        """Work whose n-th repetition takes the n-th time, and then the last one."""
        left = list(seconds)

        def run(count: int) -> None:
            self.calls.append(name)
            for _ in range(count):
                self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def test_variants_take_turns_in_alternating_order(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    interleaved({"a": clock.work("a", 1.0), "b": clock.work("b", 3.0)}, seconds=10, chunk=1)
    rounds = clock.calls[4:]  # Before them, each is called twice to find the number of repetitions.
    assert rounds[:8] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert len(rounds) == 2 * MIN_ROUNDS


def test_the_time_is_that_of_one_repetition_without_the_first_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    compiled = clock.work("a", 60.0, 1.0, 0.01)  # The first calls compile.
    times = interleaved({"a": compiled}, seconds=1, chunk=0.1)
    assert times["a"].minimum == pytest.approx(10)
    assert times["a"].median == pytest.approx(10)


def test_minimum_and_median_over_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = interleaved({"a": clock.work("a", 1, 1, 1, 5, 2, 4, 3, 6)}, seconds=0, chunk=1)["a"]
    assert (times.minimum, times.median, times.rounds) == (2000, 4000, 5)
    assert times.as_dict() == {"min_ms": 2000, "median_ms": 4000, "rounds": 5}


def test_slow_work_has_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert interleaved({"a": clock.work("a", 15.0)}, seconds=1, chunk=1)["a"].rounds == 2


def test_a_long_time_has_many_rounds_but_not_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert interleaved({"a": clock.work("a", 1.0)}, seconds=20, chunk=1)["a"].rounds == 20
    assert interleaved({"a": clock.work("a", 1.0)}, seconds=1e6, chunk=1)["a"].rounds == MAX_ROUNDS
