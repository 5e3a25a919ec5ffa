"""`flowpolicies export` and `push`: a policy with its model card, as a folder and in a repository for others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

import tyro

from flowpolicies import policies, training
from flowpolicies.cli.command import Command
from flowpolicies.comparison.evaluating import EvaluationProtocol, evaluate_in
from flowpolicies.policies.intervals import ROWS
from flowpolicies.policies.sharing.finding import require_hub_id
from flowpolicies.policies.sharing.folder import checked_weights
from flowpolicies.policies.sharing.hub import upload
from flowpolicies.training.runs import RunFolder


@final
@dataclass(frozen=True, kw_only=True)
class Export(Command):
    """Write the policy of a run as a folder for others: weights, declaration, model card and results."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies export runs/fql-cube-single-play-singletask-v0-seed0 --out cube-fql --license mit",
        "flowpolicies export runs/fql-cube-single-play-singletask-v0-seed0 --out cube-fql --name me/cube-fql "
        "--episodes 100",
    )

    run_dir: tyro.conf.Positional[Path]
    """Folder of the run that trained the policy."""
    out: Path
    """Folder to write. It must be new or empty, or hold an exported policy, which is replaced."""
    name: str | None = None
    """Name in the model card, such as user/name of the repository to push to. None: the name of the folder."""
    license: str | None = None
    """License of the weights, such as mit or cc-by-4.0. None: the model card says that it is not stated."""
    episodes: int = 0
    """Number of episodes of a new evaluation in each environment. 0: the card has the evaluation that ended the run."""
    env: tuple[str, ...] = ()
    """Environments of the new evaluation: addresses or Gymnasium ids. Default: the environment of the run."""
    seed: int = 0
    """Seed of the episodes and of the policy's noise in the new evaluation."""
    n_envs: int = ROWS
    """Number of copies of each environment in which the policy acts at once in the new evaluation."""
    eval_workers: int = 1
    """Number of processes that the copies are divided among in the new evaluation; 1: none but this one."""
    deterministic: bool = False
    """Start flows at zero noise in the new evaluation, instead of sampling the noise."""
    device: str = "auto"
    """Torch device of the new evaluation, such as cpu or cuda:1. auto: CUDA if it is available."""

    def run(self, words: Sequence[str]) -> None:
        """Evaluates the policy if asked to, and writes the folder."""
        if self.env and not self.episodes:
            raise ValueError("--env is for a new evaluation: pass --episodes too.")
        run = RunFolder(self.run_dir)
        run.read_config()  # A folder that is not one of a run is reported before torch is imported.
        found = self._evaluate(run) if self.episodes else []
        for evaluation in found:
            print(f"{evaluation.environment}: {evaluation}")
        folder = training.export_run(run, self.out, name=self.name, license=self.license, evaluation=found)
        print(f"Wrote '{folder}': {', '.join(sorted(path.name for path in folder.iterdir()))}.")
        print(f"Load it with: FlowPolicy.from_pretrained('{self.out}')")
        print(f"Upload it with: flowpolicies push {self.out} {self.name or 'USER/NAME'}")

    def _evaluate(self, run: RunFolder) -> list[policies.Evaluation]:
        from flowpolicies.data.foreign import check_environment

        address = run.read_config().get("env")
        if not self.env and not address:
            raise ValueError(f"the run in '{run.path}' does not say which environment it is for. Pass --env.")
        addresses = self.env or (check_environment(address, run.config),)
        policy = policies.FlowPolicy.load(run.policy, self.device)
        protocol = EvaluationProtocol(self.episodes, self.seed, self.n_envs, self.deterministic, self.eval_workers)
        return [evaluate_in(one, policy, protocol) for one in addresses]


@final
@dataclass(frozen=True, kw_only=True)
class Push(Command):
    """Upload a folder that `flowpolicies export` wrote to a repository of the Hugging Face Hub."""

    examples: ClassVar[tuple[str, ...]] = (
        "flowpolicies push cube-fql me/cube-fql",
        "flowpolicies push cube-fql me/cube-fql --private --message 'Trained on version 2 of the data'",
    )

    folder: tyro.conf.Positional[Path]
    """Folder of `flowpolicies export` or `save_pretrained`."""
    repo_id: tyro.conf.Positional[str]
    """Repository, user/name. It is created if it does not exist."""
    private: bool = False
    """Make a new repository private, whatever your settings on the Hub say."""
    revision: str | None = None
    """Branch to upload to, which is created if it does not exist. None: main."""
    message: str = "Upload a policy of flowpolicies"
    """First line of the commit's message."""
    pull_request: bool = False
    """Propose the commit in a pull request instead of committing it."""

    def run(self, words: Sequence[str]) -> None:
        """Checks the folder and uploads it."""
        hub_id = require_hub_id(self.repo_id, self.revision)
        checked_weights(self.folder)
        url = upload(
            self.folder,
            hub_id,
            private=self.private or None,
            commit_message=self.message,
            create_pr=self.pull_request,
        )
        print(f"Uploaded to {url}")
        print(f"Load it with: FlowPolicy.from_pretrained('{hub_id.repo}')")
