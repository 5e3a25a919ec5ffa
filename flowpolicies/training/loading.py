"""Loads policies from policy files, models and run folders."""

from __future__ import annotations

import zipfile
from pathlib import Path

from stable_baselines3.common.save_util import load_from_zip_file

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm
from flowpolicies.messages import did_you_mean
from flowpolicies.policies import FlowPolicy
from flowpolicies.shell.saved import check_model_file
from flowpolicies.training.runs import RunFolder


def load_policy(path: Path, device: str = "auto") -> FlowPolicy:
    """Loads the policy of a policy file, of a zip file of `model.save()`, or of the folder of a run.

    Loading a zip file executes code in it, so load only zip files that you trust. A policy file cannot execute code.

    Raises:
        FileNotFoundError: if `path` does not exist, or if the run has no policy yet.
        ValueError: if the file is of another kind.
    """
    if path.is_dir():
        path = _policy_of_run(RunFolder(path))
    if not path.exists():
        near = [other.name for other in path.parent.glob("*")]
        raise FileNotFoundError(
            f"no policy file, run folder or zip of model.save() at '{path}'.{did_you_mean(path.name, near)}"
        )
    if zipfile.is_zipfile(path) or path.suffix == ".zip":
        check_model_file(path)
        return _algorithm_of(path).load(path, device=device).policy
    return FlowPolicy.load(path, device)


def _policy_of_run(folder: RunFolder) -> Path:
    """The policy file of a finished run, or the latest checkpoint of an unfinished one."""
    folder.read_config()
    if folder.policy.is_file():
        return folder.policy
    if (latest := folder.latest()) is None:
        raise FileNotFoundError(f"the run in '{folder.path}' has no policy and no checkpoint yet.")
    return latest


def _algorithm_of(path: Path) -> type[OfflineAlgorithm]:
    """The algorithm whose `Config` the zip holds: Stable-Baselines3 does not write down the class."""
    data, _, _ = load_from_zip_file(path, device="cpu")
    config = type((data or {}).get("cfg"))
    for algorithm in ALGORITHMS.values():
        if algorithm.Config is config:
            return algorithm
    raise ValueError(
        f"'{path}' is not a model that an algorithm of flowpolicies saved. Load it in Python with its own class, and "
        "pass it to flowpolicies.evaluate(model, env) or flowpolicies.training.collect(model, env, episodes)."
    )
