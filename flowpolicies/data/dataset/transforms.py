"""What papers do to rewards before they train: named maps of a reward, the same for the data and for experience."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from flowpolicies.data.dataset.dataset import TransitionDataset

Array = npt.NDArray[Any]

RewardTransformName = Literal[
    "none", "sparse", "iql_locomotion", "iql_mujoco", "iql_antmaze", "cql_antmaze", "antmaze100", "normalize"
]
"""Names of reward transforms; `iql_mujoco` is another name of `iql_locomotion`."""


@dataclass(frozen=True, kw_only=True)
class RewardTransform:
    """scale * r + shift, or -1[r != 0].

    Two of the named ones depend on the dataset; `fit` has looked at it, so that environments get the same map.
    """

    name: RewardTransformName
    """What it is called."""
    scale: float = 1.0
    """Factor of the reward."""
    shift: float = 0.0
    """Added afterwards."""

    @staticmethod
    def fit(name: RewardTransformName, dataset: TransitionDataset | None) -> RewardTransform:
        """The transform of this name, with the numbers of `dataset`; None: online from nothing.

        none: r. sparse: -1 where r is not 0. iql_locomotion: 1000 r / (largest - smallest return of a trajectory).
        iql_antmaze: r - 1. cql_antmaze: 4 (r - 1/2). antmaze100: 100 r. normalize: (r - mean) / std.

        Raises:
            ValueError: for another name, or if the dataset's rewards do not allow it.
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
        """Rewards of any shape, as float32.

        Raises:
            ValueError: for a positive reward, if the transform is `sparse`.
        """
        if self.name == "sparse":
            _check_no_reward(rewards, "the environment")
            return np.where(rewards == 0, np.float32(0), np.float32(-1))
        return np.asarray(self.scale * np.asarray(rewards, np.float64) + self.shift, np.float32)

    def apply(self, dataset: TransitionDataset) -> TransitionDataset:
        """The dataset with transformed rewards; its provenance says so, and its fingerprint follows from the old one.

        It is the same for data in memory and in files, which are too much to be read and hashed again.
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
            "It is for tasks that count open parts, such as OGBench's scene, puzzle and cube."
        )
