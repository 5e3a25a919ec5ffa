"""Names of devices."""

from __future__ import annotations

import torch


def check_device(device: torch.device | str) -> torch.device | str:
    """The device as it was given.

    Raises:
        ValueError: if there is no such kind of device.
    """
    if device != "auto":
        try:
            torch.device(device)
        except RuntimeError as error:
            raise ValueError(
                f"unknown device {device!r}: pass 'auto', 'cpu', 'cuda', or one such as 'cuda:1'"
            ) from error
    return device
