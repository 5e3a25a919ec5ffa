"""Stand-ins for networks, so that equations can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from torch import Tensor

from flowpolicies.core import View


class Call:
    """A function where a network is expected."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self.fn = fn

    def __call__(self, *inputs: Tensor) -> Any:
        return self.fn(*inputs)

    def given(self, observations: Tensor) -> Callable[..., Any]:
        return partial(self.fn, observations)


def fail(*inputs: Tensor) -> None:
    """A network that must not be called."""
    pytest.fail("this network has no part in the loss")


def view(**fns: Callable[..., Any]) -> View:
    """A view of functions by network name."""
    return View({name: Call(fn) for name, fn in fns.items()})
