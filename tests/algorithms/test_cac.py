"""CAC against a transcription in numpy and double precision of arXiv 2309.16984."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tiny import tiny
from twin_critics import BATCH, ROWS, critics, networks, next_states, normal, written_critic_loss

from flowpolicies.algorithms import CAC, CACConfig, DiffusionQLConfig
from flowpolicies.algorithms.cac import actor_loss, critic_loss
from flowpolicies.core import ReplayedNoise
from flowpolicies.samplers import Consistency, SoftmaxOfN

COIN, UPDATES, LEVELS = 0.8, 25_000, 107
GENERATOR = torch.Generator().manual_seed(2)
U = torch.tensor([[0.0], [0.3], [0.5], [0.77], [0.9999]], dtype=torch.float64)
Z, DRAWS = normal(GENERATOR, ROWS, 2), 0.02 * normal(GENERATOR, 2, ROWS, 2)


def network(s, x, t, theta):
    """Stands for F; for arrays and tensors alike."""
    return theta * np.sin(x) * s + 0.01 * t if isinstance(x, np.ndarray) else theta * x.sin() * s + 0.01 * t


def f(s: np.ndarray, x: np.ndarray, t: np.ndarray | float, theta: float) -> np.ndarray:
    skip = 0.25 / ((t - 0.002) ** 2 + 0.25)
    return skip * x + 0.5 * (t - 0.002) / np.sqrt(t**2 + 0.25) * network(s, x, t, theta)


def sample(s: np.ndarray, draws: np.ndarray, theta: float) -> np.ndarray:
    x = f(s, 80 * draws[0], 80.0, theta)
    return f(s, x + math.sqrt(2.0**2 - 0.002**2) * draws[1], 2.0, theta).clip(-1, 1)


def written_actor_loss(theta: float, slow: float, eta: float, divisor: float | None = None) -> tuple[float, float]:
    """The loss, and the divisor of Q, which counts as a constant."""
    s, a, z = (c.numpy() for c in (BATCH.observations, BATCH.actions, Z))
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    n = np.floor(U.numpy() * (LEVELS - 1))
    less, more = ((low + i / (LEVELS - 1) * (high - low)) ** 7 for i in (n, n + 1))
    error = (f(s, a + more * z, more, theta) - f(s, a + less * z, less, slow)) ** 2 * 100 / (more - less)
    other, climbed = critics(s, sample(s, DRAWS.numpy(), theta))
    divisor = np.abs(other).mean() if divisor is None else divisor
    return (BATCH.valid.numpy() * error.mean(-1)).mean() - eta * climbed.mean() / divisor, divisor


def test_actor_loss_and_its_gradient_through_the_sampler() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    noise = ReplayedNoise(2, [U, Z, *DRAWS, torch.tensor(COIN)])
    nets = networks("actor_onestep", network, theta, 0.1, UPDATES)
    loss, metrics = actor_loss.fn(nets, BATCH, noise, CACConfig(eta=300.0))
    expected, divisor = written_actor_loss(0.4, 0.1, 300.0)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    assert float(metrics["levels"]) == LEVELS
    (gradient,) = torch.autograd.grad(loss, theta)
    ends = [written_actor_loss(0.4 + h, 0.1, 300.0, divisor)[0] for h in (1e-6, -1e-6)]
    assert gradient.item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(("n", "q_norm"), [(1, False), (10, False), (10, True)])
def test_critic_loss(n: int, q_norm: bool) -> None:
    draws = 0.02 * normal(GENERATOR, 2, ROWS, n, 2)
    nets = networks("actor_onestep", network, torch.tensor(0.4), 0.1)
    cfg = CACConfig(max_q_backup=n == 10, q_norm=q_norm)
    loss, metrics = critic_loss.fn(nets, BATCH, ReplayedNoise(2, [*draws]), cfg)
    expected, target = written_critic_loss(sample(next_states(n), draws.numpy(), 0.1), q_norm)
    assert float(loss) == pytest.approx(expected, rel=1e-10)
    assert float(metrics["target_mean"]) == pytest.approx(target, rel=1e-10)


def written_levels(update: int, period: int) -> int:
    return math.ceil(math.sqrt(update % period * (150**2 - 2**2) / period + 4) - 1) + 1


@pytest.mark.parametrize("backend", [False, "eager"])
def test_the_curriculum_of_a_model_grows_starts_again_and_survives_saving(backend: str | bool, data, tmp_path) -> None:
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,)}
    model = tiny(CAC, dataset=data, curriculum_steps=4, compile=backend, **sizes)

    def levels(model: CAC, updates: int) -> list[int]:
        found = []
        for _ in range(updates):
            model.train(1, 32)
            found.append(int(model._means.pop()["actor/levels"]))
        return found

    model.learn_offline(0)
    assert levels(model, 6) == [written_levels(i, 4) for i in range(6)] == [2, 76, 107, 130, 2, 76]
    model.save(tmp_path / "model.zip")
    loaded = CAC.load(tmp_path / "model.zip", device="cpu")
    loaded.set_dataset(data)
    assert levels(loaded, 3) == [written_levels(i, 4) for i in (6, 7, 8)]


def test_order_and_slow_copies_are_those_of_diffusion_ql() -> None:
    for step in (0, 999, 1000, 1001, 1005):
        assert CACConfig().update_spec(step) == DiffusionQLConfig().update_spec(step)


def test_networks_and_sampler() -> None:
    cfg = CACConfig(clip_grad_norm=9.0, consistency_steps=5)
    specs = cfg.networks(0.005)
    assert {name: (s.target_rate, s.learning_rate, s.clip_grad_norm) for name, s in specs.items()} == {
        "critic": (0.005, 3e-4, 9.0),
        "actor_onestep": (pytest.approx(0.005), None, 9.0),
    }
    actor = specs["actor_onestep"].factory(17, 6)
    assert [tuple(p.shape) for p in actor.time.parameters()] == [(16, 32), (32,), (32, 16), (16,)]
    assert actor.embed.frequencies[0] == 1
    assert actor.embed.frequencies[-1] == pytest.approx(1e-4)
    assert cfg.sampler() == SoftmaxOfN(Consistency(steps=5), 50, "critic", "min")
