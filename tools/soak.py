"""Trains online for 100,000 steps while memory, open files, threads and child processes of the training are sampled.

    python tools/soak.py [--steps 100000] [--out docs/results]

The networks are tiny, the replay buffer is full after a fifth of the steps, and evaluations, checkpoints and logs are
written all along. Writes soak.json and soak.png, and fails if one of the figures grows after the first 40 % of the
steps, when the buffer is full and the allocators have settled.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from flowpolicies.files import atomic_path, write_json
from flowpolicies.record import describe_hardware, describe_software

SETTLED = 0.4
"""Share of the steps after which the figures must not grow."""
MAX_GROWTH = 8.0
"""Growth of the memory in MB, by a line through the samples after that, that is taken for noise."""


class Sample(NamedTuple):
    """Figures of the training process at one moment."""

    seconds: float
    step: int
    memory: float
    """Resident memory in MB."""
    descriptors: int
    threads: int
    children: int
    """Number of child processes, and of their children."""


def command(folder: Path, steps: int) -> list[str]:
    """The training: Pendulum in 4 environments, with everything on that writes files."""
    sizes = (
        "--actor-hidden-dims",
        "8",
        "8",
        "--value-hidden-dims",
        "8",
        "8",
        "--flow-steps",
        "2",
        "--batch-size",
        "16",
    )
    every = ("--eval-every", str(steps // 20), "--eval-episodes", "2", "--checkpoint-every", str(steps // 20))
    online = ("--steps", "0", "--online-steps", str(steps), "--n-envs", "4", "--buffer-size", str(steps // 5))
    env = ("--env", "Pendulum-v1", "--learning-starts", "100", "--device", "cpu", "--run-dir", str(folder))
    return [sys.executable, "-m", "flowpolicies", "train", "fql", *env, *online, *sizes, *every]


def sample(pid: int, seconds: float, folder: Path) -> Sample:
    """The figures of a process now.

    Raises:
        OSError: if it has ended.
    """
    with open(f"/proc/{pid}/status") as file:
        status = dict(line.split(":", 1) for line in file)
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    memory = int(status["VmRSS"].split()[0]) / 1024
    return Sample(seconds, last_step(folder), memory, descriptors, int(status["Threads"]), len(descendants(pid)))


def descendants(pid: int) -> list[int]:
    """The child processes of a process, and theirs: environments run in processes that a server of processes forks."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with suppress(OSError):  # It has just ended.
            found += [child, *descendants(child)]
    return found


def last_step(folder: Path) -> int:
    """The environment step of the last row of the log; 0 if there is none."""
    try:
        with open(folder / "progress.csv", newline="") as file:
            steps = [row["time/total_timesteps"] for row in csv.DictReader(file)]
    except (OSError, KeyError, csv.Error):
        return 0
    return next((int(step) for step in reversed(steps) if step), 0)


def soak(steps: int, every: float) -> list[Sample]:
    """Runs the training, and samples it every so many seconds.

    Raises:
        ChildProcessError: if the training fails.
    """
    samples, start = list[Sample](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = Path(temporary) / "run"
        with open(Path(temporary) / "log", "w+") as log:
            process = subprocess.Popen(command(folder, steps), stdout=log, stderr=log)
            while process.poll() is None:
                time.sleep(every)
                try:
                    samples.append(sample(process.pid, time.monotonic() - start, folder))
                except (OSError, KeyError):  # It has just ended.
                    break
                if len(samples) % 60 == 0:
                    print(f"{samples[-1].step:,} steps after {samples[-1].seconds:.0f} s", flush=True)
            if process.wait() != 0:
                log.seek(0)
                raise ChildProcessError(f"the training failed:\n{log.read()[-3000:]}")
    return samples


def summarize(samples: list[Sample], steps: int) -> dict[str, float]:
    """Growth and ranges of the figures after the training has settled."""
    later = [one for one in samples if SETTLED * steps <= one.step < steps]
    x = np.array([one.step for one in later], float)
    memory = np.array([one.memory for one in later])
    slope = np.polyfit(x, memory, 1)[0]
    return {
        "samples": len(later),
        "memory_mb_at_settled": float(np.median(memory[: max(1, len(memory) // 10)])),
        "memory_mb_at_end": float(np.median(memory[-max(1, len(memory) // 10) :])),
        "memory_growth_mb": float(slope * (x[-1] - x[0])),
        "memory_growth_bytes_per_step": float(slope * 2**20),
        **{
            f"{name}_{kind}": int(function(getattr(one, name) for one in later))
            for name in ("descriptors", "threads", "children")
            for kind, function in (("min", min), ("max", max))
        },
        "seconds": samples[-1].seconds,
    }


def complaints(found: dict[str, float]) -> list[str]:
    """What has grown."""
    grown = [f"{name} from {found[f'{name}_min']} to {found[f'{name}_max']}" for name in ("threads", "children")
             if found[f"{name}_max"] > found[f"{name}_min"]]  # fmt: skip
    if found["descriptors_max"] - found["descriptors_min"] > 3:  # A checkpoint that is being written is a few.
        grown.append(f"descriptors from {found['descriptors_min']} to {found['descriptors_max']}")
    if found["memory_growth_mb"] > MAX_GROWTH:
        grown.append(f"memory by {found['memory_growth_mb']:.1f} MB")
    return grown


def plot(samples: list[Sample], path: Path) -> None:
    """Memory above, and the numbers of descriptors, threads and children below, over the steps."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(6, 4), sharex=True, layout="constrained")
    steps = [one.step / 1000 for one in samples]
    above.plot(steps, [one.memory for one in samples], color="C0", linewidth=1)
    above.set(ylabel="resident memory (MB)", ylim=(0, None))
    for number, name in enumerate(("descriptors", "threads", "children")):
        below.plot(steps, [getattr(one, name) for one in samples], color=f"C{number + 1}", linewidth=1, label=name)
    below.set(xlabel="environment steps (thousands)", ylabel="number", ylim=(0, None))
    below.legend(loc="center", fontsize="small")
    for axis in (above, below):
        axis.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000, help="environment steps")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two samples")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of soak.json and soak.png")
    options = parser.parse_args()
    samples = soak(options.steps, options.every)
    found = summarize(samples, options.steps)
    thinned = samples[:: max(1, len(samples) // 200)]
    record = {
        "steps": options.steps,
        "summary": found,
        "software": describe_software(),
        "hardware": describe_hardware(),
    }
    write_json(options.out / "soak.json", {**record, "columns": Sample._fields, "samples": [list(s) for s in thinned]})
    plot(samples, options.out / "soak.png")
    print(json.dumps(found, indent=2))
    grown = complaints(found)
    for text in grown:
        print(f"grows: {text}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
