"""How updates are computed: the choices of `compile` and `precision`, and their checks. Importing it loads no torch."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any, Literal

CompileChoice = bool | str | Callable[..., Any]
"""Whether losses are compiled. True, False, "auto" (if it repays); or a backend of `torch.compile`, by name or as a
function, for tests and for finding the cause of an error."""

Precision = Literal["fp32", "tf32", "bf16"]
"""Number type of the factors of matrix products and convolutions in updates. fp32: float32. tf32: TF32, which only
NVIDIA GPUs have. bf16: bfloat16."""


def check_compile(choice: CompileChoice) -> None:
    """Raises a ValueError or a TypeError unless `choice` is one that `Learner` takes, with those that it takes."""
    if isinstance(choice, bool) or choice == "auto" or callable(choice):
        return
    if not isinstance(choice, str):
        raise TypeError(f'compile must be True, False or "auto", got {choice!r}')
    # It takes seconds, and is needed for names of backends only.
    known = importlib.import_module("torch._dynamo").list_backends(exclude_tags=())
    if choice not in known:
        raise ValueError(
            f'compile must be True, False or "auto", got {choice!r}. For debugging, it may also be the name of a '
            f"backend of torch.compile: {', '.join(known)}"
        )


def choice_of_backend(backend: str | Callable[..., Any] | None) -> CompileChoice:
    """What `compile` has to be for a value of `compile_backend`, the former name."""
    return False if backend in (None, "None") else True if backend == "inductor" else backend


def deprecated_backend(backend: str | Callable[..., Any]) -> CompileChoice:
    """As `choice_of_backend`, with a deprecation warning, for a caller who used the former name."""
    choice = choice_of_backend(backend)
    warnings.warn(
        f"compile_backend={backend!r} is now compile={choice!r}; the old name works until 1.0.",
        DeprecationWarning,
        stacklevel=3,
    )
    return choice
