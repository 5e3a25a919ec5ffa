"""Range checks of config fields, driven by their type annotations.

A field of type `int` must be at least 1, a `float` must be finite, a `Literal` must be one of its options; the types
below have ranges of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from numbers import Integral, Real
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from flowpolicies.moved import moved_names


class Bounds(NamedTuple):
    """The range of a number, as an annotation of its type."""

    words: str
    """The range in the words of an error message, after "must": "be at least 0"."""
    hold: Callable[[Any], bool]
    """Whether a number lies in the range."""


NonNegativeInt = Annotated[int, Bounds("be at least 0", lambda n: n >= 0)]
"""A whole number that may be 0. A plain `int` must be at least 1."""
UnitInterval = Annotated[float, Bounds("lie in [0, 1)", lambda x: 0 <= x < 1)]
"""A number in [0, 1), such as the decay of an average or an expectile."""
Probability = Annotated[float, Bounds("lie in [0, 1]", lambda x: 0 <= x <= 1)]
"""A number in [0, 1], both ends included."""
Rate = Annotated[float, Bounds("lie in (0, 1]", lambda x: 0 < x <= 1)]
"""A rate in (0, 1], such as a Polyak rate."""
PositiveFloat = Annotated[float, Bounds("be greater than 0", lambda x: x > 0)]
"""A number greater than 0."""
NonNegativeFloat = Annotated[float, Bounds("be at least 0", lambda x: x >= 0)]
"""A number that may be 0, such as a learning rate; 0 stops learning, as tools that only load a model set it."""
GradientSteps = Annotated[int, Bounds("be at least 0, or -1", lambda n: n >= -1)]
"""A number of updates per round of collection; -1: as many as environment steps were collected."""
KINDS: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}
"""Type of a field -> types that are accepted for it, and its name in errors."""


@cache
def hints_of(config: Any) -> dict[str, Any]:
    """Annotations of the fields of a dataclass, evaluated once."""
    return get_type_hints(config, include_extras=True)


def check_fields(config: Any, hints: Mapping[str, Any] | None = None) -> None:
    """Raises a ValueError or a TypeError for the first field of a dataclass whose value is not valid for its type.

    Args:
        config: instance of the dataclass.
        hints: name of each field -> its type; None: the annotations of the class.
    """
    kind: Any = type(config)
    hints = hints_of(kind) if hints is None else hints
    for field in fields(config):
        check_value(field.name, hints[field.name], getattr(config, field.name))


def check_config(config: Any, hints: Mapping[str, Any] | None = None) -> None:
    """Checks the fields of an algorithm's Config one by one and together; lists become tuples.

    Raises:
        ValueError: if a value is out of its range, or has no effect beside another one.
        TypeError: if a value has another type.
    """
    for field in fields(config):
        if isinstance(given := getattr(config, field.name), list):  # YAML and JSON have lists in place of tuples.
            object.__setattr__(config, field.name, tuple(given))
    check_fields(config, hints)
    if config.execute is not None and config.execute > config.horizon:
        raise ValueError(
            f"execute must lie in 1..horizon={config.horizon} or be None (the whole chunk), got {config.execute}"
        )
    if getattr(config, "q_agg", None) == "min" and config.rho != type(config).rho and not config.uses_rho_with_min:
        raise ValueError(
            f'rho={config.rho} has no effect on the minimum over critics: pass q_agg="mean" with it, or leave it out'
        )


def added_fields(config: type[Any]) -> dict[str, Any]:
    """Fields that a class and its bases declare as `added` -> the values that act as if there were no such fields."""
    return {name: old for cls in reversed(config.__mro__) for name, old in vars(cls).get("added", {}).items()}


def check_value(name: str, hint: Any, given: Any) -> None:
    """Raises a ValueError or a TypeError unless the value has the type and lies in its range."""
    options = get_args(hint)
    if type(None) in options:
        if given is None:
            return
        hint, options = options[0], get_args(options[0])
    if get_origin(hint) is Literal and given not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {given!r}")
    if hint == tuple[int, ...]:
        _check_sizes(name, given)
    plain, *notes = options if get_origin(hint) is Annotated else (hint,)
    bounds = next((note for note in notes if isinstance(note, Bounds)), None)
    accepted, words = KINDS.get(plain, (object, ""))
    if not isinstance(given, accepted):
        raise TypeError(f"{name} must be {words}, got {given!r}")
    if plain is float and not math.isfinite(given):
        raise ValueError(f"{name} must be finite, got {given}")
    if plain is int and bounds is None:
        bounds = Bounds("be at least 1", lambda n: n >= 1)
    if bounds is not None and not bounds.hold(given):
        raise ValueError(f"{name} must {bounds.words}, got {given}")


def _check_sizes(name: str, given: Any) -> None:
    if not isinstance(given, tuple | list) or not all(isinstance(size, Integral) for size in given):
        raise TypeError(f"{name} must be a tuple of whole numbers, such as (256, 256), got {given!r}")
    if any(size < 1 for size in given):
        raise ValueError(f"{name} must hold numbers of at least 1, got {given}")


__getattr__ = moved_names(
    __name__,
    {
        "Natural": "flowpolicies.shell.fields:NonNegativeInt",
        "Positive": "flowpolicies.shell.fields:PositiveFloat",
        "Rounds": "flowpolicies.shell.fields:GradientSteps",
        "Share": "flowpolicies.shell.fields:UnitInterval",
        "WholeShare": "flowpolicies.shell.fields:Probability",
    },
)
