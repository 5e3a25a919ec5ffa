"""A whole training run: dataset, environments, model, offline phase, online phase, and the files of the run."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_pkl
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.data import RewardTransform, TransitionDataset, load_dataset
from flowpolicies.data.sources import environment_of as own_environment
from flowpolicies.files import atomic_write
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
from flowpolicies.training.record import describe_dataset, describe_hardware, describe_software
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.settings import Knobs, TrainSettings


def train(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: Any,
    settings: TrainSettings,
    knobs: Knobs | None = None,
    *,
    preset: Mapping[str, Any] | None = None,
    command: Sequence[str] = (),
) -> RunFolder:
    """Trains an algorithm, and returns the folder of the run.

    Args:
        algorithm: class of the algorithm.
        hyperparameters: instance of the `Config` of the algorithm.
        settings: dataset, environment, duration and files of the run.
        knobs: hyperparameters of Stable-Baselines3; None: the defaults.
        preset: description of the preset that the values are from (`Preset.describe()`), for the record.
        command: words of the command line, for the record and for the message on how to continue.

    Raises:
        FileExistsError: if the run folder is not empty, and neither `resume` nor `overwrite` is set.
        ValueError: if settings are invalid, or differ from those of the run that is to be continued.
        KeyboardInterrupt: after Ctrl-C, when the last checkpoint is written.
    """
    knobs = knobs or Knobs()
    folder = RunFolder(settings.folder(algorithm.name))
    folder.check_free(resume=settings.resume, overwrite=settings.overwrite)
    dataset, transform = _load_data(settings)
    record = _record(algorithm, hyperparameters, settings, knobs, dataset, command)
    record["preset"] = None if preset is None else dict(preset)
    with ExitStack() as stack:
        train_env, eval_env = _make_envs(settings, transform, stack)
        env = train_env or eval_env  # In both cases the spaces are the environment's, and the data must fit them.
        if settings.resume and folder.latest() is not None:
            model = _continue(algorithm, folder, settings, record, env)
            if dataset is not None:
                model.set_dataset(dataset)
        else:
            options = {"compile_backend": settings.compile_backend, **dataclasses.asdict(knobs)}
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
    folders = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir}
    options: dict[str, Any] = {key: folder for key, folder in folders.items() if folder is not None}
    dataset = load_dataset(settings.dataset, storage=settings.storage, compact=settings.compact, **options)
    transform = RewardTransform.fit(settings.reward_transform, dataset)
    return transform.apply(dataset), transform


def _record(
    algorithm: type[OfflineAlgorithm],
    hyperparameters: Any,
    settings: TrainSettings,
    knobs: Knobs,
    dataset: TransitionDataset | None,
    command: Sequence[str],
) -> dict[str, Any]:
    """Content of `config.json`, all that is needed to repeat the run."""
    return {
        "algorithm": algorithm.name,
        "hyperparameters": dataclasses.asdict(hyperparameters),
        "knobs": dataclasses.asdict(knobs),
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
    """Environments for online training and for evaluation; None for each that is not needed or not known.

    The rewards of the first are transformed, and those of the second are the original ones.
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
    """Loads the model of a run that is to be continued, and adds the earlier commands of the run to `record`."""
    before = folder.read_config()
    _check_agreement(folder, before, record)
    record["commands"] = [*before["commands"], *record["commands"]]
    model = load_checkpoint(algorithm, folder, env, device=settings.device, compile_backend=settings.compile_backend)
    if model.num_timesteps > 0 and model.offline_steps < settings.steps:
        raise ValueError(
            f"'{folder.path}' is in its online phase after {model.offline_steps} offline steps and cannot "
            f"return to the offline phase for --steps {settings.steps}. Pass --steps {model.offline_steps}, or start "
            "a new run with --run-dir."
        )
    return model


def _check_agreement(folder: RunFolder, before: dict[str, Any], record: dict[str, Any]) -> None:
    was, now = _identity(before), _identity(record)
    other = [f"{key}: {was.get(key)} in the run, {value} now" for key, value in now.items() if was.get(key) != value]
    if other:
        raise ValueError(
            f"'{folder.path}' cannot be continued with other settings than it was started with "
            f"({'; '.join(other)}). Pass the same settings, or start a new run with --run-dir."
        )


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """The settings that must not change when a run is continued, as JSON data."""
    whole = {key: record.get(key) for key in ("algorithm", "env", "seed")}
    parts = {
        **record["hyperparameters"],
        **record["knobs"],
        "dataset fingerprint": record["dataset"].get("fingerprint"),
    }
    for name, before in (
        ("reward_transform", "none"),
        ("frame_stack", 1),
        ("p_aug", 0.0),
        ("rotate_every", None),
    ):
        parts[name] = record["settings"].get(name, before)  # Runs of older versions do not record these settings.
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
        """Runs the phases that are left, and closes the log whatever happens."""
        try:
            self._phases()
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
            # With the seed of the beginning, a continued run would repeat its first episodes.
            model.env.seed(settings.seed + model.num_timesteps)
            with self.interrupt:
                model.learn(steps, callback=self._callbacks(), reset_num_timesteps=False)
            self._end_phase("online", model.num_timesteps)
        self._write_results()
        with atomic_write(self.folder.model) as file:
            model.save(file)  # type: ignore[arg-type]

    def _callbacks(self) -> list[BaseCallback]:
        """The callbacks; the checkpoint comes first because a user may interrupt the evaluation."""
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
            self.model.dump_logs()  # Numbers since the last logged episodes; `learn_offline` logs its own.
        self._checkpoint()
        rows = self.folder.read_evaluations()
        if self.evaluation is not None and (not rows or rows[-1][:2] != (phase, step)):
            self.evaluation.evaluate(phase, step)

    def _checkpoint(self) -> None:
        keep_buffer = self.settings.save_replay_buffer and self.model.num_timesteps > 0
        self.folder.save_checkpoint(self.model, self.settings.keep_checkpoints, replay_buffer=keep_buffer)

    def _write_results(self) -> None:
        self.model.policy.save(self.folder.policy)
        if rows := self.folder.read_evaluations():
            title = f"{self.model.name} on {environment_of(self.settings)}"
            plot_learning_curves({self.model.name: rows}, self.folder.plot, title=title)

    def _stop(self, command: Sequence[str]) -> None:
        """After Ctrl-C: writes a last checkpoint and the log, and prints how to continue."""
        self.progress.close()
        if not self.interrupt.is_forced:  # After a second Ctrl-C the model may be half updated.
            if self.model.num_timesteps > 0:
                self.model.dump_logs()
            self._checkpoint()
            self._write_results()
        say(f"Interrupted. The run is in '{self.folder.path}', its latest checkpoint is {self.folder.latest()}.")
        if command:
            words = [word for word in command if word not in ("--overwrite", "--resume")]
            say(f"Continue with: {shlex.join([*words, '--resume'])}")
