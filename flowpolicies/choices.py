"""How and where updates are computed: `compile`, `precision` and `device`, and their checks. It imports no torch."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # Importing torch takes a second, and most names of devices are known without it.
    import torch

CompileChoice = bool | str | Callable[..., Any]
"""Whether losses are compiled. True, False, "auto" (if it repays); or a backend of `torch.compile`, by name or as a
function, for tests and for finding the cause of an error."""

Precision = Literal["fp32", "tf32", "bf16"]
"""Number type of the factors of matrix products and convolutions in updates. fp32: float32. tf32: TF32, which only
NVIDIA GPUs have. bf16: bfloat16."""

KINDS = (
    *("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy"),
    *("vulkan", "mps", "meta", "hpu", "mtia", "privateuseone"),
)
"""Kinds of devices that torch knows by itself."""


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


def check_device(device: torch.device | str) -> torch.device | str:
    """The device, unchanged.

    Raises:
        ValueError: if there is no device of this kind.
    """
    if device != "auto" and not (isinstance(device, str) and _is_known(device)):
        try:
            importlib.import_module("torch").device(device)
        except RuntimeError as error:
            raise _unknown(device) from error
    return device


def require_device(device: torch.device | str) -> torch.device | str:
    """The device, unchanged, if this machine has it; Stable-Baselines3 would use the CPU instead of a missing GPU.

    Raises:
        ValueError: if there is no device of this kind, or not here.
    """
    check_device(device)
    if device == "auto":
        return device
    try:
        importlib.import_module("torch").empty(0, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:  # An AssertionError if torch has no CUDA at all.
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"the device '{device}' is not available here: {reason}. Pass 'cpu', or 'auto' for CUDA if it is available."
        ) from error
    return device


def _is_known(device: str) -> bool:
    """Whether a name is surely that of a device; False: torch has to decide.

    Raises:
        ValueError: if it is surely not.
    """
    kind, index = match.groups() if (match := re.fullmatch(r"([a-z]+)(:\d+)?", device)) else (None, None)
    if kind in KINDS:
        return index is None or len(index) == 2
    if kind is None or not ("torch" in sys.modules or entry_points(group="torch.backends")):  # They may add kinds.
        raise _unknown(device)
    return False


def _unknown(device: torch.device | str) -> ValueError:
    return ValueError(f"unknown device {device!r}: pass 'auto', 'cpu', 'cuda', or one such as 'cuda:1'")
