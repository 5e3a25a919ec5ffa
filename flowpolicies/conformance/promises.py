"""A promise of Stable-Baselines3 and the check of it: each public function of `checks` with a parameter `case`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from flowpolicies.conformance.case import Case

_VARIANTS = "conformance_variants"


class Promise(NamedTuple):
    """One named check."""

    name: str
    """Name of the function, followed by the variant in brackets if it has several."""
    group: str
    """Title of the module that the check is in."""
    text: str
    """What is promised, from the docstring of the function."""
    run: Callable[[Case], None]
    """Raises an error unless the class keeps the promise."""

    @property
    def function(self) -> str:
        """The name without the variant."""
        return self.name.partition("[")[0]


def over(**variants: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Makes one promise for each variant; its value is the second argument of the check."""

    def mark(function: Callable[..., None]) -> Callable[..., None]:
        setattr(function, _VARIANTS, variants)
        return function

    return mark


def promises_of(module: ModuleType) -> Iterator[Promise]:
    """The promises of a module, in the order in which it defines them."""
    group = (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")
    for name, function in vars(module).items():
        if name.startswith("_") or not inspect.isfunction(function) or function.__module__ != module.__name__:
            continue
        if next(iter(inspect.signature(function).parameters), None) != "case":
            continue
        text = " ".join((inspect.getdoc(function) or "").split())
        variants: dict[str, Any] | None = getattr(function, _VARIANTS, None)
        if variants is None:
            yield Promise(name, group, text, function)
            continue
        second = list(inspect.signature(function).parameters)[1]
        for variant, value in variants.items():
            yield Promise(f"{name}[{variant}]", group, text, partial(function, **{second: value}))
