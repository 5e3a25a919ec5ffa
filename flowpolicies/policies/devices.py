"""Checks of device names."""

from __future__ import annotations

import torch


def check_device(device: torch.device | str) -> torch.device | str:
    """The device, unchanged.

    Raises:
        ValueError: if there is no device of this kind.
    """
    if device != "auto":
        try:
            torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"unknown device {device!r}: pass 'auto', 'cpu', 'cuda', or one such as 'cuda:1'"
            ) from error
    return device
