"""Measures build time, opening time, rows per second and memory of datasets in memory and as memory maps.

python benchmarks/storage.py                      one million transitions, in memory and mapped, in one run, and the
                                                  memory that loading them from an .npz file takes
python benchmarks/storage.py --rows 20000000      mapped only: build it, then train on it in a process of its own
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from flowpolicies import BC
from flowpolicies.data import TransitionDataset, load_dataset, open_memmap, write_memmap
from flowpolicies.data.replay.buffer import TransitionBuffer

OBSERVATION, ACTION, BATCH, SHARD = 40, 5, 256, 1_000_000


def resident() -> tuple[float, float]:
    """Resident memory of this process in MiB: with mapped files, and without."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024, int(fields["RssAnon"].split()[0]) / 1024


def shards(rows: int) -> Iterator[TransitionDataset]:
    """Datasets of random transitions."""
    for number in range(0, rows, SHARD):
        yield make_shard(min(SHARD, rows - number), number)


def make_shard(count: int, seed: int, steps: int = 1000) -> TransitionDataset:
    """One dataset of random transitions in episodes of `steps` steps; what it is made from is freed on return."""
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((count + 1, OBSERVATION), np.float32)
    following = states[1:].copy()
    ends = np.arange(count) % steps == steps - 1
    following[ends] = rng.standard_normal((int(ends.sum()), OBSERVATION), np.float32)
    return TransitionDataset.from_arrays(
        states[:-1],
        rng.uniform(-1, 1, (count, ACTION)).astype(np.float32),
        rng.standard_normal(count, np.float32),
        following,
        terminations=np.zeros(count, bool),
        truncations=ends,
    )


def rate(buffer: TransitionBuffer, batches: int = 3000) -> float:
    """Number of rows sampled per second."""
    buffer.sample(BATCH)
    start = time.perf_counter()
    for _ in range(batches):
        buffer.sample(BATCH)
    return batches * BATCH / (time.perf_counter() - start)


def measure(dataset: TransitionDataset, title: str) -> None:
    size = sum(array.nbytes for array in dataset.stored().values()) / 2**20
    print(f"{title}: {size:,.0f} MiB of arrays")
    for horizon in (1, 5):
        buffer = TransitionBuffer(
            1000, dataset.observation_space, dataset.action_space, "cpu", horizon=horizon, next_actions=False, seed=0
        )
        start = time.perf_counter()
        buffer.attach(dataset)
        attached = time.perf_counter() - start
        print(f"{title}, horizon {horizon}: {rate(buffer):,.0f} rows/s; attached in {attached:.2f} s")


def train(path: Path) -> None:
    """Prints the memory of a run while it trains, and the peak of the process at the end."""
    start = time.perf_counter()
    dataset = open_memmap(path)
    print(f"opened {len(dataset):,} transitions in {1e3 * (time.perf_counter() - start):.1f} ms")
    model = BC(dataset=dataset, horizon=5, actor_hidden_dims=(256, 256), device="cpu", seed=0)
    measure(dataset, "memmap, warm" if dataset.final_observations is None else "compact memmap, warm")
    largest = 0.0
    for _ in range(10):
        model.learn_offline(200)
        largest = max(largest, resident()[0])
    print(
        f"resident while training: at most {largest:,.0f} MiB; peak of the process, attaching included: "
        f"{peak():,.0f} MiB"
    )


def build(path: Path, rows: int) -> None:
    """Writes a memory-mapped dataset to a folder; it is compact if the name of the folder says so."""
    before, start = resident()[1], time.perf_counter()
    made = shards(rows)
    write_memmap(path, map(TransitionDataset.compact, made) if path.name == "compact" else made)
    size = sum(file.stat().st_size for file in path.iterdir()) / 2**30
    print(f"{path.name}: built {size:.2f} GiB in {time.perf_counter() - start:.1f} s, random numbers included")
    print(f"peak of the process while building: {peak() - before:,.0f} MiB above the start")


def load(path: Path, *, compact: bool) -> None:
    """Loads an .npz file, and prints the peak of the process above its start."""
    before = peak()
    start = time.perf_counter()
    dataset = load_dataset(f"npz:{path}", compact=compact)
    size = sum(array.nbytes for array in dataset.stored().values()) / 2**20
    took = time.perf_counter() - start
    title = "compact" if compact else "full"
    print(f"npz, {title}: loaded in {took:.2f} s; {size:,.0f} MiB of arrays, peak {peak() - before:,.0f} MiB")


def peak() -> float:
    """Largest resident memory of this process so far in MiB; `ru_maxrss` would include that of its parent."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where to build; default: a temporary folder")
    parser.add_argument("--build", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--train", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--compact", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.build is not None:
        build(args.build, args.rows)
        return
    if args.train is not None:
        train(args.train)
        return
    if args.load is not None:
        load(args.load, compact=args.compact)
        return
    folder = args.folder or Path(tempfile.mkdtemp(dir=Path.home() / ".cache"))
    try:
        if args.rows <= SHARD:
            (dataset,) = shards(args.rows)
            measure(dataset, "ram")
            measure(dataset.compact(), "compact ram")
            file = dataset.save(folder / "data.npz")
            del dataset
            for option in ([], ["--compact"]):
                subprocess.run([sys.executable, __file__, "--load", str(file), *option], check=True)
        for name in ("compact", "full"):
            for step in (["--build", str(folder / name), "--rows", str(args.rows)], ["--train", str(folder / name)]):
                subprocess.run([sys.executable, __file__, *step], check=True)
            shutil.rmtree(folder / name)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
