"""Time to sample a batch: in memory, compact, memory-mapped, RQL's windows, and Stable-Baselines3's buffer."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from flowpolicies.benchmarking.workloads import random_dataset
from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.dataset import rows
from flowpolicies.data.replay.buffer import TransitionBuffer, WindowScheme

OBSERVATION_DIM, ACTION_DIM, BATCH_SIZE = 40, 5, 256
LONG, SHORT = 1_000, 3
"""Lengths of the episodes of the two datasets, in steps. RQL draws an episode first, so their number may matter."""
HORIZON = 3
"""Length of the action chunks of RQL's windows."""
SHARD = 1_000_000
"""Number of transitions that are in memory at once at most."""
CALLS = 100
"""Number of batches per round."""

Samplers = dict[str, Callable[[], object]]
"""Name of a row -> function that samples a batch."""


def measure_replay(
    *, transitions: int = 1_000_000, rounds: int = 20, folder: Path | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Microseconds to sample 256 windows of 40 + 5 numbers. All samplers take turns.

    Args:
        transitions: number of transitions of each dataset; beyond a million there are only memory maps.
        rounds: number of rounds of 100 batches.
        folder: folder in which the memory maps are written for the time of the measurement; None: the home's cache.
        say: called with a line for each row.

    Returns:
        Plain data: the sizes, and by row the least and the median time.
    """
    parent = folder or Path.home() / ".cache"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as temporary:
        samplers = (in_memory(transitions) if transitions <= SHARD else {}) | in_files(transitions, Path(temporary))
        results = {name: _summary(times) for name, times in _measure(samplers, rounds).items()}
    for name, row in results.items():
        say(f"{name:48s} {row['min_us']:8.1f} us, median {row['median_us']:8.1f} us")
    sizes = {
        "rows": transitions,
        "batch_size": BATCH_SIZE,
        "observation_dim": OBSERVATION_DIM,
        "action_dim": ACTION_DIM,
    }
    return {**sizes, "rounds": rounds, "results": results}


def in_memory(count: int) -> Samplers:
    """Samplers of data in memory."""
    long, short = _dataset(count, LONG), _dataset(count, SHORT)
    found: Samplers = {"Stable-Baselines3, single steps": _sb3_sampler(long)}
    found |= {f"memory, h = {horizon}": _sampler(long, horizon) for horizon in (1, 5, 20)}
    found |= {f"compact, h = {horizon}": _sampler(long.compact(), horizon) for horizon in (1, 5)}
    for dataset in (long, short):
        found[f"memory, RQL, {dataset.num_episodes:,} episodes"] = _sampler(dataset, HORIZON, "episodes")
    return found


def in_files(count: int, folder: Path) -> Samplers:
    """Samplers of memory-mapped data: read through the map, and by position as those of files beyond a size are."""
    found: Samplers = {}
    for name, compact in (("memory map", False), ("compact memory map", True)):
        dataset = open_memmap(write_memmap(folder / name, _shards(count, compact)))
        found |= {f"{name}, h = {horizon}": _sampler(dataset, horizon) for horizon in (1, 5, 20)}
        found[f"{name}, RQL, {dataset.num_episodes:,} episodes"] = _sampler(dataset, HORIZON, "episodes")
        largest, rows.MAPPED_BYTES = rows.MAPPED_BYTES, 0
        found[f"{name}, read by position, h = 5"] = _sampler(dataset, 5)
        found[f"{name}, read by position, RQL"] = _sampler(dataset, HORIZON, "episodes")
        rows.MAPPED_BYTES = largest
    return found


def _dataset(count: int, episode: int) -> TransitionDataset:
    return random_dataset(count, OBSERVATION_DIM, ACTION_DIM, episode=min(episode, count))


def _shards(count: int, compact: bool) -> Iterator[TransitionDataset]:
    """Parts of a dataset that is to be written, one at a time in memory."""
    for start in range(0, count, SHARD):
        dataset = _dataset(min(SHARD, count - start), LONG)
        yield dataset.compact() if compact else dataset


def _sampler(dataset: TransitionDataset, horizon: int, windows: WindowScheme = "uniform") -> Callable[[], object]:
    observation_space, action_space = dataset.observation_space, dataset.action_space
    options: Mapping[str, Any] = {"horizon": horizon, "windows": windows, "next_actions": False, "seed": 0}
    buffer = TransitionBuffer(1000, observation_space, action_space, "cpu", **options)
    buffer.attach(dataset)
    return lambda: buffer.sample(BATCH_SIZE)


def _sb3_sampler(dataset: TransitionDataset) -> Callable[[], object]:
    assert isinstance(dataset.action_space, spaces.Box)
    buffer = ReplayBuffer(len(dataset), dataset.observation_space, dataset.action_space, "cpu")
    buffer.observations[:, 0], buffer.next_observations[:, 0] = dataset.observations, dataset.next_observations
    buffer.actions[:, 0], buffer.full = dataset.actions, True
    return lambda: buffer.sample(BATCH_SIZE)


def _measure(samplers: Samplers, rounds: int) -> dict[str, list[float]]:
    """Microseconds of each call. They are timed one by one, because a few of them read from the disk."""
    times: dict[str, list[float]] = {name: [] for name in samplers}
    for _ in range(rounds):
        for name, sample in samplers.items():
            for _ in range(CALLS):
                start = time.perf_counter()
                sample()
                times[name].append(1e6 * (time.perf_counter() - start))
    return times


def _summary(times: list[float]) -> dict[str, float]:
    return {"min_us": round(min(times), 2), "median_us": round(statistics.median(times), 2)}
