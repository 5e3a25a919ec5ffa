"""A callback that scores the policy on a dataset while it is trained."""

from __future__ import annotations

import warnings
from typing import Any, final

from stable_baselines3.common.callbacks import BaseCallback

from flowpolicies.data import TransitionDataset
from flowpolicies.diagnostics.scores.fqe import fitted_q_evaluation
from flowpolicies.diagnostics.scores.values import discount_of, initial_value, td_error
from flowpolicies.training.callbacks import Every


@final
class ScoreCallback(BaseCallback):
    """Scores the policy of any model of Stable-Baselines3 or of this package, without any influence on its training.

    Logged are `score/initial_value` and `score/td_error`, and with `fit` also `score/disagreement` and
    `score/diverged` (1 if the fitted values have diverged and do not count; a warning then says why).

    Args:
        dataset: the transitions, held-out ones if you can.
        every: steps between two scores, as the model counts them.
        fit: whether critics are fitted to the policy by `fitted_q_evaluation`, which any object with `predict` allows;
            False: the model's own critics.
        seed: seed of everything that is drawn.
        **options: arguments of `fitted_q_evaluation`, such as `updates`; without `fit` those of `td_error`.
    """

    def __init__(
        self, dataset: TransitionDataset, every: int, *, fit: bool = True, seed: int = 0, **options: Any
    ) -> None:
        super().__init__()
        self.dataset, self.fit, self.seed, self.options = dataset, fit, seed, options
        self._every = Every(every)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            for name, value in self.scores().items():
                self.logger.record(f"score/{name}", value)
        return True

    def scores(self) -> dict[str, float]:
        """The scores by name, now."""
        common = {"gamma": discount_of(self.model), "seed": self.seed, **self.options}
        if not self.fit:
            value = initial_value(self.model, self.dataset, seed=self.seed)
            return {"initial_value": value, "td_error": td_error(self.model, self.dataset, **common)}
        found = fitted_q_evaluation(self.model, self.dataset, **common)
        if found.diverged:
            warnings.warn(f"step {self.num_timesteps:,}: the score does not count: {found.problem}.", stacklevel=2)
        names = ("initial_value", "td_error", "disagreement", "diverged")
        return {name: float(getattr(found, name)) for name in names}
