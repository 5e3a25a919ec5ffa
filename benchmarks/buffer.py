"""Microseconds per 256-row batch from one million rows in memory, for chunks of several lengths.

python benchmarks/buffer.py
"""

from __future__ import annotations

import time

import numpy as np
import torch
from gymnasium import spaces

from flowpolicies.data import TransitionDataset
from flowpolicies.data.buffer import TransitionBuffer

ROWS, OBSERVATION, ACTION, BATCH = 1_000_000, 40, 5, 256


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
    for horizon in (1, 5, 10):
        box = spaces.Box(-np.inf, np.inf, (OBSERVATION,), np.float32)
        buffer = TransitionBuffer(
            1000, box, spaces.Box(-1, 1, (ACTION,)), "cpu", horizon=horizon, next_actions=False, seed=0
        )
        start = time.perf_counter()
        buffer.attach(data)
        attached = time.perf_counter() - start
        times = []
        for _ in range(3000):
            start = time.perf_counter()
            buffer.sample(BATCH)
            times.append(time.perf_counter() - start)
        low, median = np.quantile(times, (0.05, 0.5)) * 1e6
        print(f"horizon {horizon:2d}: median {median:5.1f} us, 5th percentile {low:5.1f} us; attach {attached:.2f} s")


if __name__ == "__main__":
    main()
