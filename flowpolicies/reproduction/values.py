"""Values of TOML files as the types of dataclass fields."""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Literal


def convert(hint: Any, value: Any, where: str) -> Any:
    """A TOML value as the type of a field: numbers become floats and arrays tuples; "none" is None."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value == "none" and type(None) in arguments:
            return None
        inner = [argument for argument in arguments if argument is not type(None)]
        return _first_that_fits(inner, value, where)
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(convert(arguments[0], item, where) for item in value)
        fits = False
    elif hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        value = float(value) if fits else value
    elif hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
    else:
        fits = isinstance(value, hint)
    if not fits:
        raise ValueError(f"preset {where} = {value!r} is not a {getattr(hint, '__name__', hint)}.")
    return value


def _first_that_fits(hints: Sequence[Any], value: Any, where: str) -> Any:
    for hint in hints[:-1]:
        try:
            return convert(hint, value, where)
        except ValueError:
            continue
    return convert(hints[-1], value, where)
