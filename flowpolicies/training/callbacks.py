"""Callbacks of training; one callback object can be used in `learn_offline` and in `learn`."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, Self, final

import gymnasium as gym
import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from tqdm import tqdm

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.messages import say
from flowpolicies.policies import Evaluation, evaluate
from flowpolicies.signals import Terminated
from flowpolicies.training.evaluations import EvaluationRow, Phase
from flowpolicies.training.logs import LogState
from flowpolicies.training.runs import STEP_COLUMNS, RunFolder

LEAST_SECONDS_TO_SAVE = 30.0
"""Least number of seconds that is announced for a checkpoint; it is longer if the latest one took long."""


def phase_of(callback: BaseCallback) -> Phase:
    """Phase of the training that a callback belongs to."""
    return "offline" if model_of(callback).is_offline else "online"


def model_of(callback: BaseCallback) -> OfflineAlgorithm:
    """The model that a callback belongs to."""
    assert isinstance(callback.model, OfflineAlgorithm)
    return callback.model


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

    Online, a checkpoint that becomes due in a step is saved before the next round of `learn` begins (`train_freq`),
    when the transition is stored and the updates are made. From there a resumed run continues exactly.

    Args:
        folder: folder of the run.
        every: steps between two checkpoints: gradient steps offline, environment steps online; 0: no checkpoints.
        keep: number of newest checkpoints that are not deleted.
        replay_buffer: also save the online transitions; without them a resumed online run starts with an empty buffer.
        leave_last: save none at the last step of `learn_offline` or `learn`, where the caller saves one afterwards.

    Examples:
        >>> from pathlib import Path
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.training import AtomicCheckpoint, RunFolder
        >>> callback = AtomicCheckpoint(RunFolder(Path("runs/mine")), every=500)
        >>> model = QFlow(dataset="pendulum:mixed").learn_offline(1_000, callback=callback)
    """

    def __init__(
        self, folder: RunFolder, every: int, keep: int = 2, *, replay_buffer: bool = True, leave_last: bool = False
    ) -> None:
        super().__init__()
        self.folder, self.keep, self.replay_buffer, self.leave_last = folder, keep, replay_buffer, leave_last
        self._every, self._is_due = Every(every), False
        self.seconds = 0.0
        """How long the latest save took."""
        self._saved: Path | None = None

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        is_last = self.leave_last and self.num_timesteps >= self.model._total_timesteps
        self._is_due |= self._every.is_due(self.num_timesteps) and not is_last
        if model_of(self).is_offline:
            self._save_if_due()
        return True

    def _on_rollout_start(self) -> None:
        self._save_if_due()

    def _on_training_end(self) -> None:
        self._save_if_due()

    def _save_if_due(self) -> None:
        if self._is_due:
            self._is_due = False
            self.save()

    def save(self) -> None:
        """Saves a checkpoint of the present step, unless it has done so."""
        model, start = model_of(self), time.monotonic()
        with model.at_rest():
            if self._saved == self.folder.checkpoint_of(model):
                return
            replay_buffer = self.replay_buffer and model.num_timesteps > 0
            self._saved = self.folder.save_checkpoint(model, self.keep, replay_buffer=replay_buffer)
        self.seconds = time.monotonic() - start


@final
class EvaluationCallback(BaseCallback):
    """Evaluates the policy in an environment of its own, without any influence on the training.

    The results are logged as `eval/success_rate`, `eval/ep_rew_mean` and `eval/ep_len_mean`, and written to
    `evaluations.csv` of the run. The episodes depend on seed, phase and step only. If the environment raises
    `EvaluationStopped`, the training goes on without a result.

    Args:
        env: environment to evaluate in.
        every: steps between two evaluations: gradient steps offline, environment steps online; 0: no evaluations.
        episodes: number of episodes in each evaluation.
        folder: folder of the run; None: results are only logged.
        seed: seed of the episodes.
        deterministic: start flows at zero noise instead of sampling the noise, as the papers do.
        verbose: 1: print a line for each evaluation.

    Examples:
        >>> import gymnasium as gym
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.training import EvaluationCallback
        >>> callback = EvaluationCallback(gym.make("Pendulum-v1"), every=1_000, episodes=10, verbose=1)
        >>> model = QFlow(dataset="pendulum:mixed").learn_offline(500, callback=callback)
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
        self.name = ""
        """Beginning of the printed lines; of several runs that are trained together, the name of the run."""
        self._every = Every(every)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            with suppress(EvaluationStopped):
                self.evaluate(phase_of(self), self.num_timesteps)
        return True

    def is_due(self, phase: Phase, step: int) -> bool:
        """Whether training evaluates at a step that it has reached: a multiple of `every` lies in the last step."""
        every, taken = self._every.interval, 1 if phase == "offline" else self.model.n_envs
        return every > 0 and step > 0 and step // every > (step - taken) // every

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
            with model.at_rest():
                self.folder.note_logs(model)
        if self.verbose:
            say(f"{self.name}{phase} step {step:,}: {found}")
        return found


def evaluation_seed(seed: int, phase: Phase, step: int) -> int:
    """Seed of the episodes of the evaluation at a step, which `flowpolicies evaluate --seed` takes."""
    entropy = [seed, ("offline", "online").index(phase), step]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0] // 2)  # Gymnasium's seeds are signed.


@final
class LogsAtLastStep(BaseCallback):
    """Keeps where the logs are after the last step, before `learn_offline` logs the interval in progress."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__()
        self.folder = folder
        self.state: LogState | None = None

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.model._total_timesteps:
            self.state = self.folder.state_of_logs(model_of(self))
        return True


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

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.training import ProgressCallback
        >>> model = QFlow(dataset="pendulum:mixed").learn_offline(1_000, callback=ProgressCallback())
    """

    def __init__(self, disable: bool | None = None) -> None:
        super().__init__()
        self.disable, self._latest, self.label = disable, LatestValues(), ""
        self.bar: tqdm[Any] | None = None

    def _on_training_start(self) -> None:
        self.close()
        desc, total = phase_of(self) + self.label, self.model._total_timesteps
        self.bar = tqdm(desc=desc, total=total, initial=self.num_timesteps, disable=self.disable, dynamic_ncols=True)
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


class Saves(Protocol):
    """Anything that saves checkpoints, as `AtomicCheckpoint`."""

    @property
    def seconds(self) -> float:
        """How long the latest save took."""

    def save(self) -> None: ...


class EvaluationStopped(Exception):  # Not an error.
    """An evaluation was left before its end, because the training is to stop."""


@final
class InterruptBetweenSteps(BaseCallback):
    """Delays Ctrl-C, and the SIGTERM of a cluster, to the end of a step, when the model is in a consistent state.

    Use it as a context manager around `learn_offline` or `learn`, and as one of their callbacks. It raises
    KeyboardInterrupt after the step (`Terminated`, a subclass, for SIGTERM); online, before the next round of `learn`
    begins. A second Ctrl-C raises it at once; the model may then be half updated.

    Args:
        checkpoint: what saves a checkpoint before the exception is raised, as the callback `AtomicCheckpoint`; None:
            none is saved.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.training import InterruptBetweenSteps
        >>> with InterruptBetweenSteps() as interrupt:
        ...     model = QFlow(dataset="pendulum:mixed").learn_offline(1_000, callback=interrupt)
    """

    def __init__(self, checkpoint: Saves | None = None) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.is_asked, self.is_forced = False, False
        self._error: type[KeyboardInterrupt] = KeyboardInterrupt
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        # Python allows signal handlers in the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, error: object, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)
        if error is None:  # The signal came after the last step.
            self.stop_if_asked()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.is_asked and number == signal.SIGINT:
            self.is_forced = True
            raise KeyboardInterrupt
        if self.is_asked:  # Clusters send SIGTERM more than once.
            return
        self.is_asked = True
        self._error = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        seconds = max(LEAST_SECONDS_TO_SAVE, 3 * (self.checkpoint.seconds if self.checkpoint else 0))
        what = f"Stopping after this step; then a checkpoint is saved, within {math.ceil(seconds)} s at most."
        with suppress(OSError):  # Not `print`, which must not be called inside another `print` that was interrupted.
            os.write(2, f"\n{what} Press Ctrl-C again to stop at once, without saving.\n".encode())

    def _on_step(self) -> bool:
        if model_of(self).is_offline:
            self.save_and_stop_if_asked()
        return True

    def _on_rollout_start(self) -> None:
        self.save_and_stop_if_asked()  # In `_on_step` the newest transition is not stored yet.

    def save_and_stop_if_asked(self) -> None:
        """If a signal has come, saves a checkpoint and raises KeyboardInterrupt or `Terminated`."""
        if self.is_asked and self.checkpoint is not None:
            self.checkpoint.save()
        self.stop_if_asked()

    def stop_if_asked(self) -> None:
        """Raises KeyboardInterrupt or `Terminated` if a signal has come."""
        if self.is_asked:
            raise self._error


@final
class StoppableEvaluation(VecEnvWrapper):
    """Environments for evaluations that raise `EvaluationStopped` at the next step when the training is to stop."""

    def __init__(self, env: VecEnv, interrupt: InterruptBetweenSteps) -> None:
        super().__init__(env)
        self._interrupt = interrupt

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_async(self, actions: np.ndarray) -> None:
        if self._interrupt.is_asked:
            raise EvaluationStopped
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        return self.venv.step_wait()
