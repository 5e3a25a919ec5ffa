"""Checks against the environment: spaces, first observations, time limits and components that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.inspection.columns import Ranges
from flowpolicies.inspection.findings import Finding, found, is_quantity, listed, named_arrays
from flowpolicies.inspection.simulation.resimulation import Resimulate as Resimulate
from flowpolicies.inspection.simulation.resimulation import Resimulated as Resimulated
from flowpolicies.inspection.simulation.resimulation import check_resimulation as check_resimulation
from flowpolicies.inspection.simulation.resimulation import open_resimulator as open_resimulator
from flowpolicies.inspection.simulation.resimulation import rows_to_resimulate as rows_to_resimulate
from flowpolicies.inspection.simulation.resimulation import unexplained as unexplained
from flowpolicies.spaces.layout import channels_first_space, space_fits
from flowpolicies.tree import leaf_at

RESETS = 20
"""Number of resets of the environment, whose first observations are compared with the data."""

TRIED_EPISODES = 2
"""Number of episodes with random actions, to see which components change."""

TRIED_STEPS = 50
"""Largest number of steps of these episodes."""

USUALLY = 0.5
"""Share of these steps in which a component must differ from its first value; contact forces may not occur in data."""


def check_environment(
    dataset: TransitionDataset, env: gymnasium.Env[Any, Any], ranges: dict[str, Ranges]
) -> list[Finding]:
    """Reports spaces that differ from the environment's, and first observations outside of the data.

    Args:
        dataset: the dataset to check.
        env: the environment that it is to be used with.
        ranges: ranges of the dataset's columns.
    """
    findings = []
    for part in ("observation_space", "action_space"):
        own, theirs = getattr(dataset, part), channels_first_space(getattr(env, part))
        if not space_fits(own, theirs):
            text = f"the {part} of the dataset is {own}, but that of the environment is {theirs}"
            advice = "Use data of this environment, or wrap the environment so that both agree."
            findings.append(found(dataset, "environment", "fault", text, advice))
    if findings or not isinstance(env.action_space, Box):
        return findings
    return [
        *_check_starts(dataset, env, ranges),
        *_check_constants(dataset, env, ranges),
        *_check_lengths(dataset, env),
    ]


def _check_constants(
    dataset: TransitionDataset, env: gymnasium.Env[Any, Any], ranges: dict[str, Ranges]
) -> list[Finding]:
    """Reports components that never change in the data, but change in the environment during an episode."""
    constants = {
        name: np.flatnonzero(ranges[name].low == ranges[name].high)
        for name, array in named_arrays("observations", dataset.observations)
        if is_quantity(array)
    }
    if not any(map(len, constants.values())):
        return []
    changes = {name: np.zeros(len(ranges[name].low)) for name in constants}
    steps = list(_random_steps(env))
    for first, later in steps:
        for name, changed in changes.items():
            key = name.partition("/")[2] or None
            before, after = (np.asarray(leaf_at(part, key), np.float64).reshape(-1) for part in (first, later))
            changed += np.abs(after - before) > 1e-6 * np.maximum(1, np.abs(before))
    findings = []
    for name, constant in constants.items():
        wrong = constant[changes[name][constant] > USUALLY * len(steps)]
        if len(wrong):
            text = f"components of {name} that never change, although random actions change them: {listed(wrong, 8)}"
            advice = "Record these components again: the policy will meet values that it has never seen."
            findings.append(found(dataset, "environment", "fault", text, advice, count=len(wrong)))
    return findings


def _random_steps(env: gymnasium.Env[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """First observations of episodes with random actions, and later observations of the same episode."""
    env.action_space.seed(0)
    for seed in range(TRIED_EPISODES):
        first, _ = env.reset(seed=seed)
        for _ in range(TRIED_STEPS):
            later, _, terminated, truncated, _ = env.step(env.action_space.sample())
            yield first, later
            if terminated or truncated:
                break


def _check_starts(dataset: TransitionDataset, env: gymnasium.Env[Any, Any], ranges: dict[str, Ranges]) -> list[Finding]:
    """Reports components that start outside of the data's range, because they have other units or were normalised."""
    starts = [env.reset(seed=seed)[0] for seed in range(RESETS)]
    findings = []
    for name, array in named_arrays("observations", dataset.observations):
        key = name.partition("/")[2] or None
        if not is_quantity(array) or key == "desired_goal":  # Each reset draws a new goal.
            continue
        values = np.array([np.asarray(leaf_at(start, key), np.float64).reshape(-1) for start in starts])
        low, high = (bound.astype(np.float64) for bound in (ranges[name].low, ranges[name].high))
        margin = 0.5 * (high - low) + 1e-3
        outside = np.flatnonzero(((values < low - margin) | (values > high + margin)).mean(axis=0) > 0.5)
        if len(outside):
            first = outside[0]
            findings.append(
                found(
                    dataset,
                    "environment",
                    "warning",
                    f"{len(outside)} of {len(low)} components of {name} start outside of the data's range when the "
                    f"environment is reset (component {first} starts at {np.median(values[:, first]):.6g}, and ranges "
                    f"from {low[first]:.6g} to {high[first]:.6g} in the data)",
                    "Check units, order and normalisation of the observations.",
                    count=len(outside),
                )
            )
    return findings


def _check_lengths(dataset: TransitionDataset, env: gymnasium.Env[Any, Any]) -> list[Finding]:
    """Reports trajectories that are longer than the environment's time limit."""
    limit = None if env.spec is None else env.spec.max_episode_steps
    if limit is None or dataset.episode_lengths.max() <= limit:
        return []
    rows = dataset.episode_starts[dataset.episode_lengths > limit]
    text = f"{len(rows):,} trajectories are longer than the environment's limit of {limit:,} steps"
    return [found(dataset, "environment", "info", text, rows=rows)]
