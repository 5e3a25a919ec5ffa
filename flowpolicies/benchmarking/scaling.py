"""Time of an update against the sizes of batch, networks and data, and against threads and seeds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.benchmarking.timing import interleaved
from flowpolicies.benchmarking.workloads import Workload, make_model
from flowpolicies.data import TransitionDataset
from flowpolicies.training.seeds.together import InTurn, Vectorized, update_together

AXES: Mapping[str, tuple[int, ...]] = {
    "batch_size": (64, 256, 1024, 4096),
    "width": (128, 256, 512, 1024),
    "ensemble": (2, 5, 10),
    "flow_steps": (1, 5, 10, 20),
    "rows": (10_000, 100_000, 1_000_000),
    "threads": (1, 2, 4, 8),
    "seeds": (1, 2, 4, 8),
}
"""What is varied -> its values; everything else stays as in the workload. Numbers of threads above the number of cores
are left out."""

TITLES: Mapping[str, str] = {
    "batch_size": "rows of a batch",
    "width": "units of a hidden layer",
    "ensemble": "critics",
    "flow_steps": "flow steps",
    "rows": "transitions of the dataset",
    "threads": "threads",
    "seeds": "seeds in one update (time per seed)",
}
"""Name of an axis -> its meaning in words."""


def measure_scaling(
    algorithm: str = "qflow",
    *,
    axes: Sequence[str] = tuple(AXES),
    width: int = 256,
    depth: int = 4,
    seconds: float = 8.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Milliseconds per update while one size is varied, eagerly. The values of an axis take turns.

    Args:
        algorithm: name of the algorithm.
        axes: names in `AXES`.
        width: units of each hidden layer where the width is not varied.
        depth: number of hidden layers.
        seconds: time for the rounds of each axis.
        say: called with a line for each axis.

    Returns:
        Plain data: the size where nothing is varied, and `results` by axis and value; with seeds, the time of an update
        of all seeds divided by their number.

    Raises:
        ValueError: for an unknown axis.
    """
    if unknown := [axis for axis in axes if axis not in AXES]:
        raise ValueError(f"unknown axes {unknown}; there are: {', '.join(AXES)}.")
    workload = Workload(algorithm=algorithm, width=width, depth=depth)
    results = {}
    for axis in axes:
        if axis == "threads":
            results[axis] = _threads(workload, seconds)
        elif axis == "seeds":
            results[axis] = _seeds(workload, seconds)
        else:
            results[axis] = _sizes(workload, axis, seconds)
        cells = ", ".join(f"{value}: {cell['min_ms']:.2f}" for value, cell in results[axis].items())
        say(f"{algorithm}, {workload.text}, ms per update by {axis}: {cells}")
    return {"algorithm": algorithm, "size": workload.text, "results": results}


def _sizes(workload: Workload, axis: str, seconds: float) -> dict[str, Any]:
    known = {field.name for field in fields(get_algorithm(workload.algorithm).Config)}
    variants = {}
    for value in AXES[axis]:
        if axis in {field.name for field in fields(Workload)}:
            size: dict[str, Any] = {axis: value}
            varied = replace(workload, **size)
        elif axis in known:
            varied = replace(workload, hyperparameters={**workload.hyperparameters, axis: value})
        else:
            continue
        variants[str(value)] = _updates(varied)
    return {value: each.as_dict() for value, each in interleaved(variants, seconds=seconds).items()} if variants else {}


def _updates(workload: Workload) -> Callable[[int], object]:
    model = make_model(workload)
    return lambda count: model.train(count, workload.batch_size)


def _threads(workload: Workload, seconds: float) -> dict[str, Any]:
    """Times with several numbers of threads, of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before, update = torch.get_num_threads(), _updates(workload)

    def with_threads(number: int) -> Callable[[int], object]:
        def run(count: int) -> None:
            torch.set_num_threads(number)
            update(count)

        return run

    try:
        times = interleaved({str(n): with_threads(n) for n in AXES["threads"] if n <= cores}, seconds=seconds)
    finally:
        torch.set_num_threads(before)
    return {value: each.as_dict() for value, each in times.items()}


def _seeds(workload: Workload, seconds: float) -> dict[str, Any]:
    """Times per seed of several seeds that one update trains together."""

    def run_of(number: int) -> Callable[[int], object]:
        together = seeds_together(workload, number)

        def run(count: int) -> None:
            for _ in range(count):
                together.train()

        return run

    runs = {number: run_of(number) for number in AXES["seeds"]}
    times = interleaved({str(number): run for number, run in runs.items()}, seconds=seconds)
    return {value: each.divided_by(int(value)).as_dict() for value, each in times.items()}


def seeds_together(
    workload: Workload, number: int, dataset: TransitionDataset | None = None, **options: Any
) -> Vectorized | InTurn:
    """Several models that differ in their seeds, 0, 1, ..., and are updated together; they share the rows of the data.

    Args:
        workload: sizes.
        number: number of models.
        dataset: data to train on; None: random data.
        options: further arguments of the algorithm's class.
    """
    models: list[OfflineAlgorithm] = []
    for seed in range(number):
        models.append(make_model(workload, dataset, seed=seed, **options))
        models[-1].transitions.share_dataset(models[0].transitions)
        models[-1].learn_offline(0)  # Makes the logger that an update writes to.
    return update_together(models)
