"""`flowpolicies evaluate`: run a policy, and print success rate and return."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import tyro

from flowpolicies import data, policies, training
from flowpolicies.artifacts import reading
from flowpolicies.cli.command import Command
from flowpolicies.data.names import REFERENCE
from flowpolicies.files import write_json
from flowpolicies.policies.intervals import ROWS
from flowpolicies.policies.sharing.finding import BOX, find, shared_source
from flowpolicies.policies.sharing.folder import evaluated_in, is_pretrained
from flowpolicies.training.runs import RunFolder

if TYPE_CHECKING:
    from flowpolicies.policies import Evaluation, FlowPolicy


@final
@dataclass(frozen=True, kw_only=True)
class Evaluate(Command):
    """Run a policy in environments, and print its success rate and return with 95 % intervals."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies evaluate runs/fql-cube-single-play-singletask-v0-seed0",
        "flowpolicies evaluate policy.safetensors --env ogbench:cube-single-play-singletask-task{1..5}-v0 --n-envs 8",
    )

    path: tyro.conf.Positional[Path]
    """Policy file (policy.safetensors), folder of a run or of `flowpolicies export`, zip file of model.save(),
    flowpolicies/NAME (a policy of the package), or hf://user/name (a repository of the Hugging Face Hub)."""
    env: tuple[str, ...] = ()
    """Environments to evaluate in: addresses or Gymnasium ids. Default: the environment of the run."""
    episodes: int = 50
    """Number of episodes in each environment."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise."""
    n_envs: int = ROWS
    """Number of copies of each environment in which the policy acts at once. The results do not depend on it."""
    eval_workers: int = 1
    """Number of processes that the copies are divided among; 1: none but this one. The results do not depend on it."""
    deterministic: bool = False
    """Start flows at zero noise instead of sampling the noise, as the papers do."""
    json: Path | None = None
    """JSON file to write the results to, with the results of each episode. None: only print the results."""
    device: str = "auto"
    """Torch device, such as cpu or cuda:1. auto: CUDA if it is available."""
    trust: bool = False
    """Run the code in a zip file of model.save() that holds functions or classes saved as code, such as a lambda as a
    schedule of the learning rate. Only for files whose author you trust. Policy files never hold code."""

    def run(self, words: Sequence[str]) -> None:
        """Evaluates in every environment, and prints the results of each and of all together."""
        policy = training.load_policy(self.path, self.device, trust=self.trust)
        found = {
            address: evaluate_in(
                address, policy, self.episodes, self.seed, self.n_envs, self.deterministic, self.eval_workers
            )
            for address in self._addresses()
        }
        for address, evaluation in found.items():
            print(f"{address}: {evaluation}{self._score(address, evaluation)}")
        if len(found) > 1:
            print(f"all: {pool(list(found.values()))}")
        if self.json is not None:
            write_json(self.json, self._to_json(found))

    def _score(self, address: str, evaluation: Evaluation) -> str:
        """Text with D4RL's normalised score, if the dataset of the run has reference returns for this environment."""
        record = self._record()
        provenance = record.get("dataset", {}).get("provenance", {})
        if record.get("env") != address or not isinstance(provenance, dict) or REFERENCE not in provenance:
            return ""
        with reading(RunFolder(self.path).config, f"dataset, provenance, {REFERENCE}"):
            return f", D4RL's score {policies.Interval(*data.normalized_score(provenance, evaluation.mean_return()))}"

    def _record(self) -> Mapping[str, Any]:
        """The record of the run; empty if the policy is not that of a run."""
        return RunFolder(self.path).read_config() if self.path.is_dir() and not is_pretrained(self.path) else {}

    def _addresses(self) -> tuple[str, ...]:
        from flowpolicies.data.foreign import check_environment

        if self.env:
            return self.env
        own, stated = self._record().get("env"), None
        if (source := shared_source(self.path)) is not None and isinstance(found := find(source), Path):
            stated = evaluated_in(found)
            own = stated if found.parent == BOX else own
        if own is None:
            hint = "" if stated is None else f" Its author evaluated it in '{stated}'."
            raise ValueError(f"'{self.path}' does not say which environment it is for. Pass --env.{hint}")
        return (check_environment(own, self.path),)

    def _to_json(self, found: Mapping[str, Evaluation]) -> dict[str, Any]:
        return {
            "policy": self.path,
            "seed": self.seed,
            "n_envs": self.n_envs,
            "deterministic": self.deterministic,
            "environments": {address: to_json(evaluation) for address, evaluation in found.items()},
            "all": to_json(pool(list(found.values()))),
        }


def evaluate_in(
    address: str,
    policy: FlowPolicy,
    episodes: int,
    seed: int,
    n_envs: int,
    deterministic: bool,
    workers: int = 1,
) -> Evaluation:
    """Evaluates a policy in copies of an environment, at most one for each episode."""
    frames = 1
    if len(policy.observation_space.shape or ()) == 3:  # The channels may be those of several stacked images.
        from flowpolicies.data.replay.pixels import frames_between

        with closing(data.make_env(address)) as single:
            frames = frames_between(single.observation_space, policy.observation_space)
    n = n_envs if episodes < 1 else min(n_envs, episodes)  # `evaluate` refuses less than one episode.
    with closing(training.make_vec_env(address, n, frame_stack=frames, processes=workers)) as env:
        found = policies.evaluate(policy, env, episodes, deterministic=deterministic, seed=seed)
    return dataclasses.replace(found, environment=address)


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
