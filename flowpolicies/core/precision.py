"""The number type of matrix products in updates: float32, TF32 or bfloat16.

Weights, activations, LayerNorm, losses, gradients and Adam are float32 in any case.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor, nn

from flowpolicies.choices import Precision


def check_precision(precision: str, device: torch.device) -> None:
    """Raises a ValueError unless the device has units for products of this precision."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(map(repr, get_args(Precision)))}, got {precision!r}")
    if precision == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise ValueError(
            'precision="tf32" needs an NVIDIA GPU of compute capability 8.0 or higher (Ampere), and the device is '
            f'{device}. Pass precision="fp32".'
        )
    if precision == "bf16" and not has_bfloat16(device):
        needed = "a processor with avx512_bf16, amx_bf16 or Arm's bf16" if device.type == "cpu" else "another device"
        if device.type == "cuda":
            needed = "an NVIDIA GPU of compute capability 8.0 or higher (Ampere), or an AMD one"
        raise ValueError(
            f'precision="bf16" needs units for products in bfloat16, and {device} has none: it takes {needed}. '
            'Pass precision="fp32".'
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are computed by units for them, instead of being emulated."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def factors_of(module: nn.Module) -> frozenset[str]:
    """Names of the parameters that are factors of products: those that modules declare as `factors`."""
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, part in module.named_modules()
        for name in getattr(part, "factors", ())
    )


def rounded(weights: Mapping[str, Tensor], factors: frozenset[str]) -> dict[str, Tensor]:
    """The weights, with the factors of products in bfloat16. Gradient passes to the float32 weights."""
    return {key: value.to(torch.bfloat16) if key in factors else value for key, value in weights.items()}
