"""Checks of device names."""

from __future__ import annotations

import importlib
import re
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # Importing torch takes a second, and most names are known without it.
    import torch

KINDS = (
    *("cpu", "cuda", "ipu", "xpu", "mkldnn", "opengl", "opencl", "ideep", "hip", "ve", "fpga", "maia", "xla", "lazy"),
    *("vulkan", "mps", "meta", "hpu", "mtia", "privateuseone"),
)
"""Kinds of devices that torch knows by itself."""


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
