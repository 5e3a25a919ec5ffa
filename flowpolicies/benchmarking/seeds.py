"""Time of several seeds that are trained together, relative to the same seeds one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.benchmarking.online import interleaved
from flowpolicies.data import TransitionDataset
from flowpolicies.training.seeds.together import InTurn, Vectorized, update_together


def measure_seeds(
    algorithm: str = "qflow",
    *,
    seeds: int = 8,
    hidden_dims: Sequence[int] = (64, 64),
    batch_size: int = 64,
    horizon: int = 1,
    observation_dim: int = 40,
    action_dim: int = 5,
    rounds: int = 10,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time per update and seed: one seed alone, all seeds vectorised, and all as `train_seeds` updates them.

    The data are random. The ways take turns in one process.

    Args:
        algorithm: name of the algorithm.
        seeds: number of seeds.
        hidden_dims: hidden widths of all networks.
        batch_size: rows of an update.
        horizon: length of action chunks.
        observation_dim, action_dim: sizes of the random data.
        rounds: number of measurements of each way.
        device: device of the networks.

    Returns:
        Plain data: `settings`, the kind that `train_seeds` uses (`vectorized` or `in_turn`), and for each way the least
        and the median time per update and seed in microseconds, and the ratio of the least time to that of one seed.

    Raises:
        ValueError: for an unknown algorithm.
    """
    settings = dict(locals())
    cls, data = get_algorithm(algorithm), _random_data(observation_dim, action_dim)
    widths, known = tuple(hidden_dims), {field.name for field in fields(get_algorithm(algorithm).Config)}
    sizes: dict[str, Any] = {name: widths for name in ("actor_hidden_dims", "value_hidden_dims") if name in known}
    options: dict[str, Any] = {"batch_size": batch_size, "horizon": horizon, "device": device, **sizes}

    def models(count: int) -> list[OfflineAlgorithm]:
        return [cls(dataset=data, seed=seed, **options).learn_offline(1) for seed in range(count)]

    chosen = update_together(models(seeds))
    ways: dict[str, Vectorized | InTurn] = {
        "alone": InTurn(models(1)),
        "vectorized": Vectorized(models(seeds)),
        "chosen": chosen,
    }
    times = interleaved({name: _updating(way, seeds // len(way.models)) for name, way in ways.items()}, rounds + 1)
    later = {name: each[1:] for name, each in times.items()}  # The first round is slower.
    alone = min(later["alone"])
    found = {
        name: {"min_us": min(each), "median_us": statistics.median(each), "ratio": min(each) / alone}
        for name, each in later.items()
    }
    return {"settings": settings, "kind": "in_turn" if isinstance(chosen, InTurn) else "vectorized", **found}


def describe(results: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal about what `measure_seeds` returned."""
    lines = [f"{results['settings']['seeds']} seeds ({results['kind']} is chosen): us per update and seed, ratio"]
    for name in ("alone", "vectorized", "chosen"):
        lines.append(f"  {name:12s} {results[name]['min_us']:8.0f} {results[name]['ratio']:6.2f}")
    return lines


def _updating(way: Vectorized | InTurn, repeats: int) -> Callable[[], int]:
    """A function that updates each model some times, and returns the number of updates."""

    def run() -> int:
        for _ in range(repeats):
            way.train()
        if way.models[0].device.type == "cuda":
            torch.cuda.synchronize(way.models[0].device)
        return repeats * len(way.models)

    return run


def _random_data(observation_dim: int, action_dim: int, rows: int = 5000) -> TransitionDataset:
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2, rows, observation_dim)).astype(np.float32)
    ends = np.arange(rows) % 500 == 499
    return TransitionDataset.from_arrays(
        observations[0],
        rng.uniform(-1, 1, (rows, action_dim)).astype(np.float32),
        rng.normal(size=rows),
        observations[1],
        terminations=ends,
        truncations=np.zeros(rows, bool),
        action_space=Box(-1, 1, (action_dim,)),
    )
