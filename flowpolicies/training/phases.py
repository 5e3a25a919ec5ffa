"""The phases of a run, with its callbacks, logs, checkpoints and results."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.data import TransitionDataset
from flowpolicies.files import atomic_write
from flowpolicies.messages import say
from flowpolicies.training.callbacks import (
    AtomicCheckpoint,
    EvaluationCallback,
    EvaluationStopped,
    InterruptBetweenSteps,
    LogsAtLastStep,
    ProgressCallback,
    StoppableEvaluation,
)
from flowpolicies.training.checkpoints import read_manifest
from flowpolicies.training.evaluations import Phase
from flowpolicies.training.logs import LogState, restore_recorded
from flowpolicies.training.plots import plot_learning_curves
from flowpolicies.training.runs import RunFolder
from flowpolicies.training.selection.best import BestModel
from flowpolicies.training.selection.validation import ValidationCallback
from flowpolicies.training.settings import TrainSettings


@final
class IncompleteRunError(OSError):
    """The training has ended and its model is saved, but another file of the run could not be written."""


def steps_of(model: OfflineAlgorithm) -> dict[str, int]:
    return {"offline": model.offline_steps, "online": model.num_timesteps}


@final
class TrainingRun:
    """Runs the phases of training that are left, with the callbacks, logs and files of the run.

    `run` does all of it. Runs that are trained together take its steps side by side: `begin`, `offline`,
    `evaluate_offline`, `save_results`, and `close` in any case; the one who drives them has the progress bar and
    answers signals.

    Args:
        model: the model, new or from a checkpoint.
        folder: folder of the run.
        settings: settings of the run.
        eval_env: environments for evaluations; None: no evaluations.
        held_out: episodes whose losses are logged; None: no such losses.
        checkpoint: the checkpoint that the model is from; None: the run begins.
        interrupt: answers signals for several runs; None: this run answers them.
        name: name of the run in printed lines, where there are several.
    """

    def __init__(
        self,
        model: OfflineAlgorithm,
        folder: RunFolder,
        settings: TrainSettings,
        eval_env: VecEnv | None,
        held_out: TransitionDataset | None,
        checkpoint: Path | None,
        *,
        interrupt: InterruptBetweenSteps | None = None,
        name: str = "",
    ) -> None:
        self.model, self.folder, self.settings = model, folder, settings
        self.name = f"{name}: " if name else ""
        self.progress = ProgressCallback(disable=None if interrupt is None else True)
        self.checkpoint = AtomicCheckpoint(
            folder,
            settings.checkpoint_every,
            settings.keep_checkpoints,
            replay_buffer=settings.save_replay_buffer,
            leave_last=True,
        )
        self.checkpoint.init_callback(model)
        self.is_alone = interrupt is None
        self.interrupt = interrupt or InterruptBetweenSteps(self.checkpoint)
        self.evaluation: EvaluationCallback | None = None
        if eval_env is not None:
            env = StoppableEvaluation(eval_env, self.interrupt)
            self.evaluation = EvaluationCallback(
                env, settings.eval_every, settings.eval_episodes, folder=folder, seed=settings.seed, verbose=1
            )
            self.evaluation.name = self.name
            self.evaluation.init_callback(model)
        self.validation: ValidationCallback | None = None
        if held_out is not None:
            self.validation = ValidationCallback(held_out, settings.log_every)
            self.validation.init_callback(model)
        self.best = None if settings.keep_best is None else BestModel(folder, model, settings.keep_best)
        self.is_resumed = checkpoint is not None
        self._log = None if checkpoint is None else self._rewind(checkpoint)
        self._wandb: Any = None

    def _rewind(self, checkpoint: Path) -> LogState | None:
        """Cuts the logs off at the checkpoint, and returns their state there."""
        model, manifest = self.model, read_manifest(checkpoint)
        log = None if manifest is None else manifest.log
        if manifest is not None and manifest.open_log is not None:
            phase, asked = (
                ("online", self.settings.online_steps) if model.num_timesteps else ("offline", self.settings.steps)
            )
            if manifest.steps[phase] < asked:  # The phase had ended, and is continued; its evaluations stay.
                log = manifest.open_log._replace(evaluations=manifest.log.evaluations)
        self.folder.rewind(model.offline_steps, model.num_timesteps, log)
        self.folder.prune(self.settings.keep_checkpoints)
        return log

    def run(self, command: Sequence[str]) -> None:
        """Trains what is left of the run, and writes its files. The log is flushed whatever happens.

        Raises:
            IncompleteRunError: if the model is saved, but another file could not be written.
        """
        try:
            with self.interrupt:
                self.begin()
                with closing(self.offline()) as updates:
                    for _ in updates:
                        self.model.train(gradient_steps=1, batch_size=self.model.batch_size)
                self.evaluate_offline()
                self._online()
                self.save_results()
        except KeyboardInterrupt:
            self.progress.close()
            self.save_stopped()
            say(f"Interrupted. The run is in '{self.folder.path}', its latest checkpoint is {self.folder.latest()}.")
            say_how_to_continue(command)
            raise
        finally:
            self.close()

    def begin(self) -> None:
        """Says where the run continues, and whether a file of it cannot be written."""
        self._warn_of_policy_file()
        if self.is_resumed:
            model = self.model
            say(
                f"{self.name}Continuing after {model.offline_steps:,} offline and {model.num_timesteps:,} online steps."
            )

    def offline(self) -> Generator[None]:
        """What is left of the offline phase, with its last checkpoint. It stops before each update, which the caller
        makes; see `OfflineAlgorithm.offline_updates`."""
        model, settings = self.model, self.settings
        if (steps := settings.steps - model.offline_steps) > 0:
            self._begin_phase("offline", model.offline_steps)
            last = LogsAtLastStep(self.folder)
            yield from model.offline_updates(
                steps,
                callback=[*self._callbacks(), last],
                log_interval=settings.log_every,
                reset_num_timesteps=False,
            )
            self._checkpoint(last.state)

    def evaluate_offline(self) -> None:
        """Evaluates at the end of the offline phase, unless it has done so."""
        if self.model.offline_steps > 0 and self.model.num_timesteps == 0:
            self._evaluate_at_end("offline", self.model.offline_steps)

    def _online(self) -> None:
        model = self.model
        if (steps := self.settings.online_steps - model.num_timesteps) > 0:
            self._begin_phase("online", model.num_timesteps)
            self._learn_online(steps)
        if model.num_timesteps > 0:
            self._evaluate_at_end("online", model.num_timesteps)

    def _learn_online(self, steps: int) -> None:
        model = self.model
        assert model.env is not None
        if model._last_obs is None:  # Without this, a run that begins new episodes would see its first ones again.
            model.env.seed(self.settings.seed + model.num_timesteps)
        try:
            model.learn(steps, callback=self._callbacks(), reset_num_timesteps=False)
        except KeyboardInterrupt:
            if not self.interrupt.is_forced:
                model.dump_logs()  # `learn_offline` logs the last steps itself.
            raise
        before = self.folder.state_of_logs(model)
        model.dump_logs()
        self._checkpoint(before)

    def _callbacks(self) -> list[BaseCallback]:
        """In the order in which they are called: the checkpoint comes before an evaluation, which may be stopped."""
        chosen: list[BaseCallback | None] = [self.progress, self.validation, self.checkpoint, self.evaluation]
        chosen += [self.interrupt] if self.is_alone else []
        return [callback for callback in chosen if callback is not None]

    def _begin_phase(self, phase: Phase, step: int) -> None:
        """Opens the log of a phase; in a phase that is continued, restores it, and evaluates if that was left out."""
        self._open_log(phase)
        log, self._log = self._log, None
        if log is None or step == 0:
            return
        restore_recorded(self.model.logger, self.model._means, self.model.device, log)
        if self.evaluation is not None and self.evaluation.is_due(phase, step):
            self._evaluate_at_end(phase, step)

    def _open_log(self, phase: Phase) -> None:
        if self.model._custom_logger:
            self.model.logger.close()
        settings, more = self.settings, list[KVWriter]()
        if settings.wandb is not None:
            from flowpolicies.training.logs.wandb import WandbWriter, open_wandb

            self._wandb = self._wandb or open_wandb(settings.wandb, self.folder.path, self.folder.read_config())
            more.append(WandbWriter(self._wandb, phase))
        options = {"print_tables": settings.print_log, "tensorboard": settings.tensorboard}
        self.model.set_logger(self.folder.logger(phase, more=more, **options))
        if self.best is not None:
            self.model.logger.output_formats.append(self.best)

    def _evaluate_at_end(self, phase: Phase, step: int) -> None:
        """Evaluates, unless the log has a row of this step."""
        if self.evaluation is None or any(row[:2] == (phase, step) for row in self.folder.read_evaluations()):
            return
        if not self.model._custom_logger:
            self._open_log(phase)
        with suppress(EvaluationStopped):
            self.evaluation.evaluate(phase, step)
        self.interrupt.stop_if_asked()

    def _checkpoint(self, open_log: LogState | None = None) -> None:
        self.folder.save_checkpoint(
            self.model,
            self.settings.keep_checkpoints,
            replay_buffer=self.settings.save_replay_buffer and self.model.num_timesteps > 0,
            open_log=open_log,
        )

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

    def save_results(self) -> None:
        """Saves the model first, so that no other file can prevent it.

        Raises:
            IncompleteRunError: if another file could not be written.
        """
        with atomic_write(self.folder.model) as file:
            self.model.save(file)
        self._note_end()
        if self.best is not None:
            self.best.warn_of_missing()
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
            title = f"{self.model.name} on {self.settings.environment()}"
            plot_learning_curves({self.model.name: rows}, self.folder.plot, title=title)

    def _note_end(self) -> None:
        """Notes in the record at which steps this part of the run has ended."""
        record = self.folder.read_config()
        record["parts"][-1]["to"] = steps_of(self.model)
        self.folder.write_config(record)

    def save_stopped(self) -> None:
        """After a signal: writes the last checkpoint, the log, the policy and the plot."""
        if not self.interrupt.is_forced:  # After a forced stop the model may be half updated.
            if self.folder.latest() != self.folder.checkpoint_of(self.model):
                self._checkpoint()
            self._note_end()
            for file in self._write_policy_and_plot():
                say(f"{self.name}Could not be written: {file}")

    def close(self) -> None:
        """Closes the progress bar and the log."""
        self.progress.close()
        if self.model._custom_logger:
            self.model.logger.close()
        if self._wandb is not None:
            self._wandb.finish()


def say_how_to_continue(command: Sequence[str]) -> None:
    """Prints the command that continues a run that was interrupted."""
    if command:
        words = [word for word in command if word not in ("--overwrite", "--resume")]
        say(f"Continue with: {shlex.join([*words, '--resume'])}")
