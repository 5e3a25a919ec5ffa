"""Diffusion-QL against a transcription in numpy and double precision of arXiv 2208.06193."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import tiny
from twin_critics import BATCH, ROWS, critics, networks, next_states, normal, written_critic_loss

from flowpolicies.algorithms import DiffusionQL, DiffusionQLConfig
from flowpolicies.algorithms.diffusion_ql import actor_loss, critic_loss
from flowpolicies.core import ReplayedNoise
from flowpolicies.samplers import Denoise, SoftmaxOfN

T, COIN = 3, 0.3
GENERATOR = torch.Generator().manual_seed(2)
LEVELS, EPS = torch.tensor([0, 2, 1, 1, 0]), normal(GENERATOR, ROWS, 2)
START, STEPS = 0.5 * normal(GENERATOR, ROWS, 2), 0.5 * normal(GENERATOR, T, ROWS, 2)


def predict(s, x, t, theta):
    """Stands for the noise prediction; for arrays and tensors alike."""
    return theta * x + 0.2 * s + 0.1 * t


def chain(s: np.ndarray, start: np.ndarray, steps: np.ndarray, theta: float) -> np.ndarray:
    """The reverse chain of S2 with the vp schedule and indices from 0."""
    alpha = np.exp([-0.1 / T - 9.9 * (2 * t - 1) / (2 * T**2) for t in range(1, T + 1)])
    abar, x = np.cumprod(alpha), start
    for k, i in enumerate(reversed(range(T))):
        before = abar[i - 1] if i else 1.0
        clean = ((x - np.sqrt(1 - abar[i]) * predict(s, x, i, theta)) / np.sqrt(abar[i])).clip(-1, 1)
        mean = np.sqrt(before) * (1 - alpha[i]) * clean + np.sqrt(alpha[i]) * (1 - before) * x
        x = mean / (1 - abar[i])
        if i:
            x = x + np.sqrt((1 - alpha[i]) * (1 - before) / (1 - abar[i])) * steps[k]
    return x.clip(-1, 1)


def written_actor_loss(theta: float, eta: float, divisor: float | None = None) -> tuple[float, float]:
    """The loss, and the divisor of Q, which counts as a constant."""
    s, a, eps, level = (c.numpy() for c in (BATCH.observations, BATCH.actions, EPS, LEVELS))
    abar = np.exp(np.cumsum([-0.1 / T - 9.9 * (2 * t - 1) / (2 * T**2) for t in range(1, T + 1)]))[level][:, None]
    x = np.sqrt(abar) * a + np.sqrt(1 - abar) * eps
    error = ((predict(s, x, level[:, None], theta) - eps) ** 2).mean(-1)
    climbed, other = critics(s, chain(s, START.numpy(), STEPS.numpy(), theta))
    divisor = np.abs(other).mean() if divisor is None else divisor
    return (BATCH.valid.numpy() * error).mean() - eta * climbed.mean() / divisor, divisor


def test_actor_loss_and_its_gradient_through_the_chain() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    cfg = DiffusionQLConfig(diffusion_steps=T, eta=0.7)
    noise = ReplayedNoise(2, [LEVELS, EPS, START, *STEPS, torch.tensor(COIN)])
    loss, metrics = actor_loss.fn(networks("actor_diffusion", predict, theta, 0.1), BATCH, noise, cfg)
    expected, divisor = written_actor_loss(0.4, 0.7)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    assert loss.item() == pytest.approx((metrics["bc_loss"] + 0.7 * metrics["q_loss"]).item())
    (gradient,) = torch.autograd.grad(loss, theta)
    ends = [written_actor_loss(0.4 + h, 0.7, divisor)[0] for h in (1e-6, -1e-6)]
    assert gradient.item() == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("n", [1, 10])
def test_critic_loss(n: int) -> None:
    start, steps = 0.5 * normal(GENERATOR, ROWS, n, 2), 0.5 * normal(GENERATOR, T, ROWS, n, 2)
    nets = networks("actor_diffusion", predict, torch.tensor(0.4), 0.1)
    cfg = DiffusionQLConfig(diffusion_steps=T, max_q_backup=n == 10)
    loss, metrics = critic_loss.fn(nets, BATCH, ReplayedNoise(2, [start, *steps]), cfg)
    expected, target = written_critic_loss(chain(next_states(n), start.numpy(), steps.numpy(), 0.1))
    assert float(loss) == pytest.approx(expected, rel=1e-10)
    assert float(metrics["target_mean"]) == pytest.approx(target, rel=1e-10)


def test_the_slow_actor_waits_and_then_moves_rarely() -> None:
    cfg = DiffusionQLConfig()
    moving = [step for step in range(1020) if cfg.update_spec(step).target_updates is None]
    assert moving == [1000, 1005, 1010, 1015]
    others = {cfg.update_spec(step) for step in range(1020) if step not in moving}
    assert [(step.stages, step.target_updates, step.targets_first) for step in others] == [
        ((("critic",), ("actor",)), ("critic",), False)
    ]


def test_slow_copies_follow_the_weights_after_the_step(data) -> None:
    model = tiny(DiffusionQL, dataset=data, ema_start=2, ema_every=2, ema=0.9, tau=0.05)
    networks, targets = model.policy.networks, model.policy.targets
    flat = lambda module: torch.cat([p.detach().flatten() for p in module.parameters()]).clone()
    for step in range(5):
        slow = {name: flat(targets[name]) for name in targets}
        model.learn_offline(1)
        critic = 0.95 * slow["critic"] + 0.05 * flat(networks["critic"])
        torch.testing.assert_close(flat(targets["critic"]), critic, atol=1e-7, rtol=0)
        actor = slow["actor_diffusion"]
        if step in (2, 4):
            actor = 0.9 * actor + 0.1 * flat(networks["actor_diffusion"])
        torch.testing.assert_close(flat(targets["actor_diffusion"]), actor, atol=1e-7, rtol=0)


def test_networks_rates_clips_and_sampler() -> None:
    cfg = DiffusionQLConfig(clip_grad_norm=7.0)
    specs = cfg.networks(0.005)
    assert {name: (s.target_rate, s.learning_rate, s.clip_grad_norm) for name, s in specs.items()} == {
        "critic": (0.005, 3e-4, 7.0),
        "actor_diffusion": (pytest.approx(0.005), None, 7.0),
    }
    actor, critic = (specs[name].factory(17, 6) for name in ("actor_diffusion", "critic"))
    assert [tuple(p.shape) for p in actor.time.parameters()] == [(16, 32), (32,), (32, 16), (16,)]
    assert [tuple(layer.weight.shape) for layer in actor.net.layers] == [(39, 256), (256, 256), (256, 256)]
    assert critic.net.norms is None
    assert critic.net.layers[0].weight.shape == (2, 23, 256)
    assert critic.net.layers[0].bias.abs().max().item() == pytest.approx(23**-0.5, rel=0.02)
    denoise = Denoise("actor_diffusion", 5, "vp", 0, "posterior")
    assert cfg.sampler() == SoftmaxOfN(denoise, 50, "critic", "min")


def test_acts_with_the_trained_actor_and_the_slow_critics(data) -> None:
    model = tiny(DiffusionQL, dataset=data)
    for explore in (False, True):
        seen = model.policy.view(explore)
        assert seen.actor_diffusion.module is model.policy.networks["actor_diffusion"]
        assert seen.critic.module is model.policy.targets["critic"]
