"""Training without an environment."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, final

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.shell.fields import Natural, check_value

if TYPE_CHECKING:
    from flowpolicies.shell.algorithm import OfflineAlgorithm


@final
class SpacesOnlyVecEnv(VecEnv):
    """Knows its spaces and nothing else, so that callbacks that look at `training_env` work without an environment."""

    def __init__(self, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]) -> None:
        super().__init__(1, observation_space, action_space)

    def _refuse(self) -> Any:
        raise ValueError("this model has no environment, only the spaces of its dataset. Call set_env(env) first.")

    def reset(self) -> Any:
        return self._refuse()

    def step_async(self, actions: np.ndarray) -> None:
        self._refuse()

    def step_wait(self) -> Any:
        return self._refuse()

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        self._refuse()

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return self._refuse()  # type: ignore[no-any-return]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False]


@final
class OfflineLoop:
    """One call of `learn_offline`: updates, callbacks, log."""

    def __init__(self, model: OfflineAlgorithm, gradient_steps: int, log_interval: int) -> None:
        check_value("gradient_steps", Natural, gradient_steps)
        check_value("log_interval", int, log_interval)
        self.model, self.gradient_steps, self.log_interval = model, gradient_steps, log_interval

    def run(self, callback: MaybeCallback, tb_log_name: str, progress_bar: bool) -> None:
        """Runs to the end, or until a callback returns False. Counters are right whenever it is left."""
        model = self.model
        if model.transitions.offline is None:
            raise ValueError(
                f"{type(model).__name__} has no dataset (a loaded model does not bring it along). "
                "Call learn_offline(steps, dataset=...) or set_dataset(...)."
            )
        first = model.offline_steps
        total_timesteps = first + self.gradient_steps
        self._prepare(total_timesteps, tb_log_name)
        model._set_aside, model.num_timesteps = model.num_timesteps, first
        hooks = model._init_callback(callback, progress_bar)
        hooks.on_training_start(locals(), globals())
        try:
            for _ in range(self.gradient_steps):
                model._update_current_progress_remaining(model.num_timesteps - first, self.gradient_steps)
                model.train(gradient_steps=1, batch_size=model.batch_size)
                model.offline_steps += 1
                model.num_timesteps = model.offline_steps
                if model.offline_steps % self.log_interval == 0:
                    self._dump(first)
                hooks.update_locals(locals())
                if not hooks.on_step():
                    break
        finally:
            if model.offline_steps % self.log_interval != 0 and model.offline_steps > first:
                self._dump(first)
            model.num_timesteps, model._set_aside = model.environment_steps, None
            hooks.on_training_end()

    def _prepare(self, total: int, tb_log_name: str) -> None:
        model = self.model
        model.start_time = time.time_ns()
        model._total_timesteps = total
        model.ep_info_buffer = model.ep_info_buffer or deque(maxlen=model._stats_window_size)
        model.ep_success_buffer = model.ep_success_buffer or deque(maxlen=model._stats_window_size)
        if not model._custom_logger:
            fresh = model.offline_steps == 0
            model._logger = configure_logger(model.verbose, model.tensorboard_log, tb_log_name, fresh)

    def _dump(self, first: int) -> None:
        model = self.model
        elapsed = max((time.time_ns() - model.start_time) / 1e9, sys.float_info.epsilon)
        model.record_training()
        model.logger.record("time/steps_per_second", (model.offline_steps - first) / elapsed)
        model.logger.record("time/time_elapsed", int(elapsed), exclude="tensorboard")
        model.logger.record("time/offline_steps", model.offline_steps, exclude="tensorboard")
        model.logger.dump(step=model.offline_steps)
