"""`flowpolicies bench`: measure the speed of updates, acting, online training and data, and write a page about it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import tyro

from flowpolicies.cli.command import Command

FOLDER = Path("runs/bench")
"""Folder of the results, unless another one is asked for."""


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Abstract base of the measurements."""

    kind: ClassVar[str]
    """Kind of the measurement, which names its file of results."""

    out_dir: Path = FOLDER
    """Folder of the results, a file bench-KIND.json. The results that it holds are compared with the new ones."""
    threads: int = 1
    """Number of cores and threads. JAX takes as many threads as the process may use cores."""

    def run(self, words: Sequence[str]) -> None:
        """Measures, writes the results, and prints the changes since the last results."""
        from flowpolicies.benchmarking.machine import describe_machine, use_cores, warn_if_busy
        from flowpolicies.benchmarking.results import save_results

        use_cores(self.threads)
        warn_if_busy(self.threads)
        machine = describe_machine(self.threads)
        results = self.measure()
        print("\n".join(save_results(self.kind, self.out_dir, results, machine, ["flowpolicies", *words])))

    @abstractmethod
    def measure(self) -> dict[str, Any]:
        """The results as plain data."""


@final
@dataclass(frozen=True, kw_only=True)
class BenchStep(Bench):
    """Time of an update of each algorithm, eager, compiled and in bfloat16, beside JAX if it is installed."""

    kind: ClassVar[str] = "step"
    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies bench step",
        "flowpolicies bench step --algorithms fql qflow --columns eager jax --seconds 5",
        "flowpolicies bench step --algorithms all",
    )

    algorithms: tuple[str, ...] = ()
    """Algorithms, or rows of the comparison with JAX: fql, qflow, ifql, rql, qam, qflow-small, fql-small. Default:
    these rows. all: these rows, and every other algorithm eagerly."""
    columns: tuple[str, ...] = ("eager", "compiled", "bf16", "jax")
    """Forms of the update to measure: eager, compiled, bf16 (compiled, with products in bfloat16), jax."""
    seconds: float = 10.0
    """Time to measure each row; compiling comes on top of it."""

    def measure(self) -> dict[str, Any]:
        """Measures the updates."""
        from flowpolicies.benchmarking.step import measure_step

        return measure_step(self.algorithms, columns=self.columns, seconds=self.seconds, say=say_now)


@final
@dataclass(frozen=True, kw_only=True)
class BenchReplay(Bench):
    """Time to sample a batch: in memory, compact, memory-mapped, and from Stable-Baselines3's buffer."""

    kind: ClassVar[str] = "replay"
    examples: ClassVar[tuple[str, ...]] = ("flowpolicies bench replay", "flowpolicies bench replay --rows 100000")

    rows: int = 1_000_000
    """Number of transitions of each dataset. Beyond a million, only memory maps are measured."""
    rounds: int = 20
    """Number of rounds, in each of which every sampler makes 100 batches."""
    folder: Path | None = None
    """Folder on the disk that memory maps are measured on. Default: ~/.cache."""

    def measure(self) -> dict[str, Any]:
        """Measures the samplers."""
        from flowpolicies.benchmarking.replay import measure_replay

        return measure_replay(transitions=self.rows, rounds=self.rounds, folder=self.folder, say=say_now)


@final
@dataclass(frozen=True, kw_only=True)
class BenchScaling(Bench):
    """Time of an update against batch, width, ensemble, flow steps, rows of data, threads and seeds."""

    kind: ClassVar[str] = "scaling"
    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies bench scaling --threads 2",
        "flowpolicies bench scaling --algorithm fql --axes batch_size rows",
    )

    algorithm: str = "qflow"
    """Algorithm whose updates are measured."""
    axes: tuple[str, ...] = ("batch_size", "width", "ensemble", "flow_steps", "rows", "threads", "seeds")
    """What is varied: batch_size, width, ensemble, flow_steps, rows, threads (up to --threads), seeds."""
    width: int = 256
    """Units of each of four hidden layers, where the width is not what is varied."""
    seconds: float = 8.0
    """Time to measure each axis."""

    def measure(self) -> dict[str, Any]:
        """Measures the axes."""
        from flowpolicies.benchmarking.scaling import measure_scaling

        return measure_scaling(self.algorithm, axes=self.axes, width=self.width, seconds=self.seconds, say=say_now)


@final
@dataclass(frozen=True, kw_only=True)
class BenchAct(Bench):
    """Time from an observation to an action, beside JAX and SAC of Stable-Baselines3."""

    kind: ClassVar[str] = "act"
    examples: ClassVar[tuple[str, ...]] = ("flowpolicies bench act",)

    algorithms: tuple[str, ...] = ()
    """Rows to measure, such as flow, one_step or guided. Default: all rows."""
    seconds: float = 3.0
    """Time to measure each row."""

    def measure(self) -> dict[str, Any]:
        """Measures acting."""
        from flowpolicies.benchmarking.act import measure_act

        return measure_act(self.algorithms, seconds=self.seconds, say=say_now)


@final
@dataclass(frozen=True, kw_only=True)
class BenchOnline(Bench):
    """Time per environment step of online training, and of collection alone, beside SAC of Stable-Baselines3."""

    kind: ClassVar[str] = "online"
    examples: ClassVar[tuple[str, ...]] = ("flowpolicies bench online", "flowpolicies bench online --algorithms sac")

    algorithms: tuple[str, ...] = ("sac", "qflow")
    """Algorithms to measure beside SAC of Stable-Baselines3."""
    hidden_dims: tuple[int, ...] = (128, 128)
    """Hidden widths of all networks."""
    n_envs: int = 1
    """Number of environments, which are stepped in one process."""
    rounds: int = 10
    """Number of rounds, in each of which every algorithm takes 100 steps."""

    def measure(self) -> dict[str, Any]:
        """Measures online training."""
        from flowpolicies.benchmarking.online import describe, measure_online

        results = measure_online(self.algorithms, hidden_dims=self.hidden_dims, n_envs=self.n_envs, rounds=self.rounds)
        say_now("\n".join(describe(results)))
        return results


@final
@dataclass(frozen=True, kw_only=True)
class BenchPage(Command):
    """Write the page on performance, docs/performance.md, from files of results."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies bench page",
        "flowpolicies bench page runs/bench --page performance.md",
    )

    folder: tyro.conf.Positional[Path] = Path("docs/results")
    """Folder with the files bench-KIND.json."""
    page: Path = Path("docs/performance.md")
    """Path of the Markdown file to write."""

    def run(self, words: Sequence[str]) -> None:
        """Writes the page."""
        from flowpolicies.benchmarking.page import make_page
        from flowpolicies.files import atomic_write

        text = make_page(self.folder)
        with atomic_write(self.page) as file:
            file.write(text.encode())
        print(f"written to {self.page}")


BENCH: dict[str, type[Command]] = {
    "step": BenchStep,
    "act": BenchAct,
    "replay": BenchReplay,
    "online": BenchOnline,
    "scaling": BenchScaling,
    "page": BenchPage,
}
"""Next word of the command line -> command."""


def say_now(line: str) -> None:
    """Prints a line at once, because a measurement takes minutes."""
    print(line, flush=True)
