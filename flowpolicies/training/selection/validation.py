"""Losses on episodes that are not trained on."""

from __future__ import annotations

from typing import final

import torch
from stable_baselines3.common.callbacks import BaseCallback

from flowpolicies.data import TransitionDataset
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.training.callbacks import Every, model_of, phase_of
from flowpolicies.training.runs import STEP_COLUMNS

BATCHES = 4
"""Number of batches whose losses are averaged."""


@final
class ValidationCallback(BaseCallback):
    """Logs the losses on held-out episodes, without any influence on the training.

    Their names are those of training, below `validation/`: `validation/critic/loss`. The batches and the noise are the
    same each time, so that the numbers of different steps can be compared.

    Args:
        dataset: the held-out episodes.
        every: steps between two validations: gradient steps offline, environment steps online.
        batches: number of batches, of the size of the model's, whose losses are averaged.
        seed: seed of the batches and of the noise.
    """

    def __init__(self, dataset: TransitionDataset, every: int, batches: int = BATCHES, seed: int = 0) -> None:
        super().__init__()
        self.dataset, self.batches, self.seed = dataset, batches, seed
        self._every = Every(every)
        self._buffer: TransitionBuffer | None = None

    def _init_callback(self) -> None:
        self._buffer = model_of(self).buffer_of(self.dataset)

    def _on_training_start(self) -> None:
        self._every.start(self.num_timesteps)

    def _on_step(self) -> bool:
        if self._every.is_due(self.num_timesteps):
            for name, value in self.losses().items():
                self.logger.record(f"validation/{name}", value)
            self.logger.record(STEP_COLUMNS[phase_of(self)], self.num_timesteps, exclude="tensorboard")
            self.logger.dump(self.num_timesteps)
        return True

    def losses(self) -> dict[str, float]:
        """Means of the losses and their metrics, by name."""
        model, buffer = model_of(self), self._buffer
        assert buffer is not None
        generator = torch.Generator(device=model.device).manual_seed(self.seed)
        totals: dict[str, float] = {}
        with buffer.apart(self.seed):
            for _ in range(self.batches):
                batch = buffer.sample(model.batch_size, env=model._vec_normalize_env)
                for name, value in model.probe(batch, generator).items():
                    totals[name] = totals.get(name, 0.0) + value / self.batches
        return totals
