"""Means of metrics between two dumps of the log."""

from itertools import cycle, islice

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flowpolicies.core.learner import MetricMeans

CPU = torch.device("cpu")


def metrics(seed: int, *names: str) -> dict[str, torch.Tensor]:
    values = torch.randn(len(names), generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return dict(zip(names, values, strict=True))


def updates(n: int) -> list[dict[str, torch.Tensor]]:
    """Metrics of an algorithm that trains its actor in every second update."""
    names = cycle([("critic/loss", "critic/q"), ("critic/loss", "critic/q", "actor/loss"), ("actor/loss",)])
    return [metrics(seed, *each) for seed, each in enumerate(islice(names, n))]


def test_means_are_over_the_updates_that_have_the_metric() -> None:
    means, given = MetricMeans(), updates(20)
    for each in given:
        means.add(each)
    found = means.pop()
    assert set(found) == {"critic/loss", "critic/q", "actor/loss"}
    for name, mean in found.items():
        values = [float(each[name]) for each in given if name in each]
        assert mean == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_a_dump_starts_anew() -> None:
    means = MetricMeans()
    means.add(metrics(0, "a", "b"))
    means.pop()
    assert means.pop() == {}
    means.add(metrics(1, "b", "a"))
    assert means.pop() == {name: float(value) for name, value in metrics(1, "b", "a").items()}


@pytest.mark.parametrize("before", range(7))
def test_a_restored_interval_ends_with_the_same_bits(before: int) -> None:
    given = updates(7)
    whole, first, second = MetricMeans(), MetricMeans(), MetricMeans()
    for each in given:
        whole.add(each)
    for each in given[:before]:
        first.add(each)
    second.restore(first.state(), CPU)
    for each in given[before:]:
        second.add(each)
    assert second.pop() == whole.pop()


def test_to_ask_for_the_state_changes_nothing() -> None:
    plain, asked = MetricMeans(), MetricMeans()
    for each in updates(9):
        plain.add(each)
        asked.add(each)
        asked.state()
    assert asked.pop() == plain.pop()


def test_the_newest_values_are_those_of_the_newest_update() -> None:
    means = MetricMeans()
    assert (means.newest, means.newest_values()) == ({}, [])
    for each in updates(5):
        means.add(each)
        assert means.newest_values() == [float(value) for value in each.values()]
    means.add({})
    assert (means.newest, means.newest_values()) == ({}, [])


def test_an_update_is_added_in_two_operations_and_never_read() -> None:
    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            called.append(func.overloadpacket.__name__)
            return func(*args, **kwargs or {})

    means, called = MetricMeans(), []
    names = [f"term/{number}" for number in range(20)]
    means.add(metrics(0, *names))
    given = metrics(1, *names)
    with Operations():
        means.add(given)
    assert called == ["stack", "add"]
