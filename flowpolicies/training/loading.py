"""Policies from whatever training leaves behind."""

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
    """The policy in a policy file, in a zip of `model.save()`, or in the folder of a run.

    A zip executes code when it is loaded, a policy file does not: load only zips that you trust.

    Raises:
        FileNotFoundError: if there is nothing at `path`, or no policy in the folder yet.
        ValueError: if it is another kind of file.
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
    """The policy at the end, or the latest checkpoint of a run that has not ended."""
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
