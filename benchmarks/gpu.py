"""Measures a CUDA device in eight minutes: updates of all algorithms, and what the papers' runs reach in that time.

    python benchmarks/gpu.py                        # ends within eight minutes
    python benchmarks/gpu.py --device cpu --small   # all of it in small, without a GPU, in two minutes at most

It has two parts, and `--parts` selects one of them:

- `steps`: time of an update with the papers' networks (4x512, batch 256) for every algorithm: eager, of 8 seeds
  together, and compiled. The algorithms in `FIRST` come first, because compiling takes most of the time.
- `cube`: Q-Flow and FQL with the presets of cube-single-play, task 2, and 8 seeds in each update, for as many updates
  as there is time for. Success is measured with all cores of the processor. The same cores generate the data while the
  first part uses the GPU, unless the folder `--data-dir` has them.

A part has a share of the time, and what it leaves is the next one's. What fails is recorded with its error, and what
there is no time for as left out. The files bench-gpu.json and bench-gpu.md are written anew after each measurement, in
the folder `--out`: by default that of the environment variable OUT, and runs/bench without it.

On a machine that has PyTorch and reaches no package index, with wheels of everything else in the folder .whl
(docs/guides/speed.md says how to make them), this is the whole command line:

    python3 -m pip install -q --no-index --no-deps --no-compile --upgrade --target /tmp/site .whl/*.whl &&
    PYTHONPATH=/tmp/site PYTHONUNBUFFERED=1 python3 benchmarks/gpu.py
"""

from __future__ import annotations

import faulthandler
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm, get_algorithm
from flowpolicies.benchmarking.flops import period_of
from flowpolicies.benchmarking.machine import describe_machine
from flowpolicies.benchmarking.page import number, table
from flowpolicies.benchmarking.results import path_of, write_results
from flowpolicies.benchmarking.scaling import seeds_together
from flowpolicies.benchmarking.step import main_phase
from flowpolicies.benchmarking.timing import TimeBudget, attempt, interleaved
from flowpolicies.benchmarking.workloads import COMPARED, Workload, make_model, random_dataset
from flowpolicies.core.compiling import CompilationError, missing_for
from flowpolicies.data import TransitionDataset, load_dataset
from flowpolicies.files import atomic_write
from flowpolicies.policies.evaluation import evaluate
from flowpolicies.reproduction.jobs import flags, start, stop
from flowpolicies.reproduction.presets import load_preset
from flowpolicies.reproduction.published import load_table
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.envs import make_vec_env
from flowpolicies.training.seeds.together import InTurn, Vectorized

FIRST = ("qflow", "fql", "ifql", "rql", "qam", "qc")
"""Algorithms that are measured before the others."""

DATASET, PRESET, ROW = "cube-single-play-v0", "ogbench/cube-single-play-task2", "cube-single"
"""What is trained on: the dataset, the preset, and the row of the paper's table."""
TRAINED = {"qflow": "Q-Flow", "fql": "FQL"}
"""Algorithm that is trained -> its column in the table."""


class Column(NamedTuple):
    """One way to make an update."""

    options: Mapping[str, Any]
    """Arguments of the algorithm's class."""
    least: float
    """Seconds that must be left to begin with it."""
    several: bool = False
    """Whether an update is that of several seeds together."""


COLUMNS: Mapping[str, Column] = {
    "eager": Column({}, 3),
    "seeds": Column({}, 8, several=True),
    "compiled": Column({"compile": True}, 45),
    "compiled-seeds": Column({"compile": True}, 60, several=True),
    "compiled-tf32": Column({"compile": True, "precision": "tf32"}, 45),
    "compiled-bf16": Column({"compile": True, "precision": "bf16"}, 45),
    "compiled-without-graphs": Column({"compile": "inductor"}, 45),
    "host-data": Column({"replay_buffer_kwargs": {"data_device": "cpu"}}, 3),
}
"""Name -> way to make an update. A compiled update on a GPU is a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large and how long everything is. The defaults are the papers' sizes."""

    budget: float = 445.0
    """Seconds for everything; the imports before it and the exit fit into eight minutes as well."""
    patience: float = 1.0
    """Factor of the times that must be left to begin with something."""
    compile: bool | str = True
    """How updates are compiled; see `OfflineAlgorithm`."""
    networks: Mapping[str, int] = field(default_factory=dict)
    """Sizes of networks and batches that differ from those of `Workload`."""
    seeds: int = 8
    """Number of seeds that are trained together."""
    rows: int = 100_000
    """Transitions of the random data for step times."""
    seconds: float = 0.6
    """Seconds of measurement of each step time."""
    product: int = 4096
    """Rows and columns of the matrices whose product is timed."""
    episodes: int | None = None
    """Episodes to generate. None: as many as the cores make during the first part, and at most the published 1,000."""
    episode_steps: int = 1001
    """Rows of an episode."""
    evaluated: int = 50
    """Episodes of an evaluation, which are played at the same time."""
    evaluation_steps: int | None = None
    """Steps after which episodes of an evaluation are cut. None: those of the environment."""


SMALL = Size(
    budget=90.0,
    patience=0.1,
    compile="aot_eager",
    networks={"width": 16, "depth": 2, "batch_size": 16},
    seeds=2,
    rows=500,
    seconds=0.02,
    product=64,
    episodes=2,
    episode_steps=61,
    evaluated=2,
    evaluation_steps=20,
)
"""The sizes of --small."""

GRACE = 12.0
"""Seconds after the budget at which the process is ended."""
SHARE = 0.4
"""Share of the budget that step times may use if there is another part."""
CORE_SECONDS = 3.3
"""Seconds of a core for an episode with its tenth of validation data; 2.3 were measured on a core of an AMD Zen 4."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured."""

    parts: tuple[Literal["steps", "cube"], ...] = ("steps", "cube")
    """Parts to measure; steps are always the first."""
    algorithms: tuple[str, ...] = ()
    """Algorithms whose step times are measured. None given: all."""
    columns: tuple[str, ...] = ("eager", "seeds", "compiled")
    """Ways to make an update: eager, seeds, compiled, compiled-seeds, compiled-tf32, compiled-bf16,
    compiled-without-graphs, host-data."""
    budget: float | None = None
    """Seconds for everything. None: 445, and 90 with --small."""
    precision: Literal["fp32", "tf32", "bf16"] = "tf32"
    """Number type of products in the training of part cube on a GPU. TF32 is JAX's default, and so the papers'."""
    device: str = "cuda"
    """Torch device. cpu only shows that the script runs."""
    small: bool = False
    """Tiny networks, data and evaluations."""
    data_dir: Path = Path("runs/bench/data")
    """Folder with OGBench's cube-single-play-v0.npz; it is generated there if the folder does not have it."""
    out: Path = Path(os.environ.get("OUT") or "runs/bench")
    """Folder of the results."""

    def size(self) -> Size:
        """Sizes, with the budget that is asked for."""
        size = SMALL if self.small else Size()
        return size if self.budget is None else replace(size, budget=self.budget)


class Bench:
    """A measurement under way: its settings, its clock, and its results, which are written after each of them."""

    def __init__(self, settings: Settings, command: Sequence[str]) -> None:
        self.settings, self.size, self.command = settings, settings.size(), command
        self.budget, self.device = TimeBudget(self.size.budget), torch.device(settings.device)
        self.machine = describe_machine(torch.get_num_threads()) | {"device": settings.device}
        self.results: dict[str, Any] = {}

    def save(self) -> str:
        """Writes both files, and returns the Markdown of the second one."""
        found = {"seconds": round(self.budget.used, 1), "results": self.results}
        path, text = path_of("gpu", self.settings.out), describe(self.results, self.machine)
        write_results("gpu", self.settings.out, found, self.machine, self.command)
        with atomic_write(path.with_suffix(".md")) as file:
            file.write(text.encode())
        return text

    def record(self, path: Sequence[str], work: Callable[[dict[str, Any]], object], end: float, least: float) -> None:
        """Does some work, and writes its results, or why there are none.

        Args:
            path: keys of the dict of results that the work gets.
            end: share of the budget after which the work is given up.
            least: seconds that must be left to begin with it.
        """
        cell = self.results
        for key in path:
            cell = cell.setdefault(key, {})
        began = attempt(work, cell, seconds=self.budget.left(end), least=least * self.size.patience)
        print(f"{self.budget.used:4.0f} s  {' '.join(path)}: {cell}", flush=True)
        if not began:
            return
        self.save()
        gc.collect()
        if "torch._dynamo" in sys.modules:  # It takes seconds to import.
            torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def repeated(self, update: Callable[[], object]) -> Callable[[int], object]:
        """A function that makes a number of updates, and returns when the device has finished them."""

        def run(count: int) -> None:
            for _ in range(count):
                update()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)

        return run


def main(arguments: list[str] | None = None) -> int:
    """Measures, writes the results, and returns the exit code."""
    settings = tyro.cli(Settings, args=arguments)
    if torch.device(settings.device).type == "cuda" and not torch.cuda.is_available():
        print("gpu.py: there is no CUDA device here (torch.cuda.is_available() is False).", file=sys.stderr)
        return 2
    if unknown := [name for name in settings.columns if name not in COLUMNS]:
        raise ValueError(f"unknown columns {unknown} (known: {', '.join(COLUMNS)}).")
    for name in settings.algorithms:
        get_algorithm(name)  # Refuses an unknown name.
    # If a call into the driver does not return, nothing else ends the process.
    faulthandler.dump_traceback_later(settings.size().budget + GRACE, exit=True)
    bench = Bench(settings, ["python", "benchmarks/gpu.py", *(sys.argv[1:] if arguments is None else arguments)])
    generation = start_generation(bench) if "cube" in settings.parts else None
    try:
        if "steps" in settings.parts:
            measure_steps(bench, generation)
        if "cube" in settings.parts:
            measure_cube(bench, generation)
    finally:
        if generation is not None and generation.poll() is None:
            stop([generation])
        faulthandler.cancel_dump_traceback_later()
    print(f"\n{bench.save()}\nwritten to {path_of('gpu', settings.out)}, after {bench.budget.used:.0f} s")
    return 0


def order_of(algorithms: Sequence[str], columns: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of an algorithm and a column, the most important ones first.

    These are the algorithms in `FIRST`, the first column of all others, what is compiled of the former, and the rest.
    """
    names = algorithms or (*FIRST, *(name for name in ALGORITHMS if name not in FIRST))

    def rank(pair: tuple[str, str]) -> int:
        name, column = pair
        if name in FIRST:
            return 2 if "compile" in COLUMNS[column].options else 0
        return 1 if column == columns[0] else 3

    return sorted(((name, column) for column in columns for name in names), key=rank)


def measure_steps(bench: Bench, generation: subprocess.Popen[bytes] | None) -> None:
    """Step times, in the order of their importance, until the share of this part is used."""
    end = SHARE if "cube" in bench.settings.parts else 1.0
    bench.record(["products"], lambda cell: cell.update(products(bench)), end, 5)
    dataset = random_dataset(bench.size.rows, Workload.observation_dim, Workload.action_dim)
    for name, key in order_of(bench.settings.algorithms, bench.settings.columns):
        workload, column = replace(COMPARED.get(name) or main_phase(name), **bench.size.networks), COLUMNS[key]

        def work(cell: dict[str, Any], workload: Workload = workload, column: Column = column) -> None:
            cell["size"] = workload.text
            cell["cores generate data"] = generation is not None and generation.poll() is None
            cell.update(step_time(bench, workload, column, dataset))

        bench.record(["steps", name, key], work, end, column.least)
    bench.save()


def step_time(bench: Bench, workload: Workload, column: Column, dataset: TransitionDataset) -> dict[str, Any]:
    """Milliseconds of an update, seconds until the first one is done, and the largest memory of the device.

    Raises:
        RuntimeError: if an update cannot be compiled on this machine.
    """
    begin, on_gpu = time.perf_counter(), bench.device.type == "cuda"
    if "compile" in column.options and (missing := missing_for(bench.device)):
        raise RuntimeError(f"not compiled: {missing}")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(bench.device)
    options = {"device": bench.settings.device, **column.options}
    if options.get("compile") is True:
        options["compile"] = bench.size.compile
    if column.several:
        together = seeds_together(workload, bench.size.seeds, dataset, **options)
        period, update = period_of(together.models[0]), together.train
    else:
        model = make_model(workload, dataset, **options)
        period, update = period_of(model), lambda: model.train(1, workload.batch_size)
    run = bench.repeated(update)
    run(period)
    first = time.perf_counter() - begin
    times = interleaved({"": lambda count: run(count * period)}, seconds=bench.size.seconds)[""].divided_by(period)
    memory = {"memory_mib": round(torch.cuda.max_memory_allocated(bench.device) / 2**20)} if on_gpu else {}
    return {**times.as_dict(), "first_update_s": round(first, 1), **memory}


def products(bench: Bench) -> dict[str, float]:
    """Fastest matrix products on the device in TFLOP/s, by precision."""
    size, found, before = bench.size.product, {}, torch.get_float32_matmul_precision()
    for name, dtype, precision in (
        ("fp32", torch.float32, "highest"),
        ("tf32", torch.float32, "high"),
        ("bf16", torch.bfloat16, "highest"),
    ):
        torch.set_float32_matmul_precision(precision)
        a, b = (torch.randn(size, size, device=bench.device, dtype=torch.float32).to(dtype) for _ in range(2))
        run = bench.repeated(lambda a=a, b=b: a @ b)
        found[name] = round(2e-9 * size**3 / interleaved({"": run}, seconds=bench.size.seconds)[""].minimum, 2)
    torch.set_float32_matmul_precision(before)
    return found


def start_generation(bench: Bench) -> subprocess.Popen[bytes] | None:
    """A process that generates the data with all cores but four, which updates need; None if the data are there."""
    folder, size = bench.settings.data_dir, bench.size
    if (folder / f"{DATASET}.npz").is_file():
        return None
    workers = max(1, (os.cpu_count() or 1) - 4)
    episodes = size.episodes or max(10, min(1000, int(SHARE * size.budget * workers / CORE_SECONDS)))
    numbers = {"episodes": episodes, "max_episode_steps": size.episode_steps, "workers": workers}
    options = {**numbers, "data_dir": folder, "overwrite": True}
    words = ["data", "generate", DATASET, *flags(options)]
    return start(words, bench.settings.out / "generation.log", {**os.environ, "OMP_NUM_THREADS": "1"})


def measure_cube(bench: Bench, generation: subprocess.Popen[bytes] | None) -> None:
    """Trains and evaluates each algorithm in an equal share of the time that is left when the data are there."""
    ready: list[tuple[TransitionDataset, VecEnv]] = []
    bench.record(["data"], lambda cell: ready.append(prepare(bench, cell, generation)), 0.75, 0)
    if not ready:
        return
    dataset, envs = ready[0]
    begin, names = bench.budget.used / bench.size.budget, list(TRAINED)
    with closing(envs):
        for done, name in enumerate(names, 1):
            end = begin + (1 - begin) * done / len(names)

            def work(cell: dict[str, Any], name: str = name, end: float = end) -> None:
                together = prepare_training(bench, cell, name, dataset)
                train(bench, cell, together, envs, lambda: bench.budget.left(end))

            bench.record(["cube", name], work, end, 40)


def prepare(
    bench: Bench, cell: dict[str, Any], generation: subprocess.Popen[bytes] | None
) -> tuple[TransitionDataset, VecEnv]:
    """The dataset, when it has been generated, and environments in a process for each core.

    Raises:
        RuntimeError: if the data could not be generated.
    """
    if generation is not None and generation.wait() != 0:
        log = (bench.settings.out / "generation.log").read_text().strip().splitlines()
        raise RuntimeError(f"the data could not be generated: {log[-1] if log else 'no message'}")
    address = load_preset("qflow", PRESET).dataset
    dataset = load_dataset(address, data_dir=bench.settings.data_dir)
    local = ", generated locally: not the published file" if "generated" in dataset.provenance else ""
    cell |= {"source": f"{DATASET}{local}", "episodes": dataset.num_episodes, "transitions": len(dataset)}
    return dataset, make_vec_env(address, bench.size.evaluated, processes=os.cpu_count() or 1)


def prepare_training(bench: Bench, cell: dict[str, Any], name: str, dataset: TransitionDataset) -> Vectorized | InTurn:
    """Seeds that are updated together and have made one update: compiled on a GPU, or eager if that is not possible."""
    preset, size, on_gpu = load_preset(name, PRESET), bench.size, bench.device.type == "cuda"
    values = {**preset.fields_of(SB3Hyperparameters), **preset.fields_of(get_algorithm(name).Config)}
    missing = missing_for(bench.device) if on_gpu else "only on a GPU"
    cell |= {"preset": preset.name, "hyperparameters": values, "seeds": size.seeds, "episodes": size.evaluated}
    cell |= {"precision": bench.settings.precision if on_gpu else "fp32", "compiled": missing or True}
    cell["published"] = load_table("qflow-standard").published[ROW, TRAINED[name]].mean
    workload = Workload(algorithm=name, hyperparameters=values, **size.networks)
    options = {"device": bench.settings.device, "precision": cell["precision"]}
    begin = time.perf_counter()
    try:
        together = seeds_together(workload, size.seeds, dataset, compile=missing is None, **options)
        bench.repeated(together.train)(1)
    except CompilationError as error:
        cell["compiled"] = str(error)
        together = seeds_together(workload, size.seeds, dataset, **options)
        bench.repeated(together.train)(1)
    cell["first_update_s"] = round(time.perf_counter() - begin, 1)
    return together


def train(
    bench: Bench, cell: dict[str, Any], together: Vectorized | InTurn, envs: VecEnv, left: Callable[[], float]
) -> None:
    """Trains until only the time for evaluating all seeds is left, and evaluates them.

    Before the training an evaluation, whose episodes all last until their time limit, tells how long one takes at most.
    """
    size, run = bench.size, bench.repeated(together.train)

    def success(model: OfflineAlgorithm) -> float:
        found = evaluate(model, envs, size.evaluated, seed=0, max_steps=size.evaluation_steps)
        assert found.successes is not None
        return round(100 * float(found.successes.mean()), 1)

    begin = time.perf_counter()
    success(together.models[0])
    cell["evaluation_s"] = time.perf_counter() - begin
    begin, cell["updates"] = time.perf_counter(), 0
    while left() > 1.2 * len(together.models) * cell["evaluation_s"] + 2:
        run(50)
        cell["updates"] += 50
        cell["ms"] = 1e3 * (time.perf_counter() - begin) / cell["updates"]
    cell["success"] = []
    for model in together.models:
        bench.save()
        cell["success"].append(success(model))


def describe(results: Mapping[str, Any], machine: Mapping[str, Any]) -> str:
    """Tables of the results in Markdown."""
    software = machine.get("software", {})
    device = machine.get("cuda") if str(machine["device"]).startswith("cuda") else machine.get("processor")
    lines = [f"{device}, torch {software.get('torch')}, flowpolicies {software.get('flowpolicies_commit')}\n"]
    if "products" in results:
        lines.append("Products in TFLOP/s: " + ", ".join(f"{k} {v}" for k, v in results["products"].items()) + "\n")
    if steps := results.get("steps"):
        columns = list(dict.fromkeys(column for cells in steps.values() for column in cells))
        rows = [[name, *(_step(cells.get(column, {})) for column in columns)] for name, cells in steps.items()]
        lines.append(table(["ms per update", *columns], rows))
    if data := results.get("data"):
        lines.append("Data of the training: " + ", ".join(f"{key}: {value}" for key, value in data.items()) + "\n")
    if cube := results.get("cube"):
        head = ["cube-single-play-task2", "seeds", "updates", "ms", "success, %", "of each seed", "paper, %"]
        lines.append(table(head, [_trained(name, cell) for name, cell in cube.items()]))
        lines.append("The paper: mean over five tasks, after 1,000,000 updates on the published data.\n")
    return "\n".join(lines)


def _step(cell: Mapping[str, Any]) -> str:
    if "min_ms" in cell:
        return number(cell["min_ms"])
    return next((key for key in ("left out", "error") if key in cell), "")


def _trained(name: str, cell: Mapping[str, Any]) -> list[object]:
    success = cell.get("success", [])
    mean = number(sum(success) / len(success)) if success else cell.get("error", cell.get("left out", ""))
    each = " ".join(f"{value:.0f}" for value in success)
    updates = f"{cell['updates']:,}" if "updates" in cell else ""
    return [
        name,
        cell.get("seeds", ""),
        updates,
        number(cell["ms"]) if "ms" in cell else "",
        mean,
        each,
        cell.get("published", ""),
    ]


if __name__ == "__main__":
    sys.exit(main())
