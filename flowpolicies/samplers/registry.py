"""Samplers by name: those of this package, and those that other packages and notebooks register."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

from flowpolicies.plugins import Registry

SamplerClass = TypeVar("SamplerClass", bound=type[Any])

SAMPLERS: Registry[type[Any]] = Registry(
    "sampler",
    "flowpolicies.samplers",
    "a dataclass (write @register_sampler above @dataclass)",
    lambda _, cls: isinstance(cls, type) and dataclasses.is_dataclass(cls),
)
"""Name -> class of every sampler, and of every dataclass that is a field of a sampler."""


def register_sampler(name: str) -> Callable[[SamplerClass], SamplerClass]:
    """Makes a sampler known by a name, so that policy files can name it and load it.

    The class is a frozen dataclass whose fields are plain data (numbers, texts, booleans, None, tuples and dicts of
    these) or other samplers:

        @register_sampler("mellow")
        @dataclass(frozen=True)
        class Mellow: ...

    A package names the class in the entry points `flowpolicies.samplers` as well, or instead.

    Args:
        name: how policy files name it. It must be free, and should never change.

    Raises:
        TypeError: if the class is not a dataclass.
        ValueError: if the name is taken.
    """

    def register(cls: SamplerClass) -> SamplerClass:
        SAMPLERS.register(name, cls)
        return cls

    return register
