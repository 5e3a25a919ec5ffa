"""Measures updates on a CUDA device: eager, compiled, CUDA graphs, TF32, bfloat16, seeds, and where the dataset is.

    python benchmarks/gpu.py                        # at most eight minutes; writes runs/bench/bench-gpu.json
    python benchmarks/gpu.py --device cpu --tiny    # a rehearsal in seconds, which shows that the script runs

Without a CUDA device it says so and ends with exit code 2. The variants of an algorithm take turns; those for which no
time is left are named. The results are compared with the last ones of the same machine.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro

from flowpolicies.benchmarking.machine import describe_machine
from flowpolicies.benchmarking.results import save_results
from flowpolicies.benchmarking.scaling import seeds_together
from flowpolicies.benchmarking.timing import interleaved
from flowpolicies.benchmarking.workloads import COMPARED, Workload, make_model, random_dataset

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "eager, data on the host": {"data_device": "cpu"},
    "eager": {"data_device": "model"},
    "compiled without CUDA graphs": {"compile": "inductor", "data_device": "model"},
    "compiled": {"compile": True, "data_device": "model"},
    "compiled, data on the host": {"compile": True, "data_device": "cpu"},
    "compiled, tf32": {"compile": True, "precision": "tf32", "data_device": "model"},
    "compiled, bf16": {"compile": True, "precision": "bf16", "data_device": "model"},
}
"""Name -> options of an algorithm. A compiled update on a GPU is a CUDA graph."""

RESERVE = 60.0
"""Seconds that must be left before something new is compiled."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and for how long."""

    algorithms: tuple[str, ...] = ("fql", "qflow", "rql")
    """Rows of the comparison with JAX: fql, qflow, ifql, rql, qam, qflow-small, fql-small."""
    seeds: tuple[int, ...] = (1, 8)
    """Numbers of seeds that one update trains together."""
    rows: int = 1_000_000
    """Number of transitions of the dataset."""
    budget: float = 460.0
    """Seconds for everything."""
    seconds: float = 8.0
    """Seconds of measurement of each algorithm, without what compiling takes."""
    device: str = "cuda"
    """Torch device. cpu only shows that the script runs."""
    tiny: bool = False
    """Small networks and little data."""
    out_dir: Path = Path("runs/bench")
    """Folder of the results."""


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the results, and returns the exit code."""
    settings = tyro.cli(Settings, args=arguments)
    if torch.device(settings.device).type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: there is no CUDA device here (torch.cuda.is_available() is False).", file=sys.stderr)
        return 2
    start = time.perf_counter()

    def left() -> float:
        return settings.budget - (time.perf_counter() - start)

    results: dict[str, Any] = {}
    fastest = products(settings)
    print(f"products in TFLOP/s: {fastest}", flush=True)
    for name in settings.algorithms:
        if left() < RESERVE:
            print(f"{name}: left out, because {left():.0f} s are left")
            continue
        workload = sized(COMPARED[name], settings)
        print(f"{name}, {workload.text}", flush=True)
        results[name] = {"size": workload.text, **measure(workload, settings, left)}
    command = ["python", "benchmarks/gpu.py", *(sys.argv[1:] if arguments is None else arguments)]
    data = {"products": fastest, "seconds": round(settings.budget - left(), 1), "results": results}
    machine = describe_machine(torch.get_num_threads()) | {"device": settings.device}
    print("\n".join(save_results("gpu", settings.out_dir, data, machine, command)))
    return 0


def sized(workload: Workload, settings: Settings) -> Workload:
    """The update with the rows of the settings, or a tiny one."""
    sizes = {"width": 16, "depth": 2, "batch_size": 16, "rows": 500} if settings.tiny else {"rows": settings.rows}
    return Workload(**{**vars(workload), **sizes})


def measure(workload: Workload, settings: Settings, left: Callable[[], float]) -> dict[str, Any]:
    """Times of all variants of an update that time is left for, and the largest memory of the device."""
    dataset = random_dataset(workload.rows, workload.observation_dim, workload.action_dim)
    runs: dict[str, Callable[[int], object]] = {}
    first: dict[str, float] = {}

    def add(name: str, make: Callable[[], Callable[[], object]]) -> None:
        if left() < RESERVE:
            print(f"  {name}: left out, because {left():.0f} s are left", flush=True)
            return
        start = time.perf_counter()
        try:
            run = repeated(make(), settings.device)
            run(3)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            return
        runs[name], first[name] = run, time.perf_counter() - start

    for name, options in VARIANTS.items():
        add(name, lambda options=options: single(workload, dataset, settings.device, options))
    for number in settings.seeds:
        for title, options in (("eager", {}), ("compiled", {"compile": True})):
            options = {"device": settings.device, **options}
            add(f"{number} seeds, {title}", lambda n=number, o=options: seeds_together(workload, n, dataset, **o))
    times = interleaved(runs, seconds=min(settings.seconds, max(left() - 20, 0)))
    cells = {name: each.as_dict() | {"first_updates_s": round(first[name], 1)} for name, each in times.items()}
    for name, cell in cells.items():
        print(f"  {name:30s} {cell['min_ms']:8.3f} ms, median {cell['median_ms']:8.3f} ms", flush=True)
    memory = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None
    return {"memory_mib": memory, **cells}


def single(workload: Workload, dataset: Any, device: str, options: Mapping[str, Any]) -> Callable[[], object]:
    """A function that makes one update of one model."""
    others = {name: value for name, value in options.items() if name != "data_device"}
    buffer = {name: value for name, value in options.items() if name == "data_device"}
    model = make_model(workload, dataset, device=device, replay_buffer_kwargs=buffer, **others)
    return lambda: model.train(1, workload.batch_size)


def repeated(update: Callable[[], object], device: str) -> Callable[[int], object]:
    """A function that makes a number of updates, and returns when the device has finished them."""

    def run(count: int) -> None:
        for _ in range(count):
            update()
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    return run


def products(settings: Settings) -> dict[str, float]:
    """Fastest matrix products on the device in TFLOP/s, by precision."""
    size, found = 64 if settings.tiny else 4096, {}
    before = torch.get_float32_matmul_precision()
    for name, dtype, precision in (
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=settings.device, dtype=torch.float32).to(dtype) for _ in range(2))
        least = interleaved({name: repeated(lambda a=a, b=b: a @ b, settings.device)}, seconds=0.5)[name].minimum
        found[name] = round(2e-9 * size**3 / least, 2)
    torch.set_float32_matmul_precision(before)
    return found


if __name__ == "__main__":
    sys.exit(main())
