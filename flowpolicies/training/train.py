"""A whole training run: data, environments, model, the offline phase, the online phase, and the files of the run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.artifacts import ArtifactError
from flowpolicies.choices import require_device
from flowpolicies.data import RewardTransform, TransitionDataset, load_dataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.files import atomic_write
from flowpolicies.messages import say
from flowpolicies.record import describe_dataset, describe_hardware, describe_software
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.shell.saved import read_buffer
from flowpolicies.training.callbacks import InterruptBetweenSteps
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
from flowpolicies.training.repeating import run_toml
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import TrainSettings, check_start


class Asked(NamedTuple):
    """What a run is asked to do: the arguments of `train`."""

    algorithm: type[OfflineAlgorithm]
    hyperparameters: Any
    settings: TrainSettings
    sb3_hyperparameters: SB3Hyperparameters
    preset: Mapping[str, Any] | None
    command: Sequence[str]

    def as_begun(self, before: Mapping[str, Any]) -> Asked:
        """The same, with fields that the version which began the run lacked as that version acted.

        Args:
            before: record of the run.
        """
        return self._replace(
            hyperparameters=with_old_behavior(self.hyperparameters, before["hyperparameters"]),
            sb3_hyperparameters=with_old_behavior(self.sb3_hyperparameters, before["sb3_hyperparameters"]),
            settings=with_old_behavior(self.settings, before["settings"]),
        )


class Inputs(NamedTuple):
    """Data and environments of a run; each is None if it is not needed or not known."""

    dataset: TransitionDataset | None
    held_out: TransitionDataset | None
    """Episodes of the dataset that are not trained on."""
    held_out_numbers: list[int] | None
    """Numbers of these episodes."""
    train_env: VecEnv | None
    eval_env: VecEnv | None


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
        ValueError: if a run cannot be continued with other settings than it began with, an input is wrong, or the
            device is not available.
        IncompleteRunError: if the run has ended and its model is saved, but another file could not be written.
        ArtifactError: if the run to be continued has no whole checkpoint, or its record or a log is damaged.
        FolderInUseError: if another process is writing to the run folder.
        NoSpaceError: if the disk is full; the earlier checkpoints are still there.
        KeyboardInterrupt: after Ctrl-C, and `Terminated` after SIGTERM, when a last checkpoint has been written.
    """
    sb3_hyperparameters = sb3_hyperparameters or SB3Hyperparameters()
    asked = Asked(algorithm, hyperparameters, settings, sb3_hyperparameters, preset, command)
    require_device(settings.device)  # Before the data are loaded, which may take minutes.
    folder = check_start(algorithm.name, settings)
    with folder.lock(), ExitStack() as stack:
        folder.check_free(resume=settings.resume, overwrite=settings.overwrite)  # Nobody else writes from now on.
        checkpoint = before = None
        if settings.resume and folder.config.is_file() and (checkpoint := folder.newest_whole(repair=True)):
            before = read_record(algorithm, folder)
            asked = asked.as_begun(before)
        inputs = open_inputs(asked.settings, stack)
        prepared = prepare(asked, folder, inputs, checkpoint, before)
        if checkpoint is not None and inputs.train_env is not None:
            restore_state(prepared.model, state_of(checkpoint))
        prepared.open().run(command)
    return folder


class Prepared(NamedTuple):
    """A run whose model is made or loaded, and that has not written anything."""

    model: OfflineAlgorithm
    folder: RunFolder
    settings: TrainSettings
    eval_env: VecEnv | None
    held_out: TransitionDataset | None
    checkpoint: Path | None
    """The checkpoint that the model is from; None: the run begins."""
    record: dict[str, Any]
    """Content of the `config.json` of the run."""

    def open(self, *, interrupt: InterruptBetweenSteps | None = None, name: str = "") -> TrainingRun:
        """Clears the folder of a run that begins, writes the record, and returns the run; see `TrainingRun`."""
        if self.checkpoint is None:
            self.folder.clear()
        self.folder.write_config(self.record)
        with atomic_write(self.folder.toml) as file:
            file.write(run_toml(type(self.model), self.record).encode())
        return TrainingRun(*self[:-1], interrupt=interrupt, name=name)


def open_inputs(settings: TrainSettings, stack: ExitStack, dataset: TransitionDataset | None = None) -> Inputs:
    """Loads the data, and makes the environments, which the stack closes.

    Args:
        dataset: the dataset, if it is loaded already.
    """
    data = load_data(settings, dataset)
    return Inputs(*data[:3], *_make_envs(settings, data.transform, stack))


class RunData(NamedTuple):
    """The data of a run, with the rewards that it is trained on."""

    dataset: TransitionDataset | None
    held_out: TransitionDataset | None
    """Episodes of the dataset that are not trained on."""
    held_out_numbers: list[int] | None
    """Numbers of these episodes."""
    transform: RewardTransform
    """Transform for the rewards of the environment."""


def prepare(
    asked: Asked, folder: RunFolder, inputs: Inputs, checkpoint: Path | None, before: Mapping[str, Any] | None
) -> Prepared:
    """Makes or loads the model of a run. The folder is locked by the caller.

    Args:
        checkpoint: the checkpoint to continue from; None: the run begins.
        before: record of the run that is continued.

    Raises:
        ValueError: if the run began with other settings, or has done more steps than it is asked for.
    """
    algorithm, settings = asked.algorithm, asked.settings
    env = inputs.train_env  # Its spaces are those that the data must fit, as are those of the evaluation.
    if env is None and inputs.eval_env is not None:
        env = OnlySpaces(inputs.eval_env, settings.n_envs)
    record = _record(asked, inputs)
    if checkpoint is not None and before is not None:
        folder.tidy()
        check_agreement(algorithm, folder, dict(before), record)
        model = _load(algorithm, checkpoint, env, settings.device, settings.compile)
        check_steps(folder, dict(before), settings, model)
        record = continued_record(before, record, steps_of(model))
        if inputs.dataset is not None:
            model.set_dataset(inputs.dataset)
    else:
        model = _new_model(asked, inputs.dataset, env)
    return Prepared(model, folder, settings, inputs.eval_env, inputs.held_out, checkpoint, record)


def _new_model(asked: Asked, dataset: TransitionDataset | None, env: VecEnv | None) -> OfflineAlgorithm:
    """A new model; the environment has the spaces that the data must fit."""
    settings = asked.settings
    options: dict[str, Any] = {"compile": settings.compile, "precision": settings.precision}
    options |= dataclasses.asdict(asked.sb3_hyperparameters)
    names = ("frame_stack", "p_aug", "rotate_every")
    options["replay_buffer_kwargs"] = {name: getattr(settings, name) for name in names}
    return asked.algorithm.from_config(
        asked.hyperparameters, env, dataset=dataset, seed=settings.seed, device=settings.device, **options
    )


def load_data(settings: TrainSettings, dataset: TransitionDataset | None = None) -> RunData:
    """The dataset of a run, without the episodes that are held out, and with transformed rewards.

    Args:
        settings: settings of the run.
        dataset: the dataset, if it is loaded already.
    """
    if dataset is None and settings.dataset is None:
        return RunData(None, None, None, RewardTransform.fit(settings.reward_transform, None))
    wishes = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir, "min_length": settings.min_length}
    options: dict[str, Any] = {key: wish for key, wish in wishes.items() if wish is not None}
    if dataset is None:
        assert settings.dataset is not None
        dataset = load_dataset(settings.dataset, storage=settings.storage, compact=settings.compact, **options)
    held_out, numbers = None, None
    if settings.validation:
        dataset, held_out, which = dataset.split(settings.validation)
        numbers = which.tolist()
    transform = RewardTransform.fit(settings.reward_transform, dataset)
    held_out = None if held_out is None else transform.apply(held_out)
    return RunData(transform.apply(dataset), held_out, numbers, transform)


def _record(asked: Asked, inputs: Inputs) -> dict[str, Any]:
    """Content of `config.json`, all that is needed to repeat the run."""
    software, hardware, settings = describe_software(), describe_hardware(), asked.settings
    dataset = inputs.dataset
    part = {
        "command": shlex.join(asked.command),
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "from": {"offline": 0, "online": 0},
        "asked": {"offline": settings.steps, "online": settings.online_steps},
        "software": software,
        "hardware": hardware,
    }
    return {
        "algorithm": asked.algorithm.name,
        "hyperparameters": dataclasses.asdict(asked.hyperparameters),
        "sb3_hyperparameters": dataclasses.asdict(asked.sb3_hyperparameters),
        "env": settings.environment(),
        "seed": settings.seed,
        "dataset": {"address": settings.dataset, **({} if dataset is None else describe_dataset(dataset))},
        "held_out_episodes": inputs.held_out_numbers,
        "settings": dataclasses.asdict(settings),
        "commands": [shlex.join(asked.command)],
        "software": software,
        "hardware": hardware,
        "parts": [part],
        "preset": None if asked.preset is None else dict(asked.preset),
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
        buffer.device = get_device(require_device(device))
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
