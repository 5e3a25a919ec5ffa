"""Models of run folders with their data and environments, as they were trained."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.addresses import split_options
from flowpolicies.data.foreign import check_environment
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.shell.registry import get_algorithm
from flowpolicies.training.continuing import recorded_settings
from flowpolicies.training.envs import TransformedRewards, make_vec_env
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.train import load_checkpoint, load_data


def open_run(
    folder: RunFolder,
    stack: ExitStack,
    *,
    dataset: str | None = None,
    data_dir: Path | None = None,
    env: str | None = None,
    episodes: int = 8,
    seed: int = 0,
    device: str = "auto",
) -> tuple[OfflineAlgorithm, VecEnv | None]:
    """The newest model of a run with its dataset and transitions, and environments with the rewards of its training.

    Args:
        folder: folder of the run.
        stack: closes the environments.
        dataset: address of the dataset; None: that of the run.
        data_dir: folder of the dataset's files; None: that of the run.
        env: environment; None: that of the run, if it has one.
        episodes: number of environments; 0: none are made.
        seed: seed of their episodes.
        device: device of the networks.

    Raises:
        FileNotFoundError: if it is not the folder of a run, or the run has no model yet.
        ArtifactError: if the record names an address that may not be followed, or the model is damaged.
        ValueError: if the run was given a dataset without an address.
    """
    record = folder.read_config()
    settings = recorded_settings(record, device=device, env=None)
    given: dict[str, Any] = {"dataset": dataset, "data_dir": data_dir, "env": env}
    settings = dataclasses.replace(settings, **{key: value for key, value in given.items() if value is not None})
    if dataset is None and settings.dataset is not None and "trust" in split_options(settings.dataset)[1]:
        raise ArtifactError(
            folder.config,
            f"it names the dataset {settings.dataset[:200]!r}, which asks for trust itself",
            hint="If you trust its author, pass --dataset yourself.",
        )
    data = load_data(settings)
    model = _newest(folder, record["algorithm"], device)
    if data.dataset is not None:
        model.set_dataset(data.dataset)
    elif model.transitions.num_windows() == 0:
        raise ValueError(f"the run in '{folder.path}' does not name the dataset that it was given. Pass --dataset.")
    address = settings.env or (None if record.get("env") is None else check_environment(record["env"], folder.config))
    if address is None or episodes == 0:
        return model, None
    made = make_vec_env(address, episodes, seed=seed, frame_stack=settings.frame_stack, processes=1)
    stack.callback(made.close)
    return model, made if data.transform.name == "none" else TransformedRewards(made, data.transform)


def _newest(folder: RunFolder, algorithm: str, device: str) -> OfflineAlgorithm:
    """The model of the newest whole checkpoint, with its transitions, or that of a run without checkpoints."""
    cls = get_algorithm(algorithm)
    if folder.newest_whole() is None and folder.model.is_file():
        return cls.load(folder.model, device=device)
    return load_checkpoint(cls, folder, device=device)
