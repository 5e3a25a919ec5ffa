"""Checks of what a policy declares: types of options, and bounds of everything that costs memory or time."""

from __future__ import annotations

import dataclasses
import inspect
import math
import reprlib
import types
from collections.abc import Mapping, Sequence
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.networks import NETWORKS
from flowpolicies.plugins import OURS, home_of
from flowpolicies.samplers import SAMPLERS, Sampler

MAX_NETWORKS, MAX_LAYERS, MAX_WIDTH, MAX_ENSEMBLE = 64, 64, 1 << 16, 1000
"""Largest numbers of networks, of layers, of units of a layer, and of members of an ensemble."""
MAX_HORIZON, MAX_COUNT, MAX_CALLS, MAX_NESTING = 10_000, 10_000, 1_000_000, 8
"""Largest horizon, number of steps or candidates of one sampler, product of these over nested samplers, and number of
samplers inside each other."""
MAX_FOREIGN = 1 << 31
"""Bound of whole numbers among the options of classes of other packages."""
MAY_BE_INFINITE = ("limit", "clip", "alarm", "norm_running", "norm_mean", "norm_max", "log_std_bounds")
"""Options of classes of flowpolicies that may be infinite."""


def check_count(name: str, value: Any, largest: int) -> int:
    """The value, if it is a whole number from 1 to a bound.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or not 1 <= int(value) <= largest:
        raise ValueError(f"{name} must be a whole number from 1 to {largest:,}, got {reprlib.repr(value)}")
    return int(value)


def check_networks(networks: Mapping[str, Network]) -> None:
    """Checks number, options and rates of networks, before any is built.

    Raises:
        ValueError: for a number beyond its bound, and for an option of another type.
    """
    if len(networks) > MAX_NETWORKS:
        raise ValueError(f"a policy has at most {MAX_NETWORKS} networks, got {len(networks)}")
    for name, network in networks.items():
        factory = network.factory if isinstance(network.factory, partial) else partial(network.factory)
        if isinstance(factory.func, type):
            _check_options(factory.func, factory.keywords, f"network {name!r}: ")
        for rate in ("target_rate", "learning_rate"):
            _check_value(f"network {name!r}: {rate}", float | None, value := getattr(network, rate))
            _check_numbers(f"network {name!r}: {rate}", rate, value, MAX_WIDTH, positive=False)


def _check_options(cls: Any, options: Mapping[str, Any], what: str) -> None:
    ours, hints = _is_ours(cls), _hints_of_constructor(cls)
    for key, value in options.items():
        if ours and key not in hints:
            raise ValueError(f"{what}{cls.__name__} has no option {key!r}.{did_you_mean(key, hints)}")
        _check_value(f"{what}{key}", hints.get(key, Any), value)
        _check_numbers(f"{what}{key}", key, value, MAX_WIDTH if ours else MAX_FOREIGN, positive=ours)
        if key == "ensemble" and value is not None:
            check_count(f"{what}{key}", value, MAX_ENSEMBLE)


def check_sampler(sampler: Sampler, networks: Mapping[str, Any], what: str = "sampler") -> None:
    """Checks the fields of a sampler and of those inside it.

    Args:
        sampler: the sampler.
        networks: the networks of the policy, by name.
        what: how messages call it.

    Raises:
        ValueError: for a number beyond its bound, a field of another type, and a network that the policy does not have.
    """
    if (calls := _check_nested(sampler, networks, what, 1)) > MAX_CALLS:
        raise ValueError(f"{what} may need at most {MAX_CALLS:,} network calls per action, got {calls:,}")


def _check_nested(sampler: Any, networks: Mapping[str, Any], what: str, depth: int) -> int:
    """Checks a sampler, and returns the product of its counts and those inside it."""
    cls: Any = type(sampler)
    if depth > MAX_NESTING:
        raise ValueError(f"{what} contains samplers more than {MAX_NESTING} deep")
    if not dataclasses.is_dataclass(type(sampler)):  # An object of the process, which no file declared.
        return 1
    ours, hints = _is_ours(cls), _hints(cls)
    counts, inner = 1, 1
    for field in dataclasses.fields(cls):
        value, hint, name = getattr(sampler, field.name, None), hints.get(field.name, Any), f"{what}: {field.name}"
        _check_value(name, hint, value)
        _check_numbers(name, field.name, value, MAX_COUNT if ours else MAX_FOREIGN, positive=False)
        if field.name in ("n", "steps") and isinstance(value, Integral):
            counts *= check_count(name, value, MAX_COUNT)
        if ours and hint is str and value not in networks:
            raise ValueError(f"{name} is the network {reprlib.repr(value)}, and the policy has: {', '.join(networks)}")
        if dataclasses.is_dataclass(value):
            inner = max(inner, _check_nested(value, networks, name, depth + 1))
    return counts * inner


def _check_length(name: str, value: Any) -> None:
    if isinstance(value, Mapping | list | tuple) and len(value) > MAX_LAYERS:
        raise ValueError(f"{name} may have at most {MAX_LAYERS} elements, got {len(value)}")


def _check_value(name: str, hint: Any, value: Any) -> None:
    _check_length(name, value)
    if not _fits(hint, value):
        words = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint).replace("typing.", "")
        raise ValueError(f"{name} must be {words}, got {reprlib.repr(value)}")


def _check_numbers(name: str, option: str, value: Any, largest: int, *, positive: bool) -> None:
    """Checks the numbers in a value, whatever its annotation: none may be NaN, or whole and too large."""
    if isinstance(value, str | bool | None):
        return
    if isinstance(value, Mapping | Sequence):
        _check_length(name, value)
        for part in value.values() if isinstance(value, Mapping) else value:
            _check_numbers(name, option, part, largest, positive=positive)
    elif isinstance(value, Integral):
        if abs(int(value)) > largest or (positive and int(value) < 1):
            raise ValueError(f"{name} must be a whole number from 1 to {largest:,}, got {value}")
    elif isinstance(value, Real) and (math.isnan(value) or (math.isinf(value) and option not in MAY_BE_INFINITE)):
        raise ValueError(f"{name} must be finite, got {value}")


def _fits(hint: Any, value: Any) -> bool:
    """Whether a value is of an annotated type; true for annotations that are not understood."""
    origin, options = get_origin(hint), get_args(hint)
    if hint is Sampler:
        return dataclasses.is_dataclass(value) and callable(value) and SAMPLERS.name_of(type(value)) is not None
    if origin in (Union, types.UnionType):
        return any(_fits(option, value) for option in options)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if origin is tuple and options and options[-1] is not ...:
        return isinstance(value, tuple | list) and len(value) == len(options) and all(map(_fits, options, value))
    if origin is tuple or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return isinstance(value, tuple | list) and all(_fits(options[0], part) for part in value)
    kinds = {int: Integral, float: Real, bool: bool, str: str, None: types.NoneType, types.NoneType: types.NoneType}
    if hint not in kinds:
        return True
    return isinstance(value, kinds[hint]) and (hint is bool or not isinstance(value, bool))


def _is_ours(cls: type[Any]) -> bool:
    return home_of(cls)[0].partition(".")[0] == OURS


@cache
def _hints(thing: Any) -> dict[str, Any]:
    try:
        return get_type_hints(thing)
    except Exception:  # Annotations of other packages may name anything.
        return {}


@cache
def _hints_of_constructor(cls: Any) -> dict[str, Any]:
    """Annotations of the options of a network, those that its constructor passes on to its parents included."""
    found: dict[str, Any] = {}
    for parent in reversed(cls.__mro__):
        if issubclass(parent, nn.Module) and parent is not nn.Module:
            init = parent.__init__
            hints = _hints(init)
            found |= {
                name: hints.get(name, Any)
                for name, parameter in inspect.signature(init).parameters.items()
                if parameter.kind is inspect.Parameter.KEYWORD_ONLY
            }
    return found


def is_built_in(network: Network) -> bool:
    """Whether a network is of a class of flowpolicies."""
    factory: Any = network.factory.func if isinstance(network.factory, partial) else network.factory
    name = NETWORKS.name_of(factory) if isinstance(factory, type) else None
    return name is not None and NETWORKS.is_built_in(name)


# Annotations are evaluated now, so that nothing is evaluated while a file is read.
_network: Any
_sampler: Any
for _network in NETWORKS.declared.values():
    _hints_of_constructor(_network)
for _sampler in SAMPLERS.declared.values():
    _hints(_sampler)
