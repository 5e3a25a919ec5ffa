"""The regression that the checks of actions, rewards and jumps use, and the variance that it explains."""

from __future__ import annotations

from typing import final

import numpy as np

from flowpolicies.tree import Array

MOST_ROWS = 20_000
"""Largest number of rows that a regression learns from."""

LEAST_ROWS = 300
"""Number of rows below which no regression is made."""

STRETCH = 8192
"""Number of consecutive rows that are predicted at once, which limits the memory."""

EXPLAINED = 0.5
"""Share of a component's variance that must be explained for the component to count; contacts are unpredictable."""

LEAST_GAIN = 0.01
"""Smallest share of the variance of one component that an action must explain to count as having an effect."""

FEATURES = 256
"""Number of random features."""

RIDGE = 1e-3
"""Ridge penalty per row."""

OUTLIER = 5.0
"""Number of standard deviations at which values are clipped."""


def clip(standard: Array) -> Array:
    """Standardised values, clipped at `OUTLIER`."""
    clipped: Array = np.clip(standard, -OUTLIER, OUTLIER)
    return clipped


def deviations(values: Array, *, constant: float = 1.0) -> Array:
    """Standard deviation of each component `[D]`; of components that do not change `constant` (np.inf ignores them)."""
    deviation = values.std(axis=0)
    return np.where(deviation > 1e-8, deviation, constant)


def standardise(values: Array) -> Array:
    """Values with mean 0 and standard deviation 1 in each component, clipped at `OUTLIER`."""
    return clip((values - values.mean(axis=0)) / deviations(values))


def root_mean_square(values: Array) -> Array:
    """Root mean square over the components of each row, `[n]`."""
    root: Array = np.sqrt(np.mean(values**2, axis=1))
    return root


@final
class Ridge:
    """Ridge regression on standardised inputs and random rectified features of them.

    Args:
        inputs: the inputs, `[n, X]`.
        outputs: the outputs to predict, `[n, Y]`.
        linear: further inputs `[n, L]` that enter linearly, without random features.
    """

    def __init__(self, inputs: Array, outputs: Array, *, linear: Array | None = None) -> None:
        generator = np.random.default_rng(0)
        self._mean, self._scale = inputs.mean(axis=0), deviations(inputs)
        count = min(FEATURES, len(inputs) // 10)
        self._weights = generator.normal(size=(inputs.shape[1], count)) * 1.5 / np.sqrt(max(inputs.shape[1], 1))
        self._offsets = generator.normal(size=count)
        features = self._features(inputs, linear)
        self._centre, self._spread = features.mean(axis=0), deviations(features)
        features = (features - self._centre) / self._spread
        self._output_mean, self._low, self._high = outputs.mean(axis=0), outputs.min(axis=0), outputs.max(axis=0)
        gram = features.T @ features + RIDGE * len(features) * np.eye(features.shape[1])
        self._solution = np.linalg.solve(gram, features.T @ (outputs - self._output_mean))

    def predict(self, inputs: Array, linear: Array | None = None) -> Array:
        """Predicted outputs `[n, Y]`, clipped to the range of the outputs that were learned from."""
        features = (self._features(inputs, linear) - self._centre) / self._spread
        outputs: Array = np.clip(features @ self._solution + self._output_mean, self._low, self._high)
        return outputs

    def _features(self, inputs: Array, linear: Array | None) -> Array:
        plain = clip((inputs - self._mean) / self._scale)
        rectified = np.maximum(plain @ self._weights + self._offsets, 0)
        return np.concatenate([plain, rectified, *([] if linear is None else [linear])], axis=1)


def explained(inputs: Array, outputs: Array, *, linear: Array | None = None) -> Array:
    """Share of each output's variance that a regression explains, `[Y]`, between 0 and 1.

    The regression learns from every second row and is judged on the others.
    """
    seen, unseen = slice(0, None, 2), slice(1, None, 2)
    part = (None, None) if linear is None else (linear[seen], linear[unseen])
    predicted = Ridge(inputs[seen], outputs[seen], linear=part[0]).predict(inputs[unseen], part[1])
    error = np.mean((outputs[unseen] - predicted) ** 2, axis=0)
    variance = np.mean((outputs[unseen] - outputs[seen].mean(axis=0)) ** 2, axis=0)
    return np.where(variance > 1e-9, np.maximum(1 - error / np.maximum(variance, 1e-9), 0), 0)
