from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from flowpolicies.algorithms import FQL
from flowpolicies.data import TransitionDataset
from flowpolicies.training import rollout


def test_a_rollout_is_a_dataset_of_what_happened(make_model: Any, tmp_path: Path) -> None:
    policy = make_model().policy
    dataset, found = rollout(policy, gym.make("Reach-v0"), 3, seed=1, name="mine", provenance={"policy": "x"})
    assert (len(dataset), dataset.num_episodes, len(found)) == (24, 3, 3)
    assert dataset.provenance == {"name": "mine", "policy": "x"}
    inside = dataset.terminals[:-1] == 0
    np.testing.assert_array_equal(dataset.next_observations[:-1][inside], dataset.observations[1:][inside])
    assert (dataset.next_observations[:-1][~inside] != dataset.observations[1:][~inside]).all()
    moved = dataset.observations + np.float32(0.2) * dataset.actions
    np.testing.assert_allclose(dataset.next_observations, moved, rtol=1e-6)
    np.testing.assert_allclose(dataset.rewards.reshape(3, 8).sum(1), found.returns, rtol=1e-5)
    assert dataset.masks.all()  # A time limit is no termination.
    dataset.save(tmp_path / "rollout.npz")
    again = TransitionDataset.load(tmp_path / "rollout.npz")
    assert again.fingerprint == dataset.fingerprint
    FQL(dataset=again, actor_hidden_dims=(8,), value_hidden_dims=(8,), batch_size=4).learn_offline(1)


def test_a_rollout_is_a_function_of_its_seed(make_model: Any) -> None:
    policy = make_model().policy
    prints = [rollout(policy, gym.make("Reach-v0"), 2, seed=seed)[0].fingerprint for seed in (1, 1, 2)]
    assert prints[0] == prints[1] != prints[2]


def test_dict_observations_are_kept_apart() -> None:
    class Dictionary(gym.ObservationWrapper[Any, Any, Any]):
        def __init__(self, env: gym.Env[Any, Any]) -> None:
            super().__init__(env)
            self.observation_space = gym.spaces.Dict({"x": env.observation_space})

        def observation(self, observation: Any) -> Any:
            return {"x": observation}

    model = FQL(env=Dictionary(gym.make("Reach-v0")), actor_hidden_dims=(8,), value_hidden_dims=(8,))
    dataset, _ = rollout(model.policy, Dictionary(gym.make("Reach-v0")), 2, seed=0)
    assert isinstance(dataset.observations, dict)
    assert dataset.observations["x"].shape == (16, 1)
