"""Transformations of rewards before training, and the normalisation of returns to D4RL's score."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.names import REFERENCE as REFERENCE
from flowpolicies.data.names import RewardTransformName as RewardTransformName
from flowpolicies.tree import Array


@dataclass(frozen=True, kw_only=True)
class RewardTransform:
    """Maps a reward r to scale * r + shift, or to -1[r != 0] if its name is `sparse`.

    Papers transform the rewards of a dataset before training. `fit` reads the numbers that depend on the dataset, so
    that rewards collected in an environment can be transformed in the same way.

    Examples:
        >>> from flowpolicies import load_dataset
        >>> from flowpolicies.data import RewardTransform
        >>> data = load_dataset("pendulum:mixed")
        >>> transform = RewardTransform.fit("normalize", data)
    """

    name: RewardTransformName
    """Name of the transform, see `fit`."""
    scale: float = 1.0
    """Factor of the reward."""
    shift: float = 0.0
    """Number added to the scaled reward."""

    @staticmethod
    def fit(name: RewardTransformName, dataset: TransitionDataset | None) -> RewardTransform:
        """The transform of a name, with the numbers of a dataset.

        none: r. sparse: -1 where r is not 0. iql_locomotion: 1000 r / (largest - smallest return of a trajectory).
        iql_antmaze: r - 1. cql_antmaze: 4 (r - 1/2). antmaze100: 100 r. normalize: (r - mean) / std.

        Args:
            name: one of these names.
            dataset: the dataset; None for training without a dataset, where iql_locomotion and normalize are refused.

        Raises:
            ValueError: if the name is unknown, or the transform is not defined for the rewards of the dataset.
        """
        if name not in get_args(RewardTransformName):
            known = ", ".join(get_args(RewardTransformName))
            raise ValueError(f"unknown reward transform '{name}' (known: {known}).")
        if dataset is None:
            if name in ("iql_locomotion", "iql_mujoco", "normalize"):
                raise ValueError(f"reward transform '{name}' takes its numbers from a dataset, and there is none.")
            scale, shift = _AFFINE.get(name, (1.0, 0.0))
            return RewardTransform(name=name, scale=scale, shift=shift)
        if name in ("iql_locomotion", "iql_mujoco"):
            returns = np.add.reduceat(dataset.rewards.astype(np.float64), dataset.episode_starts)
            span = _positive(name, dataset, "all trajectories have the same return", returns.max() - returns.min())
            return RewardTransform(name=name, scale=1000 / span)
        if name == "normalize":
            rewards = dataset.rewards.astype(np.float64)
            std = _positive(name, dataset, "all rewards are equal", rewards.std())
            return RewardTransform(name=name, scale=1 / std, shift=-float(rewards.mean()) / std)
        if name == "sparse":
            _check_no_reward(dataset.rewards, f"dataset '{dataset.name}'")
        scale, shift = _AFFINE.get(name, (1.0, 0.0))
        return RewardTransform(name=name, scale=scale, shift=shift)

    def __call__(self, rewards: Array) -> Array:
        """The transformed rewards, of the same shape, as float32.

        Raises:
            ValueError: if the transform is `sparse` and a reward is positive.
        """
        if self.name == "sparse":
            _check_no_reward(rewards, "the environment")
            return np.where(rewards == 0, np.float32(0), np.float32(-1))
        return np.asarray(self.scale * np.asarray(rewards, np.float64) + self.shift, np.float32)

    def apply(self, dataset: TransitionDataset) -> TransitionDataset:
        """The dataset with transformed rewards, which are also noted in its provenance.

        The new fingerprint is computed from the old one and the new rewards, since reading all arrays again would take
        too long for data in files.
        """
        if self.name == "none":
            return dataset
        provenance = {**dataset.provenance, "reward_transform": dataclasses.asdict(self)}
        rewards = self(dataset.rewards)
        return TransitionDataset.trusted(
            {**dataset.arrays(), "rewards": rewards},
            observation_space=dataset.observation_space,
            action_space=dataset.action_space,
            provenance=provenance,
            fingerprint=hashlib.sha256(dataset.fingerprint.encode() + rewards.tobytes()).hexdigest(),
            episode_ends=dataset.episode_ends,
        )


_AFFINE: dict[str, tuple[float, float]] = {
    "iql_antmaze": (1.0, -1.0),
    "cql_antmaze": (4.0, -2.0),
    "antmaze100": (100.0, 0.0),
}


def _positive(name: str, dataset: TransitionDataset, fault: str, value: float) -> float:
    if value > 0:
        return float(value)
    raise ValueError(f"reward transform '{name}' would divide by zero on dataset '{dataset.name}': {fault}.")


def _check_no_reward(rewards: Array, where: str) -> None:
    if np.any(rewards > 0):
        raise ValueError(
            f"reward transform 'sparse' needs rewards of at most 0, but those of {where} reach {rewards.max():.6g}. "
            "It is for tasks whose reward is minus the number of open subtasks, such as OGBench's scene, puzzle and "
            "cube."
        )


def normalized_score(dataset: TransitionDataset | Mapping[str, Any], returns: Any) -> Any:
    """D4RL's score, 100 (return - random) / (expert - random), with the reference returns of a dataset.

    Args:
        dataset: a dataset of D4RL or Minari, or its provenance.
        returns: one return or an array of returns, of untransformed rewards.

    Raises:
        ValueError: if the dataset has no reference scores.
    """
    provenance = dataset.provenance if isinstance(dataset, TransitionDataset) else dataset
    if REFERENCE not in provenance:
        raise ValueError(
            f"dataset '{provenance.get('name')}' has no reference scores (D4RL's datasets have them, and Minari's "
            "where the metadata hold ref_min_score and ref_max_score), so returns cannot be normalised."
        )
    low, high = provenance[REFERENCE]["min"], provenance[REFERENCE]["max"]
    return 100 * (np.asarray(returns) - low) / (high - low)
