"""Callbacks of training; one callback object can be used in `learn_offline` and in `learn`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any, Self, final

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from tqdm import tqdm

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.policies import Evaluation, evaluate
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.runs import STEP_COLUMNS, RunFolder


def phase_of(callback: BaseCallback) -> Phase:
    """Phase of the training that a callback belongs to."""
    return "offline" if model_of(callback).is_offline else "online"


def model_of(callback: BaseCallback) -> OfflineAlgorithm:
    """The model that a callback belongs to."""
    assert isinstance(callback.model, OfflineAlgorithm)
    return callback.model


def say(text: str) -> None:
    """Prints a line above the progress bar, and flushes it for readers of a log file."""
    tqdm.write(text)
    sys.stdout.flush()


@final
class Every:
    """Tells when a multiple of `interval` steps is reached; several environments take several steps at a time."""

    def __init__(self, interval: int) -> None:
        self.interval, self.last = interval, 0

    def start(self, step: int) -> None:
        """Starts counting at `step`."""
        self.last = step

    def is_due(self, step: int) -> bool:
        """Whether a multiple of the interval was reached since the last call; always False for an interval of 0."""
        due = self.interval > 0 and step // self.interval > self.last // self.interval
        self.last = step
        return due


@final
class AtomicCheckpoint(BaseCallback):
    """Saves checkpoints of the model, each atomically.

    Args:
        folder: folder of the run.
        every: steps between two checkpoints: gradient steps offline, environment steps online; 0: no checkpoints.
        keep: number of newest checkpoints that are not deleted.
        replay_buffer: also save the online transitions; without them a resumed online run starts with an empty buffer.
    """

    def __init__(self, folder: RunFolder, every: int, keep: int = 2, *, replay_buffer: bool = True) -> None:
        super().__init__()
        self.folder, self.keep, self.replay_buffer = folder, keep, replay_buffer
        self._every = Every(every)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            self._save()
        return True

    def _save(self) -> None:
        """Saves a checkpoint with environment steps in `num_timesteps`, where `learn_offline` counts gradient steps."""
        model, steps = model_of(self), self.model.num_timesteps
        model.num_timesteps = model.environment_steps
        try:
            self.folder.save_checkpoint(model, self.keep, replay_buffer=not model.is_offline and self.replay_buffer)
        finally:
            model.num_timesteps = steps


@final
class EvaluationCallback(BaseCallback):
    """Evaluates the policy in an environment of its own, without any influence on the training.

    The results are logged as `eval/success_rate`, `eval/ep_rew_mean` and `eval/ep_len_mean`, and written to
    `evaluations.csv` of the run. The episodes depend on seed, phase and step only.

    Args:
        env: environment to evaluate in.
        every: steps between two evaluations: gradient steps offline, environment steps online; 0: no evaluations.
        episodes: number of episodes in each evaluation.
        folder: folder of the run; None: results are only logged.
        seed: seed of the episodes.
        deterministic: start flows at zero noise instead of sampling the noise, as the papers do.
        verbose: 1: print a line for each evaluation.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any] | VecEnv,
        every: int,
        episodes: int = 50,
        *,
        folder: RunFolder | None = None,
        seed: int = 0,
        deterministic: bool = False,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
        self.episodes, self.folder, self.seed, self.deterministic = episodes, folder, seed, deterministic
        self._every = Every(every)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            self.evaluate(phase_of(self), self.num_timesteps)
        return True

    def evaluate(self, phase: Phase, step: int) -> Evaluation:
        """Evaluates the policy now, and records the results."""
        model = model_of(self)
        seed = evaluation_seed(self.seed, phase, step)
        generator = model.policy.generator
        try:
            found = evaluate(model.policy, self.env, self.episodes, deterministic=self.deterministic, seed=seed)
        finally:
            model.policy.generator = generator  # The evaluation must not change the noise of exploration.
        for key, value in found.summary().items():
            self.logger.record(f"eval/{key}", value)
        self.logger.record(STEP_COLUMNS[phase], step, exclude="tensorboard")
        self.logger.dump(step)
        if self.folder is not None:
            self.folder.add_evaluation(EvaluationRow.of(phase, step, found))
        if self.verbose:
            say(f"{phase} step {step:,}: {found}")
        return found


def evaluation_seed(seed: int, phase: Phase, step: int) -> int:
    """Seed of the episodes of the evaluation at a step, which `flowpolicies evaluate --seed` takes."""
    entropy = [seed, ("offline", "online").index(phase), step]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)  # Gymnasium's seeds are signed.


@final
class LatestValues(KVWriter):
    """Output format of the logger that keeps the last value of each key."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.is_fresh = False

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.values |= key_values
        self.is_fresh = True

    def close(self) -> None:
        pass


@final
class ProgressCallback(BaseCallback):
    """Progress bar with the remaining time, the latest losses and the latest success rate.

    Args:
        disable: whether to show no bar; None: no bar if standard error is not a terminal.
    """

    def __init__(self, disable: bool | None = None) -> None:
        super().__init__()
        self.disable, self._latest = disable, LatestValues()
        self.bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        self.close()
        total = self.model._total_timesteps
        self.bar = tqdm(
            desc=phase_of(self), total=total, initial=self.num_timesteps, disable=self.disable, dynamic_ncols=True
        )
        self.logger.output_formats.append(self._latest)

    def _on_step(self) -> bool:
        assert self.bar is not None
        if self._latest.is_fresh:
            self.bar.set_postfix(shorten(self._latest.values), refresh=False)
            self._latest.is_fresh = False
        self.bar.update(self.num_timesteps - self.bar.n)
        return True

    def _on_training_end(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the bar, which is still open after an interrupted training."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
            if self._latest in self.logger.output_formats:
                self.logger.output_formats.remove(self._latest)


def shorten(values: dict[str, Any]) -> dict[str, str]:
    """Text of the losses, by the names of their terms, and of the success rate."""
    losses = {key.split("/")[1].removesuffix("_loss"): value for key, value in values.items() if key.endswith("/loss")}
    success = {"success": values["eval/success_rate"]} if "eval/success_rate" in values else {}
    return {key: f"{value:.3g}" for key, value in (losses | success).items()}


@final
class InterruptBetweenSteps(BaseCallback):
    """Delays Ctrl-C, and the SIGTERM of a cluster, to the end of a step, when the model is in a consistent state.

    Use it as a context manager around `learn_offline` or `learn`, and as one of their callbacks. It raises
    KeyboardInterrupt after the step. A second signal raises it at once; the model may then be half updated.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_asked, self.is_forced = False, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if (
            threading.current_thread() is threading.main_thread()
        ):  # Python allows signal handlers in the main thread only.
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if self.is_asked and error is None:  # The signal came after the last step.
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked:
            self.is_forced = True
            raise KeyboardInterrupt
        self.is_asked = True
        with suppress(
            OSError
        ):  # Not `print`, which must not be called inside another `print` that the signal interrupted.
            os.write(
                2, b"\nStopping after this step or evaluation. Press Ctrl-C again to stop at once, without saving.\n"
            )

    def _on_step(self) -> bool:
        if self.is_asked:
            raise KeyboardInterrupt
        return True
