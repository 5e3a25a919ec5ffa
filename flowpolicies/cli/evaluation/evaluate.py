"""`flowpolicies evaluate`: run policies, and print success rates and returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import tyro
from rich.console import Console
from rich.table import Table

from flowpolicies import training
from flowpolicies.cli.command import Command
from flowpolicies.cli.evaluation.video import choose_renderer, video_path
from flowpolicies.comparison.endings import check_video
from flowpolicies.comparison.evaluating import (
    EvaluationProtocol,
    PolicyInEnvironment,
    evaluate_all,
    paired_difference,
    pool,
    reference_scores,
    rows_of,
)
from flowpolicies.comparison.results import check_ending, write_results
from flowpolicies.comparison.runs import NamedRun, name_runs, short_names
from flowpolicies.data.tasks import parse_tasks, task_of, with_task
from flowpolicies.files import write_json
from flowpolicies.policies.intervals import ROWS, Interval
from flowpolicies.policies.sharing.finding import shared_source
from flowpolicies.training.loading import check_exists

if TYPE_CHECKING:
    from flowpolicies.policies import Evaluation

Found = Mapping[str, "Evaluation"]
"""Address of an environment -> the evaluation in it."""


@final
@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Run policies in environments, and print their success rates and returns with 95 % intervals.

    Several policies get the same starts and noise, so that their episodes can be compared in pairs.
    """

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies evaluate runs/fql-cube-single-play-singletask-v0-seed0",
        "flowpolicies evaluate runs/fql-* runs/qflow-* --episodes 50 --tasks 1-5 --workers 2 --out results.jsonl",
        "flowpolicies evaluate flowpolicies/pointmaze-medium-qflow --video episode.mp4",
    )

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, folders of runs, policy files (policy.safetensors), folders of `flowpolicies export`, zip files of
    model.save(), flowpolicies/NAME (policies of the package), or hf://user/name (repositories of the Hugging Face Hub).
    A label may go before each, as in LABEL=PATH."""
    env: tuple[str, ...] = ()
    """Environments to evaluate in: addresses or Gymnasium ids. Default: the environment of each run."""
    tasks: tuple[str, ...] = ()
    """Tasks of the environments, as numbers and ranges such as 1-5 or 1 3. Default: the task of each address."""
    episodes: int = 50
    """Number of episodes in each environment."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise, the same for all policies."""
    workers: int = 1
    """Number of processes, each of which evaluates one policy in one environment at a time.
    The results do not depend on it."""
    n_envs: int = ROWS
    """Number of copies of each environment in which the policy acts at once. The results do not depend on it."""
    eval_workers: int = 1
    """Number of processes that the copies are divided among; 1: none but this one. The results do not depend on it."""
    deterministic: bool = False
    """Start flows at zero noise instead of sampling the noise, as the papers do."""
    out: Path | None = None
    """Results file (.jsonl) to write, with a row for each episode, which `flowpolicies compare` reads.
    docs/guides/evaluation.md describes it. None: only print the results."""
    video: Path | None = None
    """Video to write, .mp4 or .gif, of the first episodes; with several policies or environments one for each, with
    their names at the end of its name. It needs `pip install 'flowpolicies[video]'`. None: no video."""
    video_episodes: int = 1
    """Number of episodes in a video."""
    json: Path | None = None
    """JSON file to write the results to, with the results of each episode. None: only print the results."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:1. auto: CUDA if it is available."""
    trust: bool = False
    """Run the code in a zip file of model.save() that holds functions or classes saved as code, such as a lambda as a
    schedule of the learning rate. Only for files whose author you trust. Policy files never hold code."""

    def run(self, words: Sequence[str]) -> None:
        """Evaluates every run in every environment, and prints the results of each and of all together."""
        if self.out is not None:
            check_ending(self.out)
        if self.video is not None:
            choose_renderer()
            check_video(self.video)
        runs = name_runs(self.runs)
        jobs = self._jobs(runs)
        found: dict[Path, dict[str, Evaluation]] = {run.path: {} for run in runs}
        rows = []
        names = short_names(found)
        for job, evaluation in evaluate_all(jobs, self.workers):
            found[job.run.path][job.address] = evaluation
            rows += rows_of(job, evaluation)
            name = f"{names[job.run.path]}  " if len(runs) > 1 else ""
            print(f"{name}{job.address}: {evaluation}{_score(job, evaluation)}", flush=True)
        if len(runs) > 1:
            print_matrix({names[path]: each for path, each in found.items()})
        elif len(jobs) > 1:
            print(f"all: {pool(list(found[runs[0].path].values()))}")
        if self.out is not None:
            write_results(self.out, rows)
            print(f"The episodes are in '{self.out}'. Compare them with: flowpolicies compare {self.out}")
        for job in jobs if self.video is not None else ():
            self._record(job, names[job.run.path] if len(runs) > 1 else "", len(found[job.run.path]) > 1)
        if self.json is not None:
            each = [self._to_json(path, evaluations) for path, evaluations in found.items()]
            write_json(self.json, each[0] if len(each) == 1 else {"runs": each})

    def _record(self, job: PolicyInEnvironment, name: str, has_several: bool) -> None:
        """Writes the video of one policy in one environment."""
        from flowpolicies.comparison.video import record_video

        assert self.video is not None
        path = video_path(self.video, name, _short_addresses([job.address])[job.address] if has_several else "")
        policy = training.load_policy(job.run.path, self.device, trust=self.trust)
        found = record_video(
            policy,
            job.address,
            path,
            episodes=self.video_episodes,
            seed=self.seed,
            deterministic=self.deterministic,
        )
        print(f"Wrote '{path}': {found}")

    def _jobs(self, runs: Sequence[NamedRun]) -> list[PolicyInEnvironment]:
        tasks = parse_tasks(self.tasks) if self.tasks else ()
        protocol = EvaluationProtocol(
            self.episodes, self.seed, self.n_envs, self.deterministic, self.eval_workers, self.device, self.trust
        )
        jobs = []
        for run in runs:
            if shared_source(run.path) is None:
                check_exists(run.path)
            addresses = self.env or (run.environment(),)
            if tasks:
                addresses = tuple(dict.fromkeys(with_task(one, task) for one in addresses for task in tasks))
            jobs += [PolicyInEnvironment(run, address, protocol) for address in addresses]
        return jobs

    def _to_json(self, path: Path, found: Found) -> dict[str, Any]:
        return {
            "policy": path,
            "seed": self.seed,
            "n_envs": self.n_envs,
            "deterministic": self.deterministic,
            "environments": {address: to_json(evaluation) for address, evaluation in found.items()},
            "all": to_json(pool(list(found.values()))),
        }


def _score(job: PolicyInEnvironment, evaluation: Evaluation) -> str:
    """Text with D4RL's normalised score, if the dataset of the run has reference returns for this environment."""
    scores = reference_scores(job.run, job.address, evaluation.mean_return())
    return "" if scores is None else f", D4RL's score {Interval(*map(float, scores))}"


def print_matrix(found: Mapping[str, Found]) -> None:
    """Prints a table with a row for each policy and a column for each environment, and the differences in pairs."""
    every = [evaluation for each in found.values() for evaluation in each.values()]
    in_percent = all(evaluation.successes is not None for evaluation in every)
    addresses = list(dict.fromkeys(address for each in found.values() for address in each))
    names = _short_addresses(addresses)
    table = Table(title="success in %, with 95 % intervals" if in_percent else "return, with 95 % intervals")
    table.add_column("")
    for address in addresses:
        table.add_column(names[address], justify="right", overflow="fold")
    if len(addresses) > 1:
        table.add_column("all", justify="right")
    for name, each in found.items():
        cells = [_cell(each[address], in_percent) if address in each else "-" for address in addresses]
        table.add_row(name, *cells, *([_cell(pool(list(each.values())), in_percent)] if len(addresses) > 1 else []))
    Console(highlight=False, markup=False).print(table)
    (first, base), *others = found.items()
    for name, each in others:
        if shared := [address for address in addresses if address in base and address in each]:
            pairs = [pool([one[address] for address in shared]) for one in (base, each)]
            difference = _text(paired_difference(*pairs), in_percent)
            print(f"{name} minus {first}, {len(pairs[0])} pairs of episodes with the same starts: {difference}")


def _cell(evaluation: Evaluation, in_percent: bool) -> str:
    return _text(evaluation.success_rate() if in_percent else evaluation.mean_return(), in_percent)


def _text(interval: Interval, in_percent: bool) -> str:
    return str(Interval(*(100 * value for value in interval)) if in_percent else interval)


def _short_addresses(addresses: Sequence[str]) -> dict[str, str]:
    """Address -> "task 3" where all are tasks of one environment, else the address without its source."""
    tasks = [task_of(address) for address in addresses]
    if len(addresses) > 1 and None not in tasks and len({with_task(address, 1) for address in addresses}) == 1:
        return {address: f"task {task}" for address, task in zip(addresses, tasks, strict=True)}
    return {address: address.partition(":")[2] or address for address in addresses}


def to_json(evaluation: Evaluation) -> dict[str, Any]:
    """Estimates with their intervals, and the results of each episode, as JSON data."""
    known = evaluation.successes is not None
    return {
        "episodes": len(evaluation),
        "success": evaluation.success_rate()._asdict() if known else None,
        "return": evaluation.mean_return()._asdict(),
        "length": float(evaluation.lengths.mean()),
        "successes": None if evaluation.successes is None else evaluation.successes.tolist(),
        "returns": evaluation.returns.tolist(),
        "lengths": evaluation.lengths.tolist(),
    }
