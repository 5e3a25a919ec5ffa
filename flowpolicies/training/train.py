"""A whole training run: data, environments, model, the offline phase, the online phase, and the files of the run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.data import RewardTransform, TransitionDataset, load_dataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.messages import say
from flowpolicies.record import describe_dataset, describe_hardware, describe_software
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.shell.saved import read_buffer
from flowpolicies.training.continuing import (
    check_agreement,
    check_steps,
    continued_record,
    read_record,
    with_old_behavior,
)
from flowpolicies.training.envs import OnlySpaces, TransformedRewards, make_vec_env
from flowpolicies.training.exact.checkpoints import restore_state, state_of
from flowpolicies.training.phases import IncompleteRunError as IncompleteRunError
from flowpolicies.training.phases import TrainingRun, steps_of
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import TrainSettings, check_start


def train(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: Any,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters | None = None,
    *,
    preset: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> RunFolder:
    """Trains an algorithm, and returns the run folder with the model, the policy, the logs and the evaluations.

    Args:
        algorithm: the class of the algorithm.
        hyperparameters: an instance of its `Config`.
        settings: everything about the run besides the algorithm: data, environment, steps, evaluation, files.
        sb3_hyperparameters: hyperparameters of Stable-Baselines3; None: their defaults.
        preset: description of the preset that values come from (`Preset.describe()`), for the record.
        command: words of the command line, for the record and for the advice on how to continue.

    Raises:
        FileExistsError: if the run folder is not empty, and neither `resume` nor `overwrite` is set.
        ValueError: if a run cannot be continued with other settings than it began with, or an input is wrong.
        IncompleteRunError: if the run has ended and its model is saved, but another file could not be written.
        ArtifactError: if the run to be continued has no whole checkpoint, or its record or a log is damaged.
        FolderInUseError: if another process is writing to the run folder.
        NoSpaceError: if the disk is full; the earlier checkpoints are still there.
        KeyboardInterrupt: after Ctrl-C, and `Terminated` after SIGTERM, when a last checkpoint has been written.
    """
    sb3_hyperparameters = sb3_hyperparameters or SB3Hyperparameters()
    folder = check_start(algorithm.name, settings)
    with folder.lock(), ExitStack() as stack:
        folder.check_free(resume=settings.resume, overwrite=settings.overwrite)  # Nobody else writes from now on.
        checkpoint = before = None
        if settings.resume and folder.config.is_file() and (checkpoint := folder.newest_whole(repair=True)):
            folder.tidy()
            before = read_record(algorithm, folder)
            hyperparameters = with_old_behavior(hyperparameters, before["hyperparameters"])
            sb3_hyperparameters = with_old_behavior(sb3_hyperparameters, before["sb3_hyperparameters"])
            settings = with_old_behavior(settings, before["settings"])
        dataset, transform = _load_data(settings)
        record = _record(algorithm, hyperparameters, settings, sb3_hyperparameters, dataset, command)
        record["preset"] = None if preset is None else dict(preset)
        train_env, eval_env = _make_envs(settings, transform, stack)
        env = train_env  # Its spaces are those that the data must fit, as are those of the evaluation.
        if env is None and eval_env is not None:
            env = OnlySpaces(eval_env, settings.n_envs)
        if checkpoint is not None and before is not None:
            check_agreement(algorithm, folder, before, record)
            model = _load(algorithm, checkpoint, env, settings.device, settings.compile)
            check_steps(folder, before, settings, model)
            record = continued_record(before, record, steps_of(model))
            if dataset is not None:
                model.set_dataset(dataset)
            if train_env is not None:
                restore_state(model, state_of(checkpoint))
        else:
            model = _new_model(algorithm, hyperparameters, settings, sb3_hyperparameters, dataset, env)
            folder.clear()
        folder.write_config(record)
        TrainingRun(model, folder, settings, eval_env, checkpoint).run(command)
    return folder


def _new_model(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: Any,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters,
    dataset: TransitionDataset | None,
    env: VecEnv | None,
) -> OfflineAlgorithm:
    options = {"compile": settings.compile, "precision": settings.precision, **dataclasses.asdict(sb3_hyperparameters)}
    names = ("frame_stack", "p_aug", "rotate_every")
    options["replay_buffer_kwargs"] = {name: getattr(settings, name) for name in names}
    return algorithm.from_config(
        hyperparameters, env, dataset=dataset, seed=settings.seed, device=settings.device, **options
    )


def _load_data(settings: TrainSettings) -> tuple[TransitionDataset | None, RewardTransform]:
    """The dataset with transformed rewards, and the transform for the rewards of the environment."""
    if settings.dataset is None:
        return None, RewardTransform.fit(settings.reward_transform, None)
    wishes = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir, "min_length": settings.min_length}
    options: dict[str, Any] = {key: wish for key, wish in wishes.items() if wish is not None}
    dataset = load_dataset(settings.dataset, storage=settings.storage, compact=settings.compact, **options)
    transform = RewardTransform.fit(settings.reward_transform, dataset)
    return transform.apply(dataset), transform


def _record(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: Any,
    settings: TrainSettings,
    sb3_hyperparameters: SB3Hyperparameters,
    dataset: TransitionDataset | None,
    command: Sequence[str],
) -> dict[str, Any]:
    """Content of `config.json`, all that is needed to repeat the run."""
    software, hardware = describe_software(), describe_hardware()
    part = {
        "command": shlex.join(command),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "from": {"offline": 0, "online": 0},
        "asked": {"offline": settings.steps, "online": settings.online_steps},
        "software": software,
        "hardware": hardware,
    }
    return {
        "algorithm": algorithm.name,
        "hyperparameters": dataclasses.asdict(hyperparameters),
        "sb3_hyperparameters": dataclasses.asdict(sb3_hyperparameters),
        "env": settings.environment(),
        "seed": settings.seed,
        "dataset": {"address": settings.dataset, **({} if dataset is None else describe_dataset(dataset))},
        "settings": dataclasses.asdict(settings),
        "commands": [shlex.join(command)],
        "software": software,
        "hardware": hardware,
        "parts": [part],
    }


def load_checkpoint(
    algorithm: type[OfflineAlgorithm],
    folder: RunFolder,
    env: VecEnv | None = None,
    *,
    device: str = "auto",
    compile: bool | str = False,
) -> OfflineAlgorithm:
    """Loads the model of the newest whole checkpoint, with its online transitions if they were saved.

    With an environment, `learn(..., reset_num_timesteps=False)` continues exactly where the checkpoint was saved. If
    the environment cannot be brought back there, a warning says why, and `learn` begins with new episodes.

    The dataset is not part of a checkpoint. Nothing in a checkpoint is executed.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
        ArtifactError: if all checkpoints are damaged.
        ValueError: if `env` has another number of environments than the one the transitions are from.
    """
    checkpoint = folder.newest_whole()
    if checkpoint is None:
        raise FileNotFoundError(f"there is no checkpoint in '{folder.checkpoints}'.")
    model = _load(algorithm, checkpoint, env, device, compile)
    restore_state(model, state_of(checkpoint))
    return model


def _load(
    algorithm: type[OfflineAlgorithm], checkpoint: Path, env: VecEnv | None, device: str, compile: bool | str
) -> OfflineAlgorithm:
    changes: dict[str, Any] = {"compile": compile}
    if (transitions := RunFolder.buffer_of(checkpoint)).is_file():
        buffer = read_buffer(transitions)
        if not isinstance(buffer, TransitionBuffer):
            raise ArtifactError(transitions, f"it holds a {type(buffer).__name__}, not the transitions of a run")
        buffer.device = get_device(device)
        if env is not None and env.num_envs != buffer.n_envs:
            raise ValueError(
                f"the online transitions of '{checkpoint.parent.parent}' were collected in {buffer.n_envs} "
                f"environments and cannot be continued in {env.num_envs}. Pass --n-envs {buffer.n_envs}, or start a "
                "new run with --run-dir."
            )
        changes["replay_buffer"] = buffer
    return algorithm.load(checkpoint, env=env, device=device, **changes)


def _make_envs(
    settings: TrainSettings, transform: RewardTransform, stack: ExitStack
) -> tuple[VecEnv | None, VecEnv | None]:
    """The environments for training and for evaluation; each is None if it is not needed or not known.

    Only the rewards of the training environment are transformed.
    """
    address = settings.environment()
    if address is None:
        if settings.eval_episodes > 0:
            say(f"No evaluation: '{settings.dataset}' does not name an environment. Pass --env to evaluate.")
        return None, None
    make = partial(make_vec_env, address, seed=settings.seed, frame_stack=settings.frame_stack)
    train_env = make(settings.n_envs) if settings.online_steps > 0 else None
    if train_env is not None:
        stack.callback(train_env.close)
        train_env = train_env if transform.name == "none" else TransformedRewards(train_env, transform)
    eval_env = None
    if settings.eval_episodes > 0:
        eval_env = make(min(settings.eval_envs, settings.eval_episodes), processes=settings.eval_workers)
    if eval_env is not None:
        stack.callback(eval_env.close)
    return train_env, eval_env
