"""Checks of options: which ones a source has, and the one place that decides which values are true."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any

from flowpolicies.data.names import check_storage
from flowpolicies.messages import did_you_mean

_ALWAYS = ("trust", "verify", "overwrite")
"""Options that are switches whatever function receives them, also as one of its `**options`."""

FOR_ANY_SOURCE = ("storage", "compact", "cache_dir", "min_length")
"""Options of `load_dataset` that the functions of sources need not have."""

_ANNOTATIONS = (bool, bool | None, "bool", "bool | None", "Optional[bool]")


def as_switch(key: str, value: Any) -> bool:
    """The value of an option that is on or off.

    Raises:
        ValueError: unless it is true or false; 0, 1, "no" and "none" are refused, because they are easily mistaken.
    """
    if isinstance(value, bool):
        return value
    numpy = sys.modules.get("numpy")  # Not imported for this: the command line splits addresses without it.
    if numpy is None or not isinstance(value, numpy.bool_):
        raise ValueError(f"{key} is {value!r}, and must be true or false.")
    return bool(value)


def check_switches(function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Checks that options are true or false where the function's arguments are by their default value or annotation.

    Raises:
        ValueError: if one is not. None is accepted where it is the default value.
    """
    parameters = signature(function).parameters
    for key, value in options.items():
        parameter = parameters.get(key)
        is_switch = parameter is not None and (
            isinstance(parameter.default, bool) or parameter.annotation in _ANNOTATIONS
        )
        may_be_none = parameter is not None and parameter.default is None
        if (is_switch or key in _ALWAYS) and not (value is None and may_be_none):
            as_switch(key, value)


def check_own_options(storage: Any, compact: Any, min_length: Any) -> None:
    """Raises a ValueError for a value that an option of `load_dataset` itself cannot have."""
    if storage is not None:
        check_storage(storage)
    as_switch("compact", compact)
    if min_length is not None and (isinstance(min_length, bool) or not isinstance(min_length, int) or min_length < 1):
        raise ValueError(f"min_length is {min_length!r}, and must be a whole number of steps, at least 1.")


def check_options(source: str, load: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises a ValueError for an option that the source does not have; a TypeError would name internal functions."""
    check_switches(load, options)
    parameters = signature(load).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [key for key, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY]
    if unknown := [key for key in options if key not in own]:
        hint = did_you_mean(unknown[0], [*own, *FOR_ANY_SOURCE])
        raise ValueError(f"the source '{source}' has no option {unknown}; it has {', '.join(own) or 'none'}.{hint}")


def keywords(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters that have a default."""
    parameters = signature(function).parameters
    return {key: parameter for key, parameter in parameters.items() if parameter.default is not parameter.empty}
