"""Compilation of losses: when it repays, what it needs, and what happens when it fails.

What is compiled is the gradient of a stage, forward and backward in one graph. The optimiser's step and the target
copies are few large operations, which run eagerly.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Hashable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple, TypeVar, final

import torch

from flowpolicies.choices import CompileChoice, check_compile
from flowpolicies.core.compile_times import CompileTimes, cache_folder

T = TypeVar("T")

MEASURED = 10
"""Number of eager calls that are timed before `auto` decides."""
SAVING = {"small": 0.35, "large": 0.07}
"""Share of the eager time that a compiled call saves at least, as measured on CPUs (docs/guides/speed.md)."""
SMALL_SECONDS = 0.012
"""Eager time below which a call counts as small: it consists mainly of the launching of operations."""
MARGIN = 1.5
"""How many times its cost compilation must save, by the estimate, before `auto` compiles."""


class CompilationError(ValueError):
    """An update cannot be compiled, although `compile=True` asks for it."""


def missing_for(device: torch.device) -> str | None:
    """What this machine lacks to compile for a device, with the package to install; None if nothing is missing."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            return "Triton is not installed (pip install triton)"
        if not any(map(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang"))):
            return "there is no C compiler, which Triton needs (install gcc, for example by: apt install gcc)"
    elif not _has_cpp_compiler():
        install = {"darwin": "xcode-select --install", "win32": "the Build Tools for Visual Studio, with C++"}
        package = install.get(sys.platform, "g++, for example by: apt install g++, or: dnf install gcc-c++")
        return f"there is no C++ compiler (install {package}; the variable CXX may name another one)"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        return "the headers of Python are missing (install python3-dev, or python3-devel)"
    return None


def _has_cpp_compiler() -> bool:
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return shutil.which(get_cpp_compiler()) is not None
    except Exception:  # Its kind depends on the version of torch.
        return False


class _Timing(NamedTuple):
    """The eager calls of a function."""

    calls: int
    """Number of calls so far."""
    fastest: float
    """Seconds that the fastest call took."""


@final
class Compiler:
    """Calls pure functions of tensors, compiled if that was asked for or if it repays.

    A function is compiled at its first call, for the shapes of that call. If this fails, `auto` goes on eagerly.

    Args:
        choice: as of `check_compile`, and not False.
        device: where the tensors are.
        variant: what else decides the compiled code, besides names and shapes.
    """

    def __init__(self, choice: CompileChoice, device: torch.device, variant: Hashable = None) -> None:
        check_compile(choice)
        self.choice, self.device = choice, device
        self.updates_to_come = 0
        """Number of updates that will follow, as far as the caller knows; for `auto`."""
        self.is_off = False
        """Whether everything is eager from now on, after a warning."""
        self._compiled: dict[Hashable, Callable[..., Any]] = {}
        self._eager: dict[Hashable, _Timing] = {}
        self._times = CompileTimes(variant)

    @property
    def reuses_outputs(self) -> bool:
        """Whether the next call may overwrite the tensors that the last one returned, as CUDA graphs do."""
        return bool(self._compiled) and self.device.type == "cuda"

    def __call__(self, names: tuple[str, ...], size: int, function: Callable[..., T], inputs: Sequence[Any]) -> T:
        """The result of `function(names, *inputs)`.

        Args:
            names: names of the loss terms, which the function gets as its first argument.
            size: size of the batch. Each size is compiled separately.
            function: a function without side effects.
            inputs: tuples and dicts of tensors.

        Raises:
            CompilationError: if compiling fails, and the choice is not "auto".
        """
        key = (names, size)
        run = self._compiled.get(key)
        if run is not None:
            if self.device.type == "cuda":
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
            result: T = run(names, *inputs)
            return result
        if self.is_off:
            return function(names, *inputs)
        if self.choice == "auto" and not self._repays(key, inputs):
            began = time.perf_counter()
            result = function(names, *inputs)
            calls, fastest = self._eager.get(key, _Timing(0, math.inf))
            self._eager[key] = _Timing(calls + 1, min(fastest, time.perf_counter() - began))
            return result
        return self._first_call(key, function, inputs)

    def _repays(self, key: Hashable, inputs: Sequence[Any]) -> bool:
        """Whether compiling saves more time in the updates to come than it takes."""
        timing = self._eager.get(key)
        if timing is None or timing.calls < MEASURED:
            return False
        share = timing.calls / max(other.calls for other in self._eager.values())
        saved = SAVING["small" if timing.fastest < SMALL_SECONDS else "large"] * timing.fastest
        return self.updates_to_come * share * saved > MARGIN * self._times.expected(key, inputs)

    def _first_call(self, key: Any, function: Callable[..., T], inputs: Sequence[Any]) -> T:
        names = key[0]
        with_inductor = self.choice in (True, "auto")
        missing = missing_for(self.device) if with_inductor else None
        if missing is not None:
            return self._go_on_eagerly(missing, function, names, inputs)
        run = torch.compile(
            _with_own_code(function, names),
            backend="inductor" if with_inductor else self.choice,  # type: ignore[arg-type]
            fullgraph=True,
            dynamic=False,
            options=_options(self.device) if with_inductor else None,
        )
        began = time.perf_counter()
        try:
            with cache_folder():
                result = run(names, *inputs)
        except Exception as error:  # A compiler may fail in any way.
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
            if self.choice == "auto":
                return self._go_on_eagerly(f"the compiler failed ({reason})", function, names, inputs)
            raise CompilationError(
                f"the losses {', '.join(names)} could not be compiled ({reason}). Train without compiling them: "
                'compile=False (--compile False), or compile="auto", which goes on without it.'
            ) from error
        if with_inductor:
            self._times.record(key, inputs, time.perf_counter() - began)
        self._compiled[key] = run
        return result

    def _go_on_eagerly(self, why: str, function: Callable[..., T], names: Sequence[str], inputs: Sequence[Any]) -> T:
        self.is_off = True
        warnings.warn(f"Updates are not compiled, so they are slower: {why}.", UserWarning, stacklevel=6)
        return function(names, *inputs)


def _options(device: torch.device) -> dict[str, Any]:
    """Options of inductor. Half of the checks before each call are about attributes of modules, which do not change
    while a learner lives: without them a compiled update of small networks is faster by a twentieth."""
    options: dict[str, Any] = {"triton.cudagraphs": True} if device.type == "cuda" else {}
    if hasattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe"):  # Since torch 2.9.
        options["guard_filter_fn"] = torch.compiler.skip_guard_on_all_nn_modules_unsafe
    return options


def _with_own_code(function: Callable[..., T], names: Sequence[str]) -> Callable[..., T]:
    """The function with a code object of its own.

    Torch keeps what it compiled with the code object, and at most eight variants of it. Without this, the ninth model
    of a process could not be compiled.
    """
    method: Any = getattr(function, "__func__", function)
    code = method.__code__.replace(co_name="_".join(("gradients_of", *names)))
    own = FunctionType(code, method.__globals__, code.co_name, method.__defaults__, method.__closure__)
    own.__kwdefaults__ = method.__kwdefaults__
    bound = getattr(function, "__self__", None)
    return own if bound is None else own.__get__(bound)
