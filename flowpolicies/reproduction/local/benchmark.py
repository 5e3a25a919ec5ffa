"""The declaration of the local benchmark, read from `flowpolicies/presets/local.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, final

from flowpolicies.messages import did_you_mean
from flowpolicies.reproduction.preset_files import presets_folder


@final
@dataclass(frozen=True, kw_only=True)
class LocalDataset:
    """A dataset of the benchmark, with its tasks."""

    address: str
    """Address of the dataset; {task} stands for the number of the task."""
    tasks: tuple[int, ...]
    """Numbers of the tasks. Hyperparameters are chosen on the first one."""
    episodes: int | None = None
    """Number of episodes to generate with seed 0; None: the address needs no generation."""
    options: Mapping[str, Any]
    """Flags of all runs on this dataset, such as the discount factor."""
    step_ms: float
    """Processor time of an environment step in milliseconds, for estimates."""
    evaluation_seconds: float
    """Processor time of an evaluation in seconds, for estimates."""


@final
@dataclass(frozen=True, kw_only=True)
class LocalAlgorithm:
    """An algorithm of the benchmark, with the values of its sweep."""

    hyperparameter: str
    """Field that the sweep chooses."""
    values: tuple[float, ...]
    """Values of the sweep; where they are equally good, the middle one is chosen."""
    options: Mapping[str, Any]
    """Other flags of all runs of this algorithm."""
    learns_online: bool = True
    """Whether online training follows; it makes no sense for algorithms without a value function."""
    update_ms: float
    """Processor time of an update in milliseconds, for estimates."""

    def setting(self, value: float) -> str:
        """Name of a value of the sweep, such as "alpha=3"."""
        return f"{self.hyperparameter}={value:g}"


@final
@dataclass(frozen=True, kw_only=True)
class LocalBenchmark:
    """The whole benchmark; the fields are the keys of `flowpolicies/presets/local.toml`."""

    title: str
    """One line for the page of results and for `flowpolicies list tables`."""
    seeds: tuple[int, ...]
    """Seeds of the reported runs."""
    sweep_seed: int
    """Seed of the sweep, which is not reported."""
    steps: int
    """Offline gradient steps of each run, in the sweep as well."""
    online_steps: int
    """Environment steps of online training in the reported runs."""
    evaluations: int
    """Number of evaluations in the offline phase. The online phase has as many per step."""
    last: int
    """Number of last evaluations of a phase whose mean is its score."""
    options: Mapping[str, Any]
    """Flags of all runs, as far as the algorithm has them."""
    datasets: Mapping[str, LocalDataset]
    """Name of each dataset -> its declaration."""
    algorithms: Mapping[str, LocalAlgorithm]
    """Name of each algorithm -> its declaration."""

    @property
    def eval_every(self) -> int:
        """Number of steps between two evaluations, in both phases."""
        return max(1, self.steps // self.evaluations)

    @property
    def candidates(self) -> int:
        """Number of values in the sweep of each algorithm, the same for all."""
        return len(next(iter(self.algorithms.values())).values)

    def check(self) -> None:
        """Raises a ValueError if the sweep is not fair, or if the benchmark cannot be run as declared.

        A sweep is fair if it has the same number of different values for each algorithm, and a seed of its own.
        """
        if self.sweep_seed in self.seeds:
            raise ValueError(f"seed {self.sweep_seed} is the seed of the sweep, which is not reported. Choose another.")
        for name, one in self.algorithms.items():
            if len(one.values) != self.candidates or len(set(one.values)) != self.candidates:
                raise ValueError(
                    f"the sweep of {name} has the values {', '.join(f'{v:g}' for v in one.values)}; every algorithm "
                    f"has {self.candidates} different ones."
                )

    def check_known(self, what: str, given: Iterable[str], known: Iterable[str]) -> None:
        """Raises a ValueError for a name that the benchmark does not have."""
        names = list(known)
        for name in given:
            if name not in names:
                raise ValueError(
                    f"the local benchmark has no {what} '{name}'.{did_you_mean(name, names)} It has {', '.join(names)}."
                )


def load_benchmark(text: str | None = None) -> LocalBenchmark:
    """Reads a declaration.

    Args:
        text: TOML; None: that of `flowpolicies/presets/local.toml`.

    Raises:
        ValueError: if the sweep is not fair; see `LocalBenchmark.check`.
    """
    values = tomllib.loads((presets_folder() / "local.toml").read_text() if text is None else text)
    algorithms = {name: LocalAlgorithm(**_plain(one)) for name, one in values.pop("algorithms").items()}
    datasets = {name: LocalDataset(**_plain(one)) for name, one in values.pop("datasets").items()}
    found = LocalBenchmark(**_plain(values), algorithms=algorithms, datasets=datasets)
    found.check()
    return found


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """A TOML table with tuples for arrays, and an empty table of options if it has none."""
    return {"options": {}} | {
        key: tuple(value) if isinstance(value, list) else _tuples(value) if isinstance(value, dict) else value
        for key, value in table.items()
    }


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
