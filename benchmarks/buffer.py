"""Measures the time to sample 256 windows from one million rows: in memory, compact, memory-mapped, and RQL's windows.

python benchmarks/buffer.py                        all rows of the table in docs/data.md
python benchmarks/buffer.py --rows 20000000        memory maps only, of any size

Stable-Baselines3's buffer, which draws single steps, is measured in the same run. All samplers take turns.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from storage import ACTION, BATCH, OBSERVATION, make_shard, shards

from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.dataset import rows
from flowpolicies.data.replay.buffer import TransitionBuffer

SHORT = 3
"""Length of the episodes of the dataset that has many of them, in steps."""


def sampler(dataset: TransitionDataset, horizon: int, windows: Any = "uniform") -> Callable[[], object]:
    """A function that samples a batch."""
    buffer = TransitionBuffer(
        1000,
        dataset.observation_space,
        dataset.action_space,
        "cpu",
        horizon=horizon,
        windows=windows,
        next_actions=False,
        seed=0,
    )
    buffer.attach(dataset)
    return lambda: buffer.sample(BATCH)


def sb3_sampler(dataset: TransitionDataset) -> Callable[[], object]:
    """A function that samples single steps from Stable-Baselines3's buffer."""
    assert isinstance(dataset.action_space, spaces.Box)
    buffer = ReplayBuffer(len(dataset), dataset.observation_space, dataset.action_space, "cpu")
    buffer.observations[:, 0], buffer.next_observations[:, 0] = dataset.observations, dataset.next_observations
    buffer.actions[:, 0], buffer.full = dataset.actions, True
    return lambda: buffer.sample(BATCH)


def in_memory(size: int) -> dict[str, Callable[[], object]]:
    """The samplers of data in memory, by the title of their row."""
    long, short = make_shard(size, 0), make_shard(size, 0, SHORT)
    found = {"Stable-Baselines3, single steps": sb3_sampler(long)}
    found |= {f"memory, h = {horizon}": sampler(long, horizon) for horizon in (1, 5, 20)}
    found |= {f"compact, h = {horizon}": sampler(long.compact(), horizon) for horizon in (1, 5)}
    for dataset in (long, short):
        found[f"memory, RQL, h = 3, {dataset.num_episodes:,} episodes"] = sampler(dataset, 3, "episodes")
    return found


def in_files(size: int, folder: Path) -> dict[str, Callable[[], object]]:
    """The samplers of memory-mapped data, by the title of their row."""
    found = {}
    for name in ("full", "compact"):
        dataset = open_memmap(write_memmap(folder / name, made(size, compact=name == "compact")))
        title = "memory map" if name == "full" else "compact memory map"
        found |= {f"{title}, h = {horizon}": sampler(dataset, horizon) for horizon in (1, 5, 20)}
        found[f"{title}, RQL, h = 3, {dataset.num_episodes:,} episodes"] = sampler(dataset, 3, "episodes")
        largest, rows.MAPPED_BYTES = rows.MAPPED_BYTES, 0
        found[f"{title}, read by position as from a large file, h = 5"] = sampler(dataset, 5)
        found[f"{title}, read by position, RQL, h = 3"] = sampler(dataset, 3, "episodes")
        rows.MAPPED_BYTES = largest
    return found


def made(size: int, *, compact: bool) -> Any:
    """The shards to write."""
    return map(TransitionDataset.compact, shards(size)) if compact else shards(size)


def measure(samplers: dict[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Durations in microseconds `[100 * rounds]` of each sampler; every round calls each of them 100 times."""
    times: dict[str, list[float]] = {title: [] for title in samplers}
    for _ in range(rounds):
        for title, sample in samplers.items():
            for _ in range(100):
                start = time.perf_counter()
                sample()
                times[title].append(1e6 * (time.perf_counter() - start))
    return {title: np.array(durations) for title, durations in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=None, help="parent of the folder for the memory maps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=args.folder or Path.home() / ".cache") as folder:
        samplers = in_memory(args.rows) if args.rows <= 1_000_000 else {}
        samplers |= in_files(args.rows, Path(folder))
        print(f"{args.rows:,} rows of {OBSERVATION} + {ACTION}, batches of {BATCH}, {torch.get_num_threads()} thread")
        for title, durations in measure(samplers, args.rounds).items():
            print(f"{title:64s} minimum {durations.min():7.1f} us, median {np.median(durations):7.1f} us")


if __name__ == "__main__":
    main()
