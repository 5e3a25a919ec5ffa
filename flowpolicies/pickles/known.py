"""What pickles of models and replay buffers may name: classes of Stable-Baselines3 and Gymnasium, arrays, tensors."""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PosixPath, PurePath, PurePosixPath, PureWindowsPath, WindowsPath
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from stable_baselines3.her.goal_selection_strategy import GoalSelectionStrategy

from flowpolicies.pickles import arrays
from flowpolicies.pickles.machine import UnknownName
from flowpolicies.pickles.spaces import fill_space

NAMED = (BasePolicy, BaseBuffer, BaseFeaturesExtractor, ActionNoise)
"""A pickle may name classes that this process has imported already and that derive from one of these."""
FILLED = (ReplayBuffer, ActionNoise, FloatSchedule, ConstantSchedule, LinearSchedule)
"""A pickle may hold objects of these classes and of those that derive from them."""

_SPACES = (spaces.Box, spaces.Dict, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
_ENUMS = (TrainFrequencyUnit, GoalSelectionStrategy)
_PATHS = (PurePosixPath, PureWindowsPath, PosixPath, WindowsPath)


def _home(thing: Any) -> tuple[str, str]:
    return thing.__module__, thing.__qualname__


def _ordered(pairs: Any = ()) -> OrderedDict[str, Any]:
    return OrderedDict((str(key), value) for key, value in pairs)


def _deque(items: Any = (), length: Any = None) -> deque[Any]:
    return deque(list(items), length)


def _reconstructor(cls: Any, base: Any, state: Any) -> Any:
    raise ValueError("it was written by an old protocol of pickle")


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise ValueError("bytes are not in latin1")
    return text.encode("latin1")


def _path(*parts: Any) -> PurePath:
    if not all(type(part) is str for part in parts):
        raise ValueError("a path has parts that are not texts")
    return Path(*parts)


_NUMPY = ("numpy.core", "numpy._core")
_NAMES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "deque"): deque,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    **{(f"{package}.numeric", "_frombuffer"): arrays.from_buffer for package in _NUMPY},
    **{(f"{package}.multiarray", "_reconstruct"): arrays.empty_array for package in _NUMPY},
    **{(f"{package}.multiarray", "scalar"): arrays.scalar for package in _NUMPY},
    ("numpy.random._pickle", "__generator_ctor"): arrays.generator,
    ("numpy.random._pickle", "__bit_generator_ctor"): arrays.bit_generator,
    ("numpy.random.bit_generator", "SeedSequence"): np.random.SeedSequence,
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence"): arrays.seed_sequence,
    **{("numpy.random._pcg64", name): cls for name, cls in arrays.GENERATORS.items()},
    ("torch", "device"): torch.device,
    ("torch", "Size"): torch.Size,
    ("torch.storage", "_load_from_bytes"): arrays.storage,
    ("torch._utils", "_rebuild_tensor_v2"): arrays.tensor,
    **{(module, cls.__qualname__): cls for cls in _PATHS for module in ("pathlib", "pathlib._local")},
    **{_home(cls): cls for cls in (*_SPACES, *_ENUMS, *FILLED, TrainFreq)},
}

_CALLS: tuple[tuple[Any, Callable[..., Any]], ...] = (
    (OrderedDict, _ordered),
    (deque, _deque),
    (np.dtype, arrays.dtype),
    (torch.device, arrays.device),
    (torch.Size, lambda sizes: torch.Size(arrays._checked_shape(tuple(sizes)))),
    *((cls, _path) for cls in _PATHS),
    *((cls, cls) for cls in _ENUMS),
    *((function, function) for function in (_encoded, arrays.from_buffer, arrays.empty_array, arrays.scalar)),
    *((function, function) for function in (arrays.generator, arrays.bit_generator, arrays.seed_sequence)),
    *((function, function) for function in (arrays.storage, arrays.tensor)),
)

_FILLS: dict[type, Callable[[Any, Any], None]] = {
    np.ndarray: arrays.fill_array,
    np.random.Generator: arrays.fill_generator,
    arrays.Seed: arrays.fill_seed,
    **dict.fromkeys(arrays.GENERATORS.values(), arrays.fill_bit_generator),
    **dict.fromkeys(_SPACES, fill_space),
}


@final
class Known:
    """A vocabulary: what this module lists, and classes of the caller.

    Args:
        filled: further classes whose objects, and those of classes that derive from them, a pickle may hold.
        named: further classes that a pickle may name, with those that derive from them.
        calls: name -> function that a pickle may call, which checks its arguments.
        moved: old name of a module -> its present one.
        load: called with the module of an unknown name, to import the package that registered it, if one did.
        checks: class -> function that raises a ValueError for a state that its objects must not be given.
    """

    def __init__(
        self,
        filled: Iterable[type] = (),
        named: Iterable[type] = (),
        calls: Mapping[tuple[str, str], Callable[..., Any]] | None = None,
        moved: Mapping[str, str] | None = None,
        load: Callable[[str], None] = lambda module: None,
        checks: Mapping[type, Callable[[Any], None]] | None = None,
    ) -> None:
        self.filled = (*FILLED, *filled)
        self.named = (*NAMED, *self.filled, *named)
        self.names = {**_NAMES, **(calls or {})}
        self.calls = {id(thing): call for thing, call in (*_CALLS, *((call, call) for call in (calls or {}).values()))}
        self.moved, self.load, self.checks = moved or {}, load, checks or {}

    def find(self, module: str, name: str) -> Any:
        """The object of a name.

        Raises:
            UnknownName: if it is neither listed nor a class of a known kind that this process has imported.
        """
        module = self.moved.get(module, module)
        if (module, name) in self.names:
            return self.names[module, name]
        numbers = {"numpy": np.generic, "torch": torch.dtype}.get(module)
        if numbers is not None:
            found = getattr(sys.modules[module], name, None)
            kind = isinstance(found, type) and issubclass(found, np.generic) if module == "numpy" else None
            if kind or (module == "torch" and isinstance(found, torch.dtype)):
                return found
        found = imported_class(module, name)
        if found is None:
            self.load(module)
            found = imported_class(module, name)
        activation = module == "torch.nn.modules.activation"
        if found is None or not (activation or issubclass(found, self.named)):
            raise UnknownName(module, name)
        return found

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """What calling a listed function makes."""
        if id(function) not in self.calls:
            raise ValueError(f"it calls {getattr(function, '__qualname__', type(function).__name__)}")
        return self.calls[id(function)](*arguments)

    def make(self, cls: Any, arguments: tuple[Any, ...]) -> Any:
        """A new object of a class, not yet filled."""
        if cls is TrainFreq and len(arguments) == 2:
            return TrainFreq(*arguments)
        if not isinstance(cls, type) or arguments or not (cls in _SPACES or issubclass(cls, self.filled)):
            raise ValueError(f"it makes an object of {getattr(cls, '__qualname__', type(cls).__name__)}")
        return cls.__new__(cls)

    def fill(self, thing: Any, state: Any) -> None:
        """Gives an object its state."""
        cls = type(thing)
        if isinstance(thing, np.dtype):
            arrays.fill_dtype(thing, state)
        elif cls in _FILLS:
            _FILLS[cls](thing, state)
        elif not isinstance(thing, self.filled):
            raise ValueError(f"it gives a state to an object of {cls.__qualname__}")
        elif not isinstance(state, dict) or not all(type(key) is str and key[:2] != "__" for key in state):
            raise ValueError(f"an object of {cls.__qualname__} has a state that is not a dict of names")
        else:
            if cls in self.checks:
                self.checks[cls](state)
            set_state = getattr(thing, "__setstate__", thing.__dict__.update)
            set_state(state)


def imported_class(module: str, name: str) -> type | None:
    """The class of a name, if its module is imported already and it is at home there."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) and _home(found) == (module, name) else None
