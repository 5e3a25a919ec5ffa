"""Policies from the files that training writes."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path

from stable_baselines3.common.save_util import load_from_zip_file

from flowpolicies.algorithms import ALGORITHMS, OfflineAlgorithm
from flowpolicies.messages import did_you_mean
from flowpolicies.policies import FlowPolicy
from flowpolicies.policies.pretrained import shared_source
from flowpolicies.shell.saved import check_model_file
from flowpolicies.training.runs import RunFolder


def load_policy(path: Path, device: str = "auto") -> FlowPolicy:
    """Loads the policy of a policy file, of a zip file of `model.save()`, or of the folder of a run.

    Folders of `save_pretrained`, `flowpolicies/NAME` and `hf://user/name` are read by `FlowPolicy.from_pretrained`.

    Loading a zip file executes code in it, so load only zip files that you trust. A policy file cannot execute code.

    Raises:
        FileNotFoundError: if there is nothing at `path`, or no policy in the folder yet.
        ValueError: if it is another kind of file, or the policy file needs a package that is not installed.
        ImportError: if the zip needs a package that cannot be imported.
    """
    if (source := shared_source(path)) is not None:
        return FlowPolicy.from_pretrained(source, device=device)
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
    """The policy file or the model at the end of a run, or the latest checkpoint of a run that has not ended."""
    folder.read_config()
    for file in (folder.policy, folder.model):  # A run whose policy file cannot be written has only the model.
        if file.is_file():
            return file
    if (latest := folder.latest()) is None:
        raise FileNotFoundError(f"the run in '{folder.path}' has no policy and no checkpoint yet.")
    return latest


def _algorithm_of(path: Path) -> type[OfflineAlgorithm]:
    """The algorithm whose `Config` the zip holds, as Stable-Baselines3 does not store the class.

    Raises:
        ImportError: if the zip needs a package that cannot be imported; the message names it.
        ValueError: if it is not an algorithm that is known here.
    """
    with zipfile.ZipFile(path) as archive:
        package = json.loads(archive.read("data")).get("package")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Could not deserialize object")  # The error below says it better.
            data, _, _ = load_from_zip_file(path, device="cpu")
    except ImportError as error:
        advice = f"needs the package {package}, which" if package else "needs a module that"
        install = f"Install it: pip install {package}" if package else "Install the package of that module."
        raise ImportError(f"the model in '{path}' {advice} cannot be imported ({error}). {install}") from error
    config = type((data or {}).get("cfg"))
    for algorithm in ALGORITHMS.values():
        if algorithm.Config is config:
            return algorithm
    raise ValueError(
        f"'{path}' is not a model that an algorithm of flowpolicies saved. Load it in Python with its own class, "
        "and pass it to flowpolicies.evaluate(model, env) or flowpolicies.training.collect(model, env, episodes)."
    )
