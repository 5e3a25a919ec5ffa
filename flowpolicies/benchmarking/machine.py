"""The machine that a measurement was made on: processor, cores, libraries, and its fastest matrix products."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from flowpolicies.benchmarking.timing import interleaved
from flowpolicies.core.matmul import fast_matmul
from flowpolicies.record import describe_hardware, describe_software

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "sve", "bf16")
"""Capabilities of a processor on which the speed of matrix products depends."""

PRODUCTS: Mapping[str, tuple[int, ...]] = {"1024x1024x1024": (1024, 1024, 1024), "256x512x512": (256, 512, 512)}
"""Name -> rows, inner width and columns: a large product, and that of a hidden layer of the papers' networks."""

PROBE = """
import torch
from flowpolicies.core.matmul import fast_matmul
torch.set_num_threads(1)
a, b = torch.randn(256, 512), torch.randn(512, 512)
with fast_matmul(256, 512):
    a @ b
"""
"""A program that computes one product as an update does."""


def describe_machine(threads: int) -> dict[str, Any]:
    """Processor, capabilities, cores and threads in use, versions, the kernel of matrix products, and the load.

    Args:
        threads: number of threads of the measurement.
    """
    hardware = describe_hardware()
    return {
        **{key: hardware[key] for key in ("platform", "processor", "cpu_count", "cuda")},
        "flags": processor_flags(),
        "cores_used": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": threads,
        "software": describe_software() | _versions(),
        "matmul_kernel": matmul_kernel(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def is_same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two descriptions are of the same kind of machine, used in the same way."""
    return all(one.get(key) == other.get(key) for key in ("processor", "cpu_count", "cuda", "flags", "threads"))


def warn_if_busy(threads: int) -> None:
    """Warns if other processes leave fewer than `threads` cores to this one."""
    if not hasattr(os, "getloadavg"):
        return
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if load > cores - threads + 0.5:
        warnings.warn(
            f"other processes use this machine: its load was {load:.1f} in the last minute, and it has {cores} cores. "
            "Times are too long; ratios and minima suffer less. Repeat the measurement when the machine is quiet.",
            stacklevel=2,
        )


def use_cores(threads: int) -> None:
    """Limits this process and PyTorch to a number of cores.

    JAX has no number of threads; it takes as many as there are cores when it starts.

    Raises:
        ValueError: if the process may not use so many cores.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if not 1 <= threads <= len(allowed):
            raise ValueError(f"{threads} threads were asked for, and this process may use 1 to {len(allowed)} cores.")
        os.sched_setaffinity(0, allowed[:threads])
    torch.set_num_threads(threads)


def processor_flags() -> list[str]:
    """Those of `FLAGS` that Linux reports for this processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    words = set(found.partition(":")[2].split())
    return [flag for flag in FLAGS if flag in words]


def matmul_kernel() -> str:
    """The kernel of oneDNN that computes an update's fp32 products, or the library that torch uses without it."""
    probe = [sys.executable, "-c", PROBE]
    folder = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", "DNNL_VERBOSE": "1", "PYTHONPATH": path}
    answer = subprocess.run(probe, env=environment, capture_output=True, text=True)
    fields = [line.split(",") for line in answer.stdout.splitlines() if ",exec,cpu,matmul," in line]
    if fields:
        return f"oneDNN {fields[-1][fields[-1].index('matmul') + 1]}"
    has_mkl = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]  # torch has no annotations here.
    return "MKL" if has_mkl else "torch without MKL"


def gemm_peak(*, seconds: float = 2.0) -> dict[str, dict[str, float]]:
    """Fastest matrix products in GFLOP/s, by size: as torch computes them, as updates do, and in bfloat16.

    Args:
        seconds: time for each size.
    """
    return {name: _gflops(*shape, seconds=seconds) for name, shape in PRODUCTS.items()}


def _gflops(rows: int, inner: int, columns: int, *, seconds: float) -> dict[str, float]:
    a, b = torch.randn(rows, inner, dtype=torch.float32), torch.randn(inner, columns, dtype=torch.float32)
    a_half, b_half = a.bfloat16(), b.bfloat16()

    def plain(count: int) -> None:
        for _ in range(count):
            a @ b

    def as_update(count: int) -> None:
        with fast_matmul(rows, columns):
            plain(count)

    def half(count: int) -> None:
        for _ in range(count):
            a_half @ b_half

    variants: dict[str, Callable[[int], None]] = {"torch": plain, "update": as_update}
    if {"avx512_bf16", "amx_bf16", "bf16"} & set(processor_flags()):  # Elsewhere it takes minutes.
        variants["bf16"] = half
    times = interleaved(variants, seconds=seconds, chunk=0.02)
    return {name: round(2e-6 * rows * inner * columns / each.minimum, 1) for name, each in times.items()}


def _versions() -> dict[str, str]:
    found = {}
    for package in ("jax", "jaxlib", "optax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
