"""Time of an update: eager, compiled, with bfloat16 products, and beside JAX."""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flowpolicies.algorithms import ALGORITHMS, get_algorithm
from flowpolicies.benchmarking.flops import gflop_of_update, period_of, share_of_peak
from flowpolicies.benchmarking.jax_peers import load_peers, peer_of
from flowpolicies.benchmarking.machine import gemm_peak
from flowpolicies.benchmarking.profile import shares_of_time
from flowpolicies.benchmarking.timing import Durations, interleaved
from flowpolicies.benchmarking.workloads import COMPARED, Workload, make_model, random_dataset
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.settings import TrainSettings

COLUMNS: Mapping[str, Mapping[str, Any]] = {
    "eager": {},
    "compiled": {"compile": True},
    "bf16": {"compile": True, "precision": "bf16"},
}
"""Name of a column -> options of the algorithm's class. The column "jax" is the update in JAX."""

PHASES = ("pretrain_steps", "critic_warmup", "actor_warmup")
"""Hyperparameters that are numbers of updates before the main phase of an algorithm."""

RATIO_TO = "jax"
"""The column that the ratios of the others refer to."""


def measure_step(
    algorithms: Sequence[str] = (),
    *,
    columns: Sequence[str] = ("eager", "compiled", "bf16", "jax"),
    seconds: float = 10.0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times of updates, with the draws and the sampling of the batch.

    Args:
        algorithms: names of rows of `COMPARED` or of algorithms; algorithms that have no row there are measured with
            the papers' networks, eagerly unless `columns` lacks that. (): the rows of `COMPARED`. ("all",): these
            rows, and all other algorithms.
        columns: what is measured: names in `COLUMNS`, and "jax".
        seconds: time of the rounds of each row of `COMPARED`, and four times that of each other algorithm's; compiling
            comes on top of it.
        say: called with a line for each row, and with what cannot be measured.

    Returns:
        Plain data: `peak` in GFLOP/s, and `results` by row.

    Raises:
        ValueError: for an unknown column.
        LookupError: for an unknown algorithm.
    """
    if unknown := [column for column in columns if column not in (*COLUMNS, RATIO_TO)]:
        raise ValueError(f"unknown columns {unknown}; there are: {', '.join((*COLUMNS, RATIO_TO))}.")
    peers = None
    if RATIO_TO in columns:
        try:
            peers = load_peers()
        except ImportError as error:
            say(f"without the column jax: {error}")
    peak = gemm_peak(seconds=min(2.0, seconds))
    say("peak of matrix products in GFLOP/s: " + ", ".join(f"{size}: {speeds}" for size, speeds in peak.items()))
    results: dict[str, Any] = {}
    for name, workload, wanted in rows_of(algorithms, columns):
        share = 1.0 if name in COMPARED else 0.25
        results[name] = measure_row(workload, wanted, peers, peak, share * seconds, say)
        say(f"{name:14s} {describe_row(results[name])}")
        if name in COMPARED:
            results[name]["shares"] = shares_of_time(make_model(workload))
        gc.collect()
    return {"peak": peak, "seconds_per_row": seconds, "results": results}


def rows_of(algorithms: Sequence[str], columns: Sequence[str]) -> Iterator[tuple[str, Workload, Sequence[str]]]:
    """Names, sizes and columns of the rows that some names stand for; see `measure_step`."""
    names = list(algorithms or COMPARED)
    if "all" in names:
        names = [*COMPARED, *(name for name in ALGORITHMS if name not in COMPARED)]
    for name in dict.fromkeys(names):
        if name in COMPARED:
            yield name, COMPARED[name], columns
        else:
            yield name, main_phase(name), [column for column in columns if column == "eager"] or columns


def main_phase(name: str) -> Workload:
    """The papers' size of an algorithm, without the updates that come before the main ones."""
    known = get_algorithm(name).Config.__dataclass_fields__
    return Workload(algorithm=name, hyperparameters={phase: 0 for phase in PHASES if phase in known})


def measure_row(
    workload: Workload,
    columns: Sequence[str],
    peers: Any,
    peak: Mapping[str, Mapping[str, float]],
    seconds: float,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Times of one update in several columns, and their ratios to JAX."""
    variants: dict[str, Callable[[int], object]] = {}
    prepared: dict[str, float] = {}
    for column in columns:
        start = time.perf_counter()
        try:
            variants[column] = _variant(workload, column, peers)
            variants[column](1)
        except (LookupError, ValueError, TypeError, ImportError) as error:
            variants.pop(column, None)
            say(f"{workload.algorithm}, {workload.text}: without the column {column}: {error}")
            continue
        prepared[column] = time.perf_counter() - start
    model = make_model(workload)
    gflop, period = gflop_of_update(model), period_of(model)  # The updates in JAX have the period 1.
    times = {column: each.divided_by(period) for column, each in interleaved(variants, seconds=seconds).items()}
    row = {column: _cell(times, column, gflop, peak) | {"first_update_s": prepared[column]} for column in times}
    return {"algorithm": workload.algorithm, "size": workload.text, "gflop": round(gflop, 6), **row}


def describe_row(row: Mapping[str, Any]) -> str:
    """One line about a row of results."""
    cells = [
        f"{name} {cell['min_ms']:.2f} ms" + (f" ({cell['ratio']:.2f})" if "ratio" in cell and name != RATIO_TO else "")
        for name, cell in row.items()
        if isinstance(cell, Mapping) and "min_ms" in cell
    ]
    return f"{row['size']:26s} " + ", ".join(cells)


def seconds_per_update(
    algorithm: str,
    hyperparameters: Any,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters,
    *,
    seconds: float = 0.5,
) -> float:
    """Time of one update in seconds, with the sampling of its batch, as the minimum of several rounds.

    It is measured on random data with observations and actions of the size of `Workload`, because the data of a run
    need not be on this machine, and with the first updates of the run.

    Args:
        algorithm: name of the algorithm.
        hyperparameters: an instance of its `Config`, or of a class with the same fields.
        settings: settings of the run.
        sb3_hyperparameters: hyperparameters of Stable-Baselines3.
        seconds: time for all rounds together.
    """
    cls = get_algorithm(algorithm)
    size = Workload(algorithm=algorithm)
    model = cls.from_config(
        cls.Config(**vars(hyperparameters)),
        dataset=random_dataset(size.rows, size.observation_dim, size.action_dim),
        seed=0,
        device=settings.device,
        compile=settings.compile,
        precision=settings.precision,
        **dataclasses.asdict(sb3_hyperparameters),
    )
    period = period_of(model)
    times = interleaved({algorithm: lambda count: model.train(count * period, model.batch_size)}, seconds=seconds)
    return times[algorithm].divided_by(period).minimum / 1e3


def _variant(workload: Workload, column: str, peers: Any) -> Callable[[int], object]:
    """A function that makes a number of updates."""
    if column == RATIO_TO:
        if peers is None:
            raise LookupError("JAX or the repository is missing.")
        return peer_of(make_model(workload), peers)
    model = make_model(workload, **COLUMNS[column])
    return lambda count: model.train(count * period_of(model), workload.batch_size)


def _cell(
    times: Mapping[str, Durations], column: str, gflop: float, peak: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    cell = times[column].as_dict()
    product = "bf16" if column == "bf16" else "update"
    fastest = max((speeds[product] for speeds in peak.values() if product in speeds), default=None)
    if fastest and column != RATIO_TO:  # JAX's update has products of its own.
        cell["share_of_peak"] = round(share_of_peak(gflop, times[column].minimum, fastest), 3)
    if RATIO_TO in times:
        cell["ratio"] = round(times[column].minimum / times[RATIO_TO].minimum, 3)
    return cell
