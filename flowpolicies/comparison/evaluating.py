"""Evaluations of several policies in several environments, with equal starts, in one or several processes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from flowpolicies import data, policies, training
from flowpolicies.artifacts import reading
from flowpolicies.comparison.results import EpisodeResult
from flowpolicies.comparison.runs import NamedRun
from flowpolicies.data.names import REFERENCE
from flowpolicies.data.tasks import task_of
from flowpolicies.policies.intervals import ROWS, Interval, mean_interval
from flowpolicies.training.runs import RunFolder
from flowpolicies.version import __version__

if TYPE_CHECKING:  # Importing torch takes seconds, and wrong names are reported without it.
    import numpy as np

    from flowpolicies.policies import Evaluation, FlowPolicy


class EvaluationProtocol(NamedTuple):
    """How policies are evaluated. All of them get the same starts and the same noise."""

    episodes: int = 50
    """Number of episodes in each environment."""
    seed: int = 0
    """Seed of the episodes and of the policies' noise."""
    n_envs: int = ROWS
    """Number of copies of an environment in which the policy acts at once; the results do not depend on it."""
    deterministic: bool = False
    """Whether flows start at zero noise."""
    env_workers: int = 1
    """Number of processes that the copies are divided among; the results do not depend on it."""
    device: str = "auto"
    """Torch device of the networks."""
    trust: bool = False
    """Whether to run the code in a zip file of model.save()."""


class PolicyInEnvironment(NamedTuple):
    """One policy in one environment."""

    run: NamedRun
    address: str
    protocol: EvaluationProtocol


def evaluate_in(address: str, policy: FlowPolicy, protocol: EvaluationProtocol) -> Evaluation:
    """Evaluates a policy in copies of an environment, at most one for each episode."""
    frames = 1
    if len(policy.observation_space.shape or ()) == 3:  # The channels may be those of several stacked images.
        from flowpolicies.data.replay.pixels import frames_between

        with closing(data.make_env(address)) as single:
            frames = frames_between(single.observation_space, policy.observation_space)
    episodes, seed, deterministic = protocol.episodes, protocol.seed, protocol.deterministic
    n = protocol.n_envs if episodes < 1 else min(protocol.n_envs, episodes)  # `evaluate` refuses fewer than one.
    with closing(training.make_vec_env(address, n, frame_stack=frames, processes=protocol.env_workers)) as env:
        found = policies.evaluate(policy, env, episodes, deterministic=deterministic, seed=seed)
    return dataclasses.replace(found, environment=address)


def evaluate_all(
    jobs: Sequence[PolicyInEnvironment], workers: int = 1
) -> Iterator[tuple[PolicyInEnvironment, Evaluation]]:
    """Each job with its evaluation, in their order, as soon as it is there.

    Args:
        jobs: policies and environments; jobs of one policy are best next to each other, as it is loaded once for them.
        workers: number of processes; 1: none but this one. The results do not depend on it.

    Raises:
        ValueError: if `workers` is less than 1.
    """
    if workers < 1:
        raise ValueError(f"--workers is the number of processes and must be at least 1, got {workers}")
    if workers == 1 or len(jobs) == 1:
        loaded: dict[Path, FlowPolicy] = {}
        for job in jobs:
            if job.run.path not in loaded:
                loaded = {job.run.path: _load(job)}
            yield job, evaluate_in(job.address, loaded[job.run.path], job.protocol)
        return
    workers = min(workers, len(jobs))
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, context, _begin_worker, (workers,)) as executor:
        try:
            yield from zip(jobs, executor.map(_evaluate, jobs), strict=True)
        except BaseException:  # Also Ctrl-C: nobody waits for evaluations whose results are not wanted any more.
            executor.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _load(job: PolicyInEnvironment) -> FlowPolicy:
    return training.load_policy(job.run.path, job.protocol.device, trust=job.protocol.trust)


def _evaluate(job: PolicyInEnvironment) -> Evaluation:
    return evaluate_in(job.address, _load(job), job.protocol)


def _begin_worker(workers: int) -> None:
    """Leaves Ctrl-C to the parent, and divides the cores."""
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def pool(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Joins the episodes of several evaluations to one."""
    import numpy as np

    successes = [evaluation.successes for evaluation in evaluations if evaluation.successes is not None]
    return policies.Evaluation(
        returns=np.concatenate([evaluation.returns for evaluation in evaluations]),
        lengths=np.concatenate([evaluation.lengths for evaluation in evaluations]),
        successes=np.concatenate(successes) if len(successes) == len(evaluations) else None,
        deterministic=evaluations[0].deterministic,
    )


def paired_difference(one: Evaluation, other: Evaluation) -> Interval:
    """Mean of `other` minus `one` over episodes with equal starts, with its bootstrap interval.

    It is that of success if both know it, otherwise that of the return.

    Raises:
        ValueError: if they do not have the same number of episodes.
    """
    if len(one) != len(other):
        raise ValueError(f"evaluations of {len(one)} and {len(other)} episodes cannot be compared in pairs")
    if one.successes is not None and other.successes is not None:
        return mean_interval(other.successes - one.successes)
    return mean_interval(other.returns - one.returns)


def reference_scores(run: NamedRun, address: str, returns: Any) -> np.ndarray | None:
    """D4RL's normalised scores of returns; None if the dataset of the run has no reference returns for the environment.

    Raises:
        ArtifactError: if those in the record of the run are damaged.
    """
    record = run.record
    provenance = record.get("dataset", {}).get("provenance", {})
    if record.get("env") != address or not isinstance(provenance, dict) or REFERENCE not in provenance:
        return None
    with reading(RunFolder(run.path).config, f"dataset, provenance, {REFERENCE}"):
        scores: np.ndarray = data.normalized_score(provenance, returns)
        return scores


def rows_of(job: PolicyInEnvironment, found: Evaluation) -> list[EpisodeResult]:
    """The episodes of an evaluation as rows of a results file."""
    record, scores = job.run.record, reference_scores(job.run, job.address, found.returns)
    return [
        EpisodeResult(
            run=str(job.run.path),
            label=job.run.name,
            algorithm=record.get("algorithm"),
            run_seed=record.get("seed"),
            environment=job.address,
            task=task_of(job.address),
            seed=job.protocol.seed,
            episode=episode,
            total=float(found.returns[episode]),
            length=int(found.lengths[episode]),
            success=None if found.successes is None else float(found.successes[episode]),
            score=None if scores is None else float(scores[episode]),
            deterministic=found.deterministic,
            flowpolicies=__version__,
        )
        for episode in range(len(found))
    ]
