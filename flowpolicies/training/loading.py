"""Policies from the files that training writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowpolicies import algorithms, policies
from flowpolicies.artifacts import ArtifactError
from flowpolicies.containers import is_zip
from flowpolicies.messages import did_you_mean
from flowpolicies.policies.sharing.finding import find, shared_source
from flowpolicies.training.runs import RunFolder

if TYPE_CHECKING:  # A path that leads to no policy is reported without importing torch.
    from flowpolicies.algorithms import OfflineAlgorithm
    from flowpolicies.policies import FlowPolicy
    from flowpolicies.shell.saved import ModelFile


def load_policy(path: Path, device: str = "auto", *, trust: bool = False) -> FlowPolicy:
    """Loads the policy of a policy file, of a zip file of `model.save()`, or of the folder of a run.

    Folders of `save_pretrained`, `flowpolicies/NAME` and `hf://user/name` are read by `FlowPolicy.from_pretrained`.
    The content of a file decides what it is, not its name. Nothing in it is executed, unless `trust` is set.

    Args:
        path: path of the file or folder.
        device: device of the networks.
        trust: whether to run code in a zip file, which models need that hold functions or classes saved as code.

    Raises:
        FileNotFoundError: if there is nothing at `path`, or no policy in the folder yet.
        ArtifactError: if it is another kind of file, is damaged, needs a package that is not installed, or is a zip
            file that needs `trust`.
        ImportError: if the zip needs a package that cannot be imported.
    """
    if (source := shared_source(path)) is not None:
        find(source)
        return policies.FlowPolicy.from_pretrained(source, device=device)
    if path.is_dir():
        path = _policy_of_run(RunFolder(path))
    check_exists(path)
    with open(path, "rb") as file:
        start = file.read(4)
    if is_zip(start) or (path.suffix == ".zip" and not start):
        from flowpolicies.shell.saved import open_model

        saved = open_model(path)
        return _algorithm_of(saved, trust).load(path, device=device, trust=trust).policy
    return policies.FlowPolicy.load(path, device)


def check_exists(path: Path) -> None:
    """Raises a FileNotFoundError if there is nothing at a path."""
    if not path.exists():
        near = [other.name for other in path.parent.glob("*")]
        raise FileNotFoundError(
            f"no policy file, run folder or zip of model.save() at '{path}'.{did_you_mean(path.name, near)}"
        )


def _policy_of_run(folder: RunFolder) -> Path:
    """The policy file or the model at the end of a run, or the newest whole checkpoint of a run that has not ended."""
    folder.read_config()
    for file in (folder.policy, folder.model):  # A run whose policy file cannot be written has only the model.
        if file.is_file():
            return file
    if (newest := folder.newest_whole()) is None:
        raise FileNotFoundError(f"the run in '{folder.path}' has no policy and no checkpoint yet.")
    return newest


def _algorithm_of(saved: ModelFile, trust: bool) -> type[OfflineAlgorithm]:
    """The algorithm whose `Config` the zip holds, as Stable-Baselines3 does not store the class.

    Raises:
        ImportError: if the zip needs a package that cannot be imported; the message names it.
        ArtifactError: if it is not an algorithm that is known here.
    """
    config = saved.config(trust=trust)
    for algorithm in algorithms.ALGORITHMS.values():
        if algorithm.Config is type(config):
            return algorithm
    raise ArtifactError(
        saved.path,
        "is not a model that an algorithm of flowpolicies saved",
        hint="Load it in Python with its own class, and pass it to flowpolicies.evaluate(model, env) or "
        "flowpolicies.training.collect(model, env, episodes).",
    )
