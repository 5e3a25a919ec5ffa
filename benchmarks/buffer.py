"""Measures the time to sample a batch of 256 from one million rows, and compares it with Stable-Baselines3's buffer.

python benchmarks/buffer.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer

ROWS, OBSERVATION, ACTION, BATCH = 1_000_000, 40, 5, 256


def measure(sample: Callable[[int], object]) -> np.ndarray:
    """Duration of each of 3,000 calls in microseconds."""
    times = []
    for _ in range(3000):
        start = time.perf_counter()
        sample(BATCH)
        times.append(time.perf_counter() - start)
    return 1e6 * np.array(times)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    data = TransitionDataset.from_arrays(
        rng.standard_normal((ROWS, OBSERVATION), np.float32),
        rng.uniform(-1, 1, (ROWS, ACTION)).astype(np.float32),
        rng.standard_normal(ROWS),
        rng.standard_normal((ROWS, OBSERVATION), np.float32),
        terminations=np.zeros(ROWS, bool),
        truncations=np.arange(ROWS) % 1000 == 999,
    )
    print(f"{ROWS:,} rows of {OBSERVATION} + {ACTION}, batches of {BATCH}, one thread")
    box, actions = spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32), spaces.Box(-1, 1, (ACTION,))
    theirs = ReplayBuffer(ROWS, box, actions, "cpu")
    theirs.observations[:, 0], theirs.next_observations[:, 0] = data.observations, data.next_observations
    theirs.actions[:, 0], theirs.full = data.actions, True
    reference = float(np.median(measure(theirs.sample)))
    print(f"Stable-Baselines3, single steps: median {reference:.1f} us")
    for horizon in (1, 5, 10):
        buffer = TransitionBuffer(1000, box, actions, "cpu", horizon=horizon, next_actions=False, seed=0)
        start = time.perf_counter()
        buffer.attach(data)
        attached = time.perf_counter() - start
        low, median = np.quantile(measure(buffer.sample), (0.05, 0.5))
        ratio = f"{median:5.1f} us, {median / reference:.2f} of it"
        print(f"horizon {horizon:2d}: median {ratio}, 5th percentile {low:5.1f} us; attach {attached:.2f} s")


if __name__ == "__main__":
    main()
