"""Measures milliseconds per update with autograd (the default), with functorch, and compiled, and their ratios.

    python benchmarks/update.py                      # 4x512 networks, batch 256: the papers' size
    python benchmarks/update.py --width 128 --depth 2 --horizon 20 --batch-size 128
    python benchmarks/update.py --compile   # needs a C++ compiler; the first call takes a minute

The variants take turns in each round, so that a change in the speed of the machine affects all of them. The ratio is
the median of the ratios in the rounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import torch
import tyro

from flowpolicies import TransitionDataset, get_algorithm
from flowpolicies.algorithms import OfflineAlgorithm


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Sizes of the networks, and numbers of measurements."""

    algorithms: tuple[str, ...] = ("bc", "fql", "ifql", "qflow", "qfql")
    width: int = 512
    depth: int = 4
    horizon: int = 1
    batch_size: int = 256
    observation_dim: int = 40
    action_dim: int = 5
    rounds: int = 7
    steps: int = 5
    threads: int = 1
    compile: bool = False
    """Whether to measure compiled updates as well."""


def make(name: str, data: TransitionDataset, settings: Settings) -> OfflineAlgorithm:
    """Makes a model of the measured size."""
    cls = get_algorithm(name)
    sizes = {
        "actor_hidden_dims": (settings.width,) * settings.depth,
        "value_hidden_dims": (settings.width,) * settings.depth,
    }
    known = {key: value for key, value in sizes.items() if key in cls.Config.__dataclass_fields__}
    return cls(
        dataset=data,
        seed=0,
        batch_size=settings.batch_size,
        horizon=settings.horizon,
        compile=settings.compile,
        **known,
    )


def measure(models: dict[str, OfflineAlgorithm], settings: Settings) -> dict[str, list[float]]:
    """Milliseconds per update of each model, one number for each round."""
    times: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.train(2, settings.batch_size)
    for _ in range(settings.rounds):
        for name, model in models.items():
            start = time.perf_counter()
            model.train(settings.steps, settings.batch_size)
            times[name].append(1e3 * (time.perf_counter() - start) / settings.steps)
    return times


def main() -> None:
    settings = tyro.cli(Settings)
    torch.set_num_threads(settings.threads)
    rng, n = np.random.default_rng(0), 10_000
    data = TransitionDataset.from_arrays(
        rng.standard_normal((n, settings.observation_dim), np.float32),
        rng.uniform(-1, 1, (n, settings.action_dim)).astype(np.float32),
        rng.standard_normal(n),
        rng.standard_normal((n, settings.observation_dim), np.float32),
        terminations=np.zeros(n, bool),
        truncations=np.arange(n) % 100 == 99,
    )
    print(settings)
    for name in settings.algorithms:
        models = {"eager": make(name, data, replace(settings, compile=False))}
        models["functorch"] = make(name, data, replace(settings, compile=False))
        models["functorch"]._learner.uses_functorch = True
        if settings.compile:
            models["compiled"] = make(name, data, settings)
        times = measure(models, settings)
        eager = np.array(times["eager"])
        cells = [f"eager {np.median(eager):7.2f} ms (min {eager.min():.2f})"]
        cells += [f"{k} / eager {np.median(np.array(v) / eager):.2f}" for k, v in times.items() if k != "eager"]
        print(f"{name:8s}", " | ".join(cells), flush=True)


if __name__ == "__main__":
    main()
