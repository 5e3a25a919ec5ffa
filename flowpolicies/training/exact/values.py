"""Plain data of objects: capture into dicts, lists, numbers and arrays, and restoration into an equal object.

Objects are described by what they hold, and a description is only ever written into objects that exist already. So
reading one imports nothing, calls nothing and makes no object besides numbers, containers, arrays and generators.
"""

from __future__ import annotations

import copy
import dataclasses
import enum
import functools
import sys
import types
from collections import deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Protocol, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec

from flowpolicies.training.exact.physics import capture_data, capture_model, restore_data, restore_model

KNOWN = (
    *("gymnasium", "gymnasium_robotics", "stable_baselines3", "ogbench"),
    *("flowpolicies", "flowpolicies_ogbench", "flowpolicies_d4rl", "flowpolicies_minari"),
)
"""Packages whose classes keep their state in attributes of the instance, where it can be read and written."""

FIXED = ("mujoco", "dm_control", "pygame")
"""Packages whose objects either never change after their construction, or only render. MuJoCo's model and data are
exceptions, see `physics`."""

SKIPPED = frozenset(
    {
        *("env", "venv", "envs", "class_attributes", "spec", "metadata", "fullpath"),
        *("t_start", "episode_start_time", "results_writer"),  # They belong to the process: the clock, an open file.
        *("mujoco_renderer", "custom_renderer", "viewer", "screen", "clock", "surf", "window"),
    }
)
"""Attributes that are captured elsewhere, belong to the process, or only render."""

_SHORT = 16
"""Longer lists of numbers, such as a Monitor's returns of all episodes, are stored as arrays."""

_KEPT = {"#": "kept"}
_CODE = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_CONSTANTS = (*_CODE, EnvSpec, enum.Enum, PurePath, np.dtype)
_BIT_GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
_MISSING: Any = object()


@final
class NotCapturedError(Exception):
    """The state of an object cannot be captured, or not be restored here; the text says of which, and why."""


class HasState(Protocol):
    """An object that describes its own state as plain data."""

    def get_state(self) -> Any: ...

    def set_state(self, state: Any) -> None: ...


def is_known(thing: object) -> bool:
    """Whether the class of an object is in one of the packages `KNOWN`."""
    return type(thing).__module__.partition(".")[0] in KNOWN


def class_name(thing: object) -> str:
    """Full name of the class of an object."""
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


@final
class Capture:
    """Captures objects; one that is met again is captured once."""

    def __init__(self) -> None:
        self._seen: dict[int, object] = {}

    def value(self, value: Any, place: str) -> Any:
        """Plain data that describe a value.

        Args:
            value: the value.
            place: where it was found, for errors.

        Raises:
            NotCapturedError: if it holds an object of an unknown class.
        """
        if value is None or (isinstance(value, bool | int | float | str) and type(value).__module__ == "builtins"):
            return value
        if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject and value.dtype.names is None:
            return np.array(value) if isinstance(value, np.ndarray) else {"#": "scalar", "of": np.array(value)}
        if isinstance(value, _CONSTANTS) or type(value).__module__.partition(".")[0] in FIXED:
            return self._simulation(value)
        if (numbers := _numbers(value)) is not None:
            return {"#": "numbers", "of": numbers}
        if isinstance(value, list | tuple | deque):
            items = [self.value(item, f"{place}[{i}]") for i, item in enumerate(value)]
            return (
                items if type(value) is list else {"#": "tuple" if isinstance(value, tuple) else "deque", "of": items}
            )
        if isinstance(value, Mapping):
            pairs = [[self.value(key, place), self.value(item, f"{place}[{key!r}]")] for key, item in value.items()]
            return {"#": "dict", "of": pairs}
        return self._object(value, place)

    def attributes(self, thing: object) -> dict[str, Any]:
        """The attributes of an object as plain data, except those in `SKIPPED`.

        Raises:
            NotCapturedError: as `value`.
        """
        self._seen[id(thing)] = thing
        name = class_name(thing)
        return {key: self.value(item, f"{name}.{key}") for key, item in vars(thing).items() if key not in SKIPPED}

    def _simulation(self, value: Any) -> Any:
        mujoco: Any = sys.modules.get("mujoco")
        if mujoco is None or not isinstance(value, mujoco.MjModel | mujoco.MjData) or id(value) in self._seen:
            return _KEPT
        self._seen[id(value)] = value
        if isinstance(value, mujoco.MjModel):
            return {"#": "model", "of": capture_model(value)}
        return {"#": "data", "of": capture_data(value)}

    def _object(self, value: Any, place: str) -> Any:
        if isinstance(value, np.random.Generator | np.random.RandomState):
            return {"#": "generator", "of": self.value(_generator_state(value), place)}
        if id(value) in self._seen:
            return _KEPT
        if isinstance(value, gym.Space):
            self._seen[id(value)] = value
            return {"#": "space", "of": [self.value(space._np_random, place) for space in parts_of(value)]}
        if not is_known(value) or not hasattr(value, "__dict__"):
            raise NotCapturedError(f"{place} holds an object of {class_name(value)}")
        return {"#": "object", "of": self.attributes(value)}


def restore(value: Any, description: Any, place: str) -> Any:
    """What `Capture.value` described: `value` itself, changed in place, where it is an object; else a new value.

    Args:
        value: the present value at the place.
        description: what `Capture.value` returned for another one.
        place: where it is, for errors.

    Raises:
        NotCapturedError: if the present object does not have the parts of the one that was described.
    """
    if isinstance(description, list):
        return [restore(_item(value, i), item, f"{place}[{i}]") for i, item in enumerate(description)]
    if isinstance(description, np.ndarray):
        return description.copy()
    if not isinstance(description, dict):
        return description
    kind: str = description["#"]
    of: Any = description.get("of")
    if kind == "scalar":
        return of[()]
    if kind == "numbers":
        return of.tolist()
    if kind in ("tuple", "deque"):
        items = restore(value, of, place)
        return (
            deque(items, value.maxlen if isinstance(value, deque) else None)
            if kind == "deque"
            else _tuple(value, items)
        )
    if kind == "dict":
        return _restore_dict(value, of, place)
    if kind == "generator":
        return _restore_generator(value, restore(_MISSING, of, place))
    if value is _MISSING or (value is None and kind != "kept"):
        raise NotCapturedError(f"{place} was an object when the state was saved, and is none now")
    return _RESTORE[kind](value, of, place)


def restore_attributes(thing: Any, description: Mapping[str, Any], place: str = "") -> None:
    """Gives an object the attributes that `Capture.attributes` described."""
    held, place = vars(thing), place or class_name(thing)
    for name, of in description.items():
        held[name] = restore(held.get(name, _MISSING), of, f"{place}.{name}")


def parts_of(space: gym.Space[Any]) -> list[Any]:
    """The space and all spaces inside it, each of which has a random generator."""
    inner = getattr(space, "spaces", ())
    inside = inner.values() if isinstance(inner, Mapping) else inner
    return [space, *(part for child in inside for part in parts_of(child))]


def _numbers(value: Any) -> Any:
    """A long list of floats, or of integers of 64 bits, as an array; None for anything else."""
    if type(value) is not list or len(value) <= _SHORT or {type(item) for item in value} not in ({int}, {float}):
        return None
    array = np.array(value)
    return array if array.dtype in (np.int64, np.float64) and type(array.tolist()[0]) is type(value[0]) else None


def _item(value: Any, index: Any) -> Any:
    try:
        return value[index]
    except (TypeError, LookupError):
        return _MISSING


def _tuple(value: Any, items: list[Any]) -> Any:
    """A tuple, of the class of the present one if it has named fields."""
    return type(value)(*items) if hasattr(type(value), "_fields") else tuple(items)


def _restore_dict(value: Any, pairs: list[Any], place: str) -> Any:
    found = {}
    for described, item in pairs:
        key = restore(_MISSING, described, place)
        found[key] = restore(_item(value, key), item, f"{place}[{key!r}]")
    if type(value) is dict or not isinstance(value, Mapping) or not hasattr(value, "update"):
        return found
    again = copy.copy(value)  # An OrderedDict or defaultdict stays one.
    again.clear()  # type: ignore[attr-defined]
    again.update(found)
    return again


def _restore_object(value: Any, of: Any, place: str) -> Any:
    if not is_known(value):
        raise NotCapturedError(f"{place} is an object of {class_name(value)} now")
    if dataclasses.is_dataclass(value):  # Its instances are values, which several places may share.
        value = copy.copy(value)
    restore_attributes(value, of, place)
    return value


def _restore_space(value: Any, of: Any, place: str) -> Any:
    parts = parts_of(value)
    if len(parts) != len(of):
        raise NotCapturedError(f"{place} is another space now")
    for part, state in zip(parts, of, strict=True):
        part._np_random = restore(part._np_random, state, place)
    return value


def _generator_state(generator: np.random.Generator | np.random.RandomState) -> Any:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state(legacy=False)


def _restore_generator(value: Any, state: dict[str, Any]) -> Any:
    """The present generator in another state, or a new one if there is none or one of another algorithm."""
    name = state["bit_generator"]
    if isinstance(value, np.random.RandomState):
        value.set_state(state)
        return value
    if name not in _BIT_GENERATORS:
        raise NotCapturedError(f"'{name}' is not a bit generator of NumPy")
    if not isinstance(value, np.random.Generator) or type(value.bit_generator).__name__ != name:
        value = np.random.Generator(getattr(np.random, name)())
    value.bit_generator.state = state
    return value


_RESTORE: dict[str, Any] = {
    "kept": lambda value, of, place: value,
    "object": _restore_object,
    "space": _restore_space,
    "model": lambda value, of, place: restore_model(value, of),
    "data": lambda value, of, place: restore_data(value, of),
}
