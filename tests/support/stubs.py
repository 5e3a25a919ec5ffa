"""Stand-ins for networks, so that equations can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from flowpolicies.core import View
from flowpolicies.core.views import GivenObservations


class Call:
    """A function where a network is expected."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *inputs: Tensor) -> Any:
        return self.fn(*inputs)

    def given(self, observations: Tensor) -> GivenObservations:
        return GivenObservations(self, observations)  # type: ignore[arg-type]  # Called like one.


def fail(*inputs: Tensor) -> None:
    """A network that must not be called."""
    pytest.fail("this network has no part in the loss")


def view(**fns: Callable[..., Any]) -> View:
    """A view of functions by network name."""
    return View({name: Call(fn) for name, fn in fns.items()})
