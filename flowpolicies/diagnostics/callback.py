"""A callback that diagnoses a model while it is trained."""

from __future__ import annotations

import math
import warnings
from typing import final

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.diagnostics.diagnose import diagnose
from flowpolicies.diagnostics.readings import Diagnosis
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.training.callbacks import Every

LEVELS = {"ok": 0, "look": 1, "bad": 2}
"""Judgement -> number in the log."""


@final
class DiagnosisCallback(BaseCallback):
    """Diagnoses the model, without any influence on the training, and warns once for each diagnostic that turns bad.

    Values are logged as `diagnosis/NAME`, judgements as `diagnosis/NAME_judgement` (0 ok, 1 look, 2 bad).

    Args:
        every: steps between two diagnoses: gradient steps offline, environment steps online.
        env: environments of its own for diagnostics that need returns; None: these do not apply.
        samples: number of transitions that are looked at.
        seed: seed of the transitions and of the noise.
        only: names of the diagnostics to take; None: all of them.

    Examples:
        >>> from flowpolicies import QFlow
        >>> from flowpolicies.diagnostics import DiagnosisCallback
        >>> callback = DiagnosisCallback(every=1_000, only=("value_range", "gradients"))
        >>> model = QFlow(dataset="pendulum:mixed", seed=0).learn_offline(500, callback=callback)
    """

    def __init__(
        self,
        every: int,
        env: VecEnv | None = None,
        *,
        samples: int = 1024,
        seed: int = 0,
        only: tuple[str, ...] | None = None,
    ) -> None:
        super().__init__()
        self.env, self.samples, self.seed, self.only = env, samples, seed, only
        self.latest: Diagnosis | None = None
        """The latest diagnosis."""
        self._every, self._bad = Every(every), set[str]()

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        assert isinstance(self.model, OfflineAlgorithm)
        if self._every.is_due(self.num_timesteps) and self.model.transitions.num_windows():
            self.latest = diagnose(self.model, self.env, samples=self.samples, seed=self.seed, only=self.only)
            self._record(self.latest)
        return True

    def _record(self, diagnosis: Diagnosis) -> None:
        for reading in diagnosis.readings:
            if reading.judgement == "not applicable":
                continue
            value = math.nan if reading.value is None else reading.value
            self.logger.record(f"diagnosis/{reading.name}", value)
            self.logger.record(f"diagnosis/{reading.name}_judgement", LEVELS[reading.judgement])
            if reading.judgement == "bad" and reading.name not in self._bad:
                self._bad.add(reading.name)
                what = f"{reading.name} is bad. {reading.sentence} {reading.remedy}"
                warnings.warn(f"step {self.num_timesteps:,}: {what}", stacklevel=2)
