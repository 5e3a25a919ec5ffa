from typing import Any

import pytest

from flowpolicies.algorithms import ALGORITHMS


def test_everything_is_listed_with_a_line(call: Any) -> None:
    out = call("list").out
    for name, cls in ALGORITHMS.items():
        assert f"  {name} " in out
        assert (cls.__doc__ or "").splitlines()[0] in out
    for topic in ("algorithms", "datasets", "environments", "generators", "samplers", "networks"):
        assert f"{topic}:\n" in out


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("datasets", "  npz      flowpolicies"),
        ("environments", "  ogbench  flowpolicies"),
        ("samplers", "  OneStep"),
        ("networks", "  VelocityField"),
    ],
)
def test_one_topic_is_listed_alone(call: Any, topic: str, line: str) -> None:
    answer = call("list", topic)
    assert answer.code == 0
    assert answer.out.startswith(f"{topic}:\n")
    assert line in answer.out
    assert "algorithms:" not in answer.out
