"""Tiny algorithms for contract tests."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.data import TransitionDataset


def tiny(cls: type[OfflineAlgorithm], **options: Any) -> OfflineAlgorithm:
    """A small, seeded model."""
    sizes = {"actor_hidden_dims": (16, 16), "value_hidden_dims": (16, 16)}
    sizes |= {"flow_steps": 3, "diffusion_steps": 3, "num_samples": 4}
    sizes |= {"next_samples": 2, "solver_steps": 3, "support_steps": 3, "energy_hidden_dims": (16, 16)}
    sizes |= {"pretrain_steps": 1, "critic_warmup": 1, "actor_warmup": 0, "actor_every": 1, "critic_steps": 1}
    return cls(**{"batch_size": 32, "seed": 0, "device": "cpu", **known(cls, sizes), **options})


def known(cls: type[OfflineAlgorithm], hyperparameters: dict[str, Any]) -> dict[str, Any]:
    """Those of the hyperparameters that the algorithm has."""
    return {name: value for name, value in hyperparameters.items() if name in cls.Config.__dataclass_fields__}


def pendulum_data(n: int = 400, seed: int = 0) -> TransitionDataset:
    """Random transitions in Pendulum's spaces; episodes of 50 steps, half of them terminated."""
    rng, env = np.random.default_rng(seed), gym.make("Pendulum-v1")
    end = np.arange(n) % 50 == 49
    return TransitionDataset.from_arrays(
        rng.normal(size=(n, 3)).astype(np.float32),
        rng.uniform(-2, 2, (n, 1)).astype(np.float32),
        rng.normal(size=n),
        rng.normal(size=(n, 3)).astype(np.float32),
        terminations=end & (np.arange(n) % 100 == 99),
        truncations=end,
        observation_space=env.observation_space,
        action_space=env.action_space,
    )
