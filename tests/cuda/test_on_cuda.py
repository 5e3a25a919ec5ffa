"""Every algorithm keeps its promises on a CUDA device: `pytest -m gpu` on a machine that has one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny import tiny

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.policies import FlowPolicy
from flowpolicies.training.seeds.together import update_together

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
OBSERVATIONS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


@pytest.mark.parametrize("data_device", ["cpu", "model"])
def test_a_policy_acts_on_the_cpu_as_on_the_gpu_that_trained_it(
    algorithm: type[OfflineAlgorithm], data_device: str, horizon: int, data: Any, tmp_path: Path
) -> None:
    options: dict[str, Any] = {} if algorithm.windows == "episodes" else {"data_device": data_device}
    model = tiny(algorithm, dataset=data, device="cuda", horizon=horizon, replay_buffer_kwargs=options)
    model.train(4)
    assert all(torch.isfinite(value).all() for value in model.policy.parameters())
    model.policy.save(str(tmp_path / "policy.safetensors"))
    found = [FlowPolicy.load(tmp_path / "policy.safetensors", device=name) for name in ("cpu", "cuda")]
    assert [policy.device.type for policy in found] == ["cpu", "cuda"]
    cpu, cuda = (policy.predict(OBSERVATIONS, deterministic=True)[0] for policy in found)
    assert np.ptp(cpu) > 0 or (np.abs(cpu) == 2).all()  # Diffusion that begins at zero noise ends at the bound.
    np.testing.assert_allclose(cuda, cpu, atol=1e-4)


def test_a_saved_model_continues_on_the_gpu(algorithm: type[OfflineAlgorithm], data: Any, tmp_path: Path) -> None:
    model = tiny(algorithm, dataset=data, device="cuda")
    model.train(3)
    model.save(tmp_path / "model.zip")
    model.train(3)
    other = algorithm.load(tmp_path / "model.zip", dataset=data, device="cuda", trust=True)
    other.train(3)
    for name, value in model.policy.state_dict().items():
        torch.testing.assert_close(other.policy.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["qflow", "fql", "rql", "sac"])
def test_training_goes_on_online(name: str, data: Any) -> None:
    env = gym.make("Pendulum-v1", max_episode_steps=20)
    model = tiny(get_algorithm(name), env=env, dataset=data, device="cuda", learning_starts=10)
    model.train(2)
    model.learn(60)
    assert model.num_timesteps == 60
    assert all(torch.isfinite(value).all() for value in model.policy.parameters())


@pytest.mark.parametrize("name", ["qflow", "fql"])
def test_compiled_seeds_train_together_as_alone(name: str, data: Any) -> None:
    seeds = range(3)
    alone, together = (
        [tiny(get_algorithm(name), dataset=data, device="cuda", compile=True, seed=seed) for seed in seeds]
        for _ in range(2)
    )
    for model in together:
        model.learn_offline(0)  # Makes the logger that an update writes to.
    group = update_together(together)
    for _ in range(3):
        group.train()
    for one, other in zip(alone, together, strict=True):
        one.train(3)
        for key, value in one.policy.state_dict().items():
            torch.testing.assert_close(other.policy.state_dict()[key], value, rtol=1e-3, atol=1e-4, msg=key)
