"""The fp32 matrix product of updates: oneDNN where it is faster and exact, else torch's default.

On AMD processors torch computes fp32 products with MKL at about half of the speed that oneDNN reaches. A setting of
torch sends them to oneDNN. On processors without units for bfloat16 matrices it stays fp32; on others the same setting
would compute in bfloat16. So it is used only where a product shows that it is exact, and only during an update.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VARIABLE = "FLOWPOLICIES_MATMUL"
"""Environment variable: auto (the default) chooses by processor and size; onednn uses oneDNN wherever it is exact;
torch leaves torch's settings alone."""

SMALLEST = 1 << 23
"""Rows times the squared width from which oneDNN is faster on the AMD processors that were measured (Zen 4 and 5)."""


def widest(parameters: Iterable[Tensor]) -> int:
    """Width of the widest layer among weights of networks; 0 without any."""
    return max((weight.shape[-1] for weight in parameters if weight.ndim > 1), default=0)


@contextmanager
def products(precision: str, rows: int, width: int) -> Iterator[None]:
    """Within the block, matrix products are of a precision, whatever autocast the caller is in; see `fast_matmul`."""
    with ExitStack() as settings:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                settings.enter_context(torch.autocast(kind, enabled=False))
        settings.enter_context(tf32_products() if precision == "tf32" else fast_matmul(rows, width))
        yield


@contextmanager
def tf32_products() -> Iterator[None]:
    """Within the block, products and convolutions on the GPU are in TF32. Afterwards torch's settings are as before."""
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = matmul.fp32_precision, convolution.fp32_precision
    matmul.fp32_precision = convolution.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


@contextmanager
def fast_matmul(rows: int, width: int) -> Iterator[None]:
    """Within the block, fp32 matrix products on the CPU go to oneDNN if that is exact and faster.

    Afterwards torch's setting is what it was before. The choice follows from the processor and the sizes, not from a
    measurement, so that runs can be repeated.

    Args:
        rows: number of rows of the products.
        width: width of the widest hidden layer.
    """
    if not _is_chosen(rows, width):
        yield
        return
    settings = _settings()
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"  # The name of the setting; `is_exact` has shown that the products are fp32.
    try:
        yield
    finally:
        settings.fp32_precision = before


def _is_chosen(rows: int, width: int) -> bool:
    """Whether an update of this size uses oneDNN.

    Raises:
        ValueError: if the environment variable has another value than auto, onednn and torch.
    """
    choice = os.environ.get(VARIABLE, "auto")
    if choice not in ("auto", "onednn", "torch"):
        raise ValueError(f"{VARIABLE} is {choice!r}, and must be auto, onednn or torch.")
    if choice == "torch" or (choice == "auto" and not (rows * width * width >= SMALLEST and _is_amd())):
        return False
    return is_exact()


@cache
def _is_amd() -> bool:
    """Whether the processor is one for which MKL has no fast fp32 product."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:  # Not Linux.
        return "AuthenticAMD" in platform.processor()


@cache
def is_exact() -> bool:
    """Whether this processor's oneDNN computes fp32 products in fp32 when it is asked for the fast ones.

    Measured once per process, on a product whose result in bfloat16 would be 1,000 times less exact.
    """
    settings = _settings()
    if settings is None or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, 256, 512, generator=generator, dtype=torch.float32) for _ in range(2))
    before = settings.fp32_precision
    settings.fp32_precision = "bf16"
    try:
        products = a[0] @ b[0].mT, a @ b.mT  # A single product, and one for each member of an ensemble.
    finally:
        settings.fp32_precision = before
    exact = a.double() @ b.double().mT
    # The largest error is about 1e-4 in float32 and 0.1 in bfloat16.
    return all(bool((p - e).abs().max() < 1e-3) for p, e in zip(products, (exact[0], exact), strict=True))


def _settings() -> Any:
    """The settings of oneDNN's matrix products; None in versions of torch that have none."""
    found = getattr(torch.backends.mkldnn, "matmul", None)
    return found if hasattr(found, "fp32_precision") else None
