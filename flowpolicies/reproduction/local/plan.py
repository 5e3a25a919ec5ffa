"""The runs of the local benchmark: their settings, command lines, folders, and estimates of their costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from flowpolicies.reproduction.jobs import Job, flags
from flowpolicies.reproduction.local.benchmark import LocalBenchmark
from flowpolicies.shell.catalog import config_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import TrainSettings

Stage = Literal["sweep", "final"]
"""Purpose of a run: to choose a hyperparameter, or to be reported."""

START_SECONDS = 15.0
"""Processor time of the start and the end of a run, with compiling from the cache, for estimates."""
MACHINE = ("data_dir", "device", "compile", "checkpoint_every", "log_every")
"""Flags that concern the machine and the files, and not the result beyond its last bits."""


class RunKey(NamedTuple):
    """What distinguishes a run from the others of the benchmark; columns of `local.csv`."""

    stage: Stage
    """Whether the run is part of the sweep, or reported."""
    dataset: str
    """Name of the dataset."""
    task: int
    """Number of the task."""
    algorithm: str
    """Name of the algorithm."""
    setting: str
    """Value of the swept hyperparameter, such as "alpha=3"."""
    seed: int
    """Seed of the run."""

    @property
    def place(self) -> RunKey:
        """The key with an empty setting for reported runs, as it is before their setting is chosen."""
        return self if self.stage == "sweep" else self._replace(setting="")


class PhaseCosts(NamedTuple):
    """Processor seconds of the two phases of a run."""

    offline: float
    online: float


@final
@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """One training run of the benchmark."""

    key: RunKey
    """What distinguishes it from the others."""
    values: Mapping[str, Any]
    """Flags that matter for the result, by the names of their fields."""
    machine: Mapping[str, Any]
    """Flags that concern the machine and the files."""
    folder: RunFolder
    """Folder of the run, which need not exist yet."""
    estimate: PhaseCosts
    """Estimated costs of its phases."""

    @property
    def name(self) -> str:
        """Name of the folder and of the log beside it."""
        return self.folder.path.name

    @property
    def words(self) -> tuple[str, ...]:
        """Command line of the run without the program's name."""
        return ("train", self.key.algorithm, *flags({**self.values, **self.machine}))

    @property
    def job(self) -> Job:
        """The run as a job, whose output goes to a file beside the folder."""
        return Job(self.name, (self.words,), self.folder.path.with_name(f"{self.name}.log"))

    @property
    def fingerprint(self) -> str:
        """Hash of the flags that matter; runs of other settings have another one."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def is_done(self) -> bool:
        """Whether the run has reached its last step."""
        return self.folder.model.is_file()

    def differences(self) -> dict[str, Any]:
        """Fields, and their values, in which the record of the run in the folder differs from these settings."""
        record = self.folder.read_config()
        had = {**record["settings"], **record["sb3_hyperparameters"], **record["hyperparameters"]}
        should = json.loads(json.dumps(self.values))
        return {name: had.get(name) for name, value in should.items() if had.get(name) != value}


@final
@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of the files of the benchmark."""

    runs: Path
    """Folder of the runs."""
    results: Path
    """Folder of the results."""
    data: Path
    """Folder of the generated data."""

    def data_of(self, benchmark: LocalBenchmark, dataset: str) -> Path:
        """Folder of a generated dataset."""
        return self.data.expanduser() / f"{dataset}-{benchmark.datasets[dataset].episodes}-episodes-seed0"


def plan_sweep(benchmark: LocalBenchmark, places: Places, dataset: str, algorithms: Iterable[str]) -> list[LocalRun]:
    """The runs that choose the hyperparameters: every value of every algorithm, on the first task of the dataset."""
    task, seed = benchmark.datasets[dataset].tasks[0], benchmark.sweep_seed
    return [
        _make_run(benchmark, places, RunKey("sweep", dataset, task, name, one.setting(value), seed), value)
        for name in algorithms
        for one in (benchmark.algorithms[name],)
        for value in one.values
    ]


def plan_final(
    benchmark: LocalBenchmark, places: Places, dataset: str, chosen: Mapping[str, float], seeds: Iterable[int]
) -> list[LocalRun]:
    """The reported runs of a dataset; all runs of one seed come before those of the next.

    Args:
        chosen: algorithm -> value of its swept hyperparameter. Algorithms without a choice have no runs.
    """
    settings = {name: benchmark.algorithms[name].setting(value) for name, value in chosen.items()}
    return [
        _make_run(benchmark, places, RunKey("final", dataset, task, name, settings[name], seed), value)
        for seed in seeds
        for task in benchmark.datasets[dataset].tasks
        for name, value in chosen.items()
    ]


def _make_run(benchmark: LocalBenchmark, places: Places, key: RunKey, value: float) -> LocalRun:
    dataset, algorithm = benchmark.datasets[key.dataset], benchmark.algorithms[key.algorithm]
    online = benchmark.online_steps if key.stage == "final" and algorithm.learns_online else 0
    known = fields_of(key.algorithm)
    common = {name: value for name, value in {**benchmark.options, **dataset.options}.items() if name in known}
    every = benchmark.eval_every
    values = {
        "dataset": dataset.address.format(task=key.task),
        "steps": benchmark.steps,
        "online_steps": online,
        "seed": key.seed,
        "eval_every": every,
        **common,
        **algorithm.options,
        algorithm.hyperparameter: _exact(key.algorithm, algorithm.hyperparameter, value),
    }
    values = {name: one.format(task=key.task) if isinstance(one, str) else one for name, one in values.items()}
    end = f"-{key.setting}" if key.stage == "sweep" else ""
    folder = RunFolder(places.runs / f"{key.stage}-{key.dataset}-task{key.task}-{key.algorithm}{end}-seed{key.seed}")
    machine = {name: values.pop(name) for name in MACHINE if name in values}
    machine |= {"run_dir": folder.path, "resume": True, "checkpoint_every": every, "log_every": max(1, every // 10)}
    if dataset.episodes is not None:
        machine["data_dir"] = places.data_of(benchmark, key.dataset)
    estimate = _estimate(benchmark, key, online)
    return LocalRun(key=key, values=values, machine=machine, folder=folder, estimate=estimate)


def fields_of(algorithm: str) -> set[str]:
    """Names of all fields that flags of `flowpolicies train ALGORITHM` set."""
    kinds = (config_of(algorithm), SB3Hyperparameters, TrainSettings)
    return {spec.name for kind in kinds for spec in dataclasses.fields(kind)}


def _exact(algorithm: str, name: str, value: float) -> float:
    """The value as a whole number if the field is one, as the command line and the record of a run have it."""
    (spec,) = (spec for spec in dataclasses.fields(config_of(algorithm)) if spec.name == name)
    return int(value) if isinstance(spec.default, int) else float(value)


def _estimate(benchmark: LocalBenchmark, key: RunKey, online_steps: int) -> PhaseCosts:
    dataset, update = benchmark.datasets[key.dataset], benchmark.algorithms[key.algorithm].update_ms / 1000
    every = benchmark.eval_every
    offline = START_SECONDS + benchmark.steps * update + benchmark.steps // every * dataset.evaluation_seconds
    online = online_steps * (update + dataset.step_ms / 1000) + online_steps // every * dataset.evaluation_seconds
    return PhaseCosts(offline, online)


def all_runs(
    benchmark: LocalBenchmark, places: Places, datasets: Iterable[str], algorithms: Iterable[str], seeds: Iterable[int]
) -> Iterator[LocalRun]:
    """All runs, where hyperparameters that are not chosen yet have their middle value, for counts and estimates."""
    middle = {name: benchmark.algorithms[name].values[benchmark.candidates // 2] for name in algorithms}
    for dataset in datasets:
        yield from plan_sweep(benchmark, places, dataset, algorithms)
        yield from plan_final(benchmark, places, dataset, middle, seeds)
