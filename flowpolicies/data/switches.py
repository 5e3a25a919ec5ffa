"""Options that are on or off: the one place that decides which values are true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

import numpy as np

_ALWAYS = ("trust", "verify", "overwrite")
"""Options that are switches whatever function receives them, also as one of its `**options`."""

_ANNOTATIONS = (bool, bool | None, "bool", "bool | None", "Optional[bool]")


def as_switch(key: str, value: Any) -> bool:
    """The value of an option that is on or off.

    Raises:
        ValueError: unless it is true or false; 0, 1, "no" and "none" are refused, because they are easily mistaken.
    """
    if not isinstance(value, bool | np.bool_):
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
