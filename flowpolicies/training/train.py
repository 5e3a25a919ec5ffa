"""A whole training run: data, environments, model, the offline phase, the online phase, and the files of the run."""

from __future__ import annotations

import dataclasses
import json
import shlex
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.data import RewardTransform, TransitionDataset, load_dataset
from flowpolicies.data.sources import environment_of as own_environment
from flowpolicies.files import atomic_write
from flowpolicies.record import describe_dataset, describe_hardware, describe_software
from flowpolicies.shell.config import current_names
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.callbacks import (
    AtomicCheckpoint,
    EvaluationCallback,
    InterruptBetweenSteps,
    ProgressCallback,
    say,
)
from flowpolicies.training.envs import TransformedRewards, make_vec_env
from flowpolicies.training.evaluations import Phase
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import TrainSettings


@final
class IncompleteRunError(OSError):
    """The training has ended and its model is saved, but another file of the run could not be written."""


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
        KeyboardInterrupt: after Ctrl-C, when a last checkpoint has been written.
    """
    sb3_hyperparameters = sb3_hyperparameters or SB3Hyperparameters()
    folder = RunFolder(settings.folder(algorithm.name))
    folder.check_free(resume=settings.resume, overwrite=settings.overwrite)
    dataset, transform = _load_data(settings)
    record = _record(algorithm, hyperparameters, settings, sb3_hyperparameters, dataset, command)
    record["preset"] = None if preset is None else dict(preset)
    with ExitStack() as stack:
        train_env, eval_env = _make_envs(settings, transform, stack)
        env = train_env or eval_env  # Both have the spaces that the data must fit.
        if settings.resume and folder.latest() is not None:
            model = _continue(algorithm, folder, settings, record, env)
            if dataset is not None:
                model.set_dataset(dataset)
        else:
            options = {"compile_backend": settings.compile_backend, **dataclasses.asdict(sb3_hyperparameters)}
            names = ("frame_stack", "p_aug", "rotate_every")
            options["replay_buffer_kwargs"] = {name: getattr(settings, name) for name in names}
            model = algorithm.from_config(
                hyperparameters, env, dataset=dataset, seed=settings.seed, device=settings.device, **options
            )
            folder.clear()
        folder.write_config(record)
        _TrainingRun(model, folder, settings, eval_env).run(command)
    return folder


def _load_data(settings: TrainSettings) -> tuple[TransitionDataset | None, RewardTransform]:
    """The dataset with transformed rewards, and the transform for the rewards of the environment."""
    if settings.dataset is None:
        if settings.steps > 0 or settings.online_steps == 0:
            raise ValueError(
                f"there is no dataset for --steps {settings.steps}. Pass --dataset, or train online without a dataset: "
                "--env, --steps 0 and --online-steps N."
            )
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
    return {
        "algorithm": algorithm.name,
        "hyperparameters": dataclasses.asdict(hyperparameters),
        "sb3_hyperparameters": dataclasses.asdict(sb3_hyperparameters),
        "env": environment_of(settings),
        "seed": settings.seed,
        "dataset": {"address": settings.dataset, **({} if dataset is None else describe_dataset(dataset))},
        "settings": dataclasses.asdict(settings),
        "commands": [shlex.join(command)],
        "software": describe_software(),
        "hardware": describe_hardware(),
    }


def environment_of(settings: TrainSettings) -> str | None:
    """Address of the environment of the settings, or else of the dataset's environment; None if there is neither."""
    if settings.env is not None or settings.dataset is None:
        return settings.env
    folder = {} if settings.data_dir is None else {"data_dir": settings.data_dir.expanduser().absolute()}
    return own_environment(settings.dataset, **folder)


def load_checkpoint(
    algorithm: type[OfflineAlgorithm],
    folder: RunFolder,
    env: VecEnv | None = None,
    *,
    device: str = "auto",
    compile_backend: str | None = None,
) -> OfflineAlgorithm:
    """Loads the model of the newest checkpoint, with its online transitions if they were saved, without its dataset.

    Raises:
        FileNotFoundError: if the run has no checkpoint.
    """
    checkpoint = folder.latest()
    if checkpoint is None:
        raise FileNotFoundError(f"there is no checkpoint in '{folder.checkpoints}'.")
    changes: dict[str, Any] = {"compile_backend": compile_backend}
    if (transitions := folder.buffer_of(checkpoint)).is_file():
        buffer = load_from_pkl(transitions)
        buffer.device = get_device(device)
        buffer.set_n_envs(1 if env is None else env.num_envs)
        changes["replay_buffer"] = buffer
    return algorithm.load(checkpoint, env=env, device=device, **changes)


def _make_envs(
    settings: TrainSettings, transform: RewardTransform, stack: ExitStack
) -> tuple[VecEnv | None, VecEnv | None]:
    """The environments for training and for evaluation; each is None if it is not needed or not known.

    Only the rewards of the training environment are transformed.
    """
    address = environment_of(settings)
    if address is None:
        if settings.online_steps > 0:
            named = "" if settings.dataset is None else f", and '{settings.dataset}' does not name one"
            raise ValueError(f"online training needs an environment{named}. Pass --env.")
        if settings.eval_episodes > 0:
            say(f"No evaluation: '{settings.dataset}' does not name an environment. Pass --env to evaluate.")
        return None, None
    make = partial(make_vec_env, address, seed=settings.seed, frame_stack=settings.frame_stack)
    train_env = make(settings.n_envs) if settings.online_steps > 0 else None
    if train_env is not None:
        stack.callback(train_env.close)
        train_env = train_env if transform.name == "none" else TransformedRewards(train_env, transform)
    eval_env = make(settings.eval_envs) if settings.eval_episodes > 0 else None
    if eval_env is not None:
        stack.callback(eval_env.close)
    return train_env, eval_env


def _continue(
    algorithm: type[OfflineAlgorithm],
    folder: RunFolder,
    settings: TrainSettings,
    record: dict[str, Any],
    env: VecEnv | None,
) -> OfflineAlgorithm:
    """The model of the latest checkpoint, if the settings agree; the earlier commands are put into `record`.

    Raises:
        ValueError: if a setting differs that decides what is trained.
    """
    before = folder.read_config()
    _check_agreement(algorithm, folder, before, record)
    record["commands"] = [*before["commands"], *record["commands"]]
    model = load_checkpoint(algorithm, folder, env, device=settings.device, compile_backend=settings.compile_backend)
    if model.num_timesteps > 0 and model.offline_steps < settings.steps:
        raise ValueError(
            f"'{folder.path}' is in its online phase after {model.offline_steps} offline steps and cannot "
            f"return to the offline phase for --steps {settings.steps}. Pass --steps {model.offline_steps}, or start "
            "a new run with --run-dir."
        )
    return model


def _check_agreement(
    algorithm: type[OfflineAlgorithm], folder: RunFolder, before: dict[str, Any], record: dict[str, Any]
) -> None:
    was, now = _identity(algorithm, before), _identity(algorithm, record)
    other = [f"{key}: {was.get(key)} in the run, {value} now" for key, value in now.items() if was.get(key) != value]
    if other:
        raise ValueError(
            f"'{folder.path}' cannot be continued with other settings than it was started with "
            f"({'; '.join(other)}). Pass the same settings, or start a new run with --run-dir."
        )


def _identity(algorithm: type[OfflineAlgorithm], record: dict[str, Any]) -> dict[str, Any]:
    """Settings that a continued run must share with its beginning, in the form in which JSON returns them."""
    whole = {key: record.get(key) for key in ("algorithm", "env", "seed")}
    parts = {
        **current_names(algorithm.Config, record["hyperparameters"]),
        **record["sb3_hyperparameters"],
        "dataset fingerprint": record["dataset"].get("fingerprint"),
    }
    for name, before in (
        ("reward_transform", "none"),
        ("frame_stack", 1),
        ("p_aug", 0.0),
        ("rotate_every", None),
    ):
        parts[name] = record["settings"].get(name, before)  # The records of older runs lack them.
    identity: dict[str, Any] = json.loads(json.dumps(whole | parts))
    return identity


@final
class _TrainingRun:
    """Runs the phases of training that are left, with the callbacks, logs and files of the run."""

    def __init__(
        self, model: OfflineAlgorithm, folder: RunFolder, settings: TrainSettings, eval_env: VecEnv | None
    ) -> None:
        self.model, self.folder, self.settings = model, folder, settings
        self.interrupt, self.progress = InterruptBetweenSteps(), ProgressCallback()
        self.evaluation: EvaluationCallback | None = None
        if eval_env is not None:
            self.evaluation = EvaluationCallback(
                eval_env, settings.eval_every, settings.eval_episodes, folder=folder, seed=settings.seed, verbose=1
            )
            self.evaluation.init_callback(model)
        folder.rewind(model.offline_steps, model.num_timesteps)

    def run(self, command: Sequence[str]) -> None:
        """Trains what is left of the run, and writes its files. The log is flushed whatever happens.

        Raises:
            IncompleteRunError: if the model is saved, but another file could not be written.
        """
        self._warn_of_policy_file()
        try:
            self._phases()
            self._save_results()
        except KeyboardInterrupt:
            self._stop(command)
            raise
        finally:
            self.progress.close()
            if self.model._custom_logger:
                self.model.logger.close()

    def _phases(self) -> None:
        model, settings = self.model, self.settings
        if model.offline_steps or model.num_timesteps:
            say(f"Continuing after {model.offline_steps:,} offline and {model.num_timesteps:,} online steps.")
        if (steps := settings.steps - model.offline_steps) > 0:
            self._open_log("offline")
            with self.interrupt:
                model.learn_offline(steps, callback=self._callbacks(), log_interval=settings.log_every)
            self._end_phase("offline", model.offline_steps)
        if (steps := settings.online_steps - model.num_timesteps) > 0:
            self._open_log("online")
            assert model.env is not None
            # Without this, a continued run would see its first episodes again.
            model.env.seed(settings.seed + model.num_timesteps)
            with self.interrupt:
                model.learn(steps, callback=self._callbacks(), reset_num_timesteps=False)
            self._end_phase("online", model.num_timesteps)

    def _callbacks(self) -> list[BaseCallback]:
        """In the order in which they are called: the checkpoint comes first, as a user may interrupt an evaluation."""
        settings = self.settings
        checkpoint = AtomicCheckpoint(
            self.folder, settings.checkpoint_every, settings.keep_checkpoints, replay_buffer=settings.save_replay_buffer
        )
        evaluation = [] if self.evaluation is None else [self.evaluation]
        return [self.progress, checkpoint, *evaluation, self.interrupt]

    def _open_log(self, phase: Phase) -> None:
        if self.model._custom_logger:
            self.model.logger.close()
        self.model.set_logger(self.folder.logger(phase, print_tables=self.settings.print_log))

    def _end_phase(self, phase: Phase, step: int) -> None:
        if phase == "online":
            self.model.dump_logs()  # `learn_offline` logs the last steps itself.
        self._checkpoint()
        rows = self.folder.read_evaluations()
        if self.evaluation is not None and (not rows or rows[-1][:2] != (phase, step)):
            self.evaluation.evaluate(phase, step)

    def _checkpoint(self) -> None:
        keep_buffer = self.settings.save_replay_buffer and self.model.num_timesteps > 0
        self.folder.save_checkpoint(self.model, self.settings.keep_checkpoints, replay_buffer=keep_buffer)

    def _warn_of_policy_file(self) -> None:
        """Says before the first step that the policy file cannot be written, and what to do."""
        try:
            self.model.policy.check_savable()
        except TypeError as error:
            warnings.warn(
                f"this run will have no {self.folder.policy.name}: {error} The training goes ahead, and everything "
                f"else is saved; {type(self.model).__name__}.load reads {self.folder.model.name}.",
                stacklevel=4,
            )

    def _save_results(self) -> None:
        """Saves the model first, so that no other file can prevent it.

        Raises:
            IncompleteRunError: if another file could not be written.
        """
        with atomic_write(self.folder.model) as file:
            self.model.save(file)
        if missing := self._write_policy_and_plot():
            raise IncompleteRunError(
                f"the training has ended and the model is saved in '{self.folder.model}', but these files could not "
                f"be written: {'; '.join(missing)}. Load the model with "
                f"{type(self.model).__name__}.load('{self.folder.model}')."
            )

    def _write_policy_and_plot(self) -> list[str]:
        """Writes both; returns the name of each file that could not be written, with the reason."""
        missing = []
        writers: dict[Path, Callable[[], None]] = {
            self.folder.policy: partial(self.model.policy.save, self.folder.policy),
            self.folder.plot: self._plot,
        }
        for path, write in writers.items():
            try:
                write()
            except Exception as error:  # Whatever it is, the other files must still be written.
                path.unlink(missing_ok=True)  # It would be that of an earlier part of the run.
                missing.append(f"{path.name} ({type(error).__name__}: {str(error).rstrip('.')})")
        return missing

    def _plot(self) -> None:
        if rows := self.folder.read_evaluations():
            title = f"{self.model.name} on {environment_of(self.settings)}"
            plot_learning_curves({self.model.name: rows}, self.folder.plot, title=title)

    def _stop(self, command: Sequence[str]) -> None:
        """After Ctrl-C: writes the last checkpoint, the log, the policy and the plot, and says how to continue."""
        self.progress.close()
        if not self.interrupt.is_forced:  # After a forced stop the model may be half updated.
            if self.model.num_timesteps > 0:
                self.model.dump_logs()
            self._checkpoint()
            for file in self._write_policy_and_plot():
                say(f"Could not be written: {file}")
        say(f"Interrupted. The run is in '{self.folder.path}', its latest checkpoint is {self.folder.latest()}.")
        if command:
            words = [word for word in command if word not in ("--overwrite", "--resume")]
            say(f"Continue with: {shlex.join([*words, '--resume'])}")
