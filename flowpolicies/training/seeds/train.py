"""Training of several runs of one algorithm in one process: seeds, and values of hyperparameters."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.choices import require_device
from flowpolicies.data import TransitionDataset
from flowpolicies.messages import say
from flowpolicies.shell.config import PolicyConfig, configure
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.shell.setup import as_dataset, given_address
from flowpolicies.training.continuing import read_record
from flowpolicies.training.phases import say_how_to_continue
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.seeds.resuming import Start, common_starts
from flowpolicies.training.seeds.side_by_side import SideBySide
from flowpolicies.training.seeds.summary import write_summary
from flowpolicies.training.seeds.together import check_sweep
from flowpolicies.training.seeds.variants import make_variants
from flowpolicies.training.settings import TrainSettings
from flowpolicies.training.train import Asked, Prepared, open_inputs, prepare

LOADING = {"data_dir", "storage", "cache_dir", "compact", "min_length"}
"""Settings of how a dataset is loaded from its address."""


def train_seeds(
    algorithm: type[OfflineAlgorithm],
    dataset: TransitionDataset | str | os.PathLike[str],
    seeds: Sequence[int] = range(8),
    *,
    sweep: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> list[RunFolder]:
    """Trains several seeds of an algorithm offline, in one process and one vectorised update; each equals its own run.

    `train_seeds(QFlow, "ogbench:cube-single-play-singletask-v0", seeds=range(8), steps=1_000_000, run_dir="runs/cube")`

    Args:
        algorithm: class of the algorithm.
        dataset: a dataset, or its address.
        seeds: seeds of the runs.
        sweep: hyperparameters that are numbers -> their values; every value is trained with every seed.
        **options: hyperparameters of the algorithm and of Stable-Baselines3, and fields of `TrainSettings`, such as
            `steps`, `env`, `run_dir` and `resume`. The runs are in folders of `run_dir`: `seed0`, `seed1`, ..., or
            `guidance_lambda=0.5/seed0`, ... with a sweep.

    Returns:
        The run folders, the seeds of one value next to each other.

    Raises:
        TypeError: for an unknown option.
        ValueError: for a value that is not valid, and for a hyperparameter that cannot be swept, with the reason.
        FileExistsError: if a run folder is not empty, and neither `resume` nor `overwrite` is set.
        IncompleteRunError: if the models are saved, but another file could not be written.
        KeyboardInterrupt: after Ctrl-C, and `Terminated` after SIGTERM, when last checkpoints have been written.
    """
    both = sorted(options.keys() & {*(sweep or ()), "seed"})
    if both:
        raise TypeError(
            f"{', '.join(both)}: given once by itself, and once in seeds= or sweep=. Leave one of them out."
        )
    parts = {part: {field.name for field in dataclasses.fields(part)} for part in (TrainSettings, SB3Hyperparameters)}
    settings, sb3 = ({key: value for key, value in options.items() if key in names} for names in parts.values())
    own = {key: value for key, value in options.items() if key not in settings and key not in sb3}
    known = sorted({"seeds", "sweep"}.union(*parts.values()))
    hyperparameters = configure(algorithm.Config, own, algorithm.__name__, known)
    address = given_address(dataset)
    if address is None:
        dataset = as_dataset(dataset)
        if loading := sorted(settings.keys() & LOADING):
            raise TypeError(
                f"{', '.join(loading)}: for loading a dataset from its address, and the dataset is given as an object."
            )
        # Names of datasets in memory are often equal, as those of all arrays.
        name = re.sub(r"[^\w.-]+", "-", f"{algorithm.name}-{dataset.name}-{dataset.fingerprint[:8]}")
        settings["run_dir"] = settings.get("run_dir") or Path("runs") / name
    paths = {key: Path(settings[key]) for key in ("run_dir", "data_dir", "cache_dir") if settings.get(key) is not None}
    return train_together(
        algorithm,
        hyperparameters,
        TrainSettings(**{**settings, **paths, "dataset": address}),
        SB3Hyperparameters(**sb3),
        seeds=seeds,
        sweep=sweep or {},
        dataset=dataset if isinstance(dataset, TransitionDataset) else None,
    )


def train_together(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: PolicyConfig,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters | None = None,
    *,
    seeds: Sequence[int],
    sweep: Mapping[str, Sequence[float]],
    preset: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
    dataset: TransitionDataset | None = None,
) -> list[RunFolder]:
    """`train` for several seeds and values of hyperparameters; see `train_seeds`.

    Args:
        settings: settings of all runs; `seed` is not used, and `run_dir` is the common folder.
        dataset: the dataset, if it is not the one of `settings.dataset`.
    """
    sb3_hyperparameters = sb3_hyperparameters or SB3Hyperparameters()
    _check_start(settings)
    variants = make_variants(algorithm, hyperparameters, sb3_hyperparameters, seeds, sweep)
    parent = settings.folder(algorithm.name, suffix="")
    if RunFolder(parent).config.is_file():
        raise FileExistsError(
            f"'{parent}' is the folder of a single run, and cannot hold runs of several seeds. Choose another one with "
            "--run-dir."
        )
    folders = [RunFolder(parent / variant.path) for variant in variants]
    with ExitStack() as stack:
        _check_free(folders, settings)
        for folder in folders:
            stack.enter_context(folder.lock())
            folder.check_free(resume=settings.resume, overwrite=settings.overwrite)  # Nobody else writes from now on.
        asked = [
            Asked(
                algorithm,
                variant.hyperparameters,
                dataclasses.replace(settings, seed=variant.seed, run_dir=folder.path),
                variant.sb3_hyperparameters,
                preset,
                command,
            )
            for variant, folder in zip(variants, folders, strict=True)
        ]
        swept = list(variants[0].values)
        prepared = _prepare_all(asked, folders, swept, stack, dataset)
        together = SideBySide(prepared, [str(variant.path) for variant in variants], swept)
        groups = [str(variant.group) for variant in variants]
        try:
            together.run()
        except KeyboardInterrupt:
            write_summary(parent, algorithm.name, zip(groups, folders, strict=True))
            say(f"Interrupted. The {len(folders)} runs are in '{parent}'.")
            say_how_to_continue(command)
            raise
        write_summary(parent, algorithm.name, zip(groups, folders, strict=True))
    return folders


def _check_free(folders: Sequence[RunFolder], settings: TrainSettings) -> None:
    """Raises an error unless all folders can be written, before any of them is."""
    for folder in folders:
        settings.check_same_dataset(folder.path)
        folder.check_free(resume=settings.resume, overwrite=settings.overwrite)


def _check_start(settings: TrainSettings) -> None:
    """Raises an error for what can be known before the data are loaded, which may take minutes."""
    require_device(settings.device)
    if settings.online_steps > 0:
        raise ValueError(
            f"online_steps is {settings.online_steps}, and several seeds are trained together on a dataset only: "
            "online, each run collects in environments of its own. Train the seeds one by one: --seed 0, --seed 1, ..."
        )


def _prepare_all(
    asked: Sequence[Asked],
    folders: Sequence[RunFolder],
    swept: Sequence[str],
    stack: ExitStack,
    dataset: TransitionDataset | None,
) -> list[Prepared]:
    """Makes or loads the models. All share the rows of the dataset, and the environments for evaluations."""
    settings = asked[0].settings
    starts = common_starts(folders, settings) if settings.resume else [Start(None, 0)] * len(folders)
    records = [
        None if start.checkpoint is None else read_record(asked[0].algorithm, folder)
        for start, folder in zip(starts, folders, strict=True)
    ]
    begun = [one if before is None else one.as_begun(before) for one, before in zip(asked, records, strict=True)]
    inputs = open_inputs(begun[0].settings, stack, dataset)
    prepared: list[Prepared] = []
    for one, folder, start, before in zip(begun, folders, starts, records, strict=True):
        prepared.append(prepare(one, folder, inputs, start.checkpoint, before))
        prepared[-1].model.transitions.share_dataset(prepared[0].model.transitions)
    check_sweep([one.model for one in prepared], swept)
    return prepared
