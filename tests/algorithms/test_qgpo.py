"""Losses against the formulas, the phases, and what the energy of a noisy action converges to."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from batches import batch
from stubs import fail, view
from tiny import tiny
from torch import Tensor

from flowpolicies.algorithms import QGPO, QGPOConfig
from flowpolicies.algorithms.qgpo import behavior_loss, critic_loss, energy_loss
from flowpolicies.core import Networks, ReplayedNoise, UpdateSpec
from flowpolicies.flows import noise_level
from flowpolicies.networks import NoisyValue, UNet
from flowpolicies.samplers import EnergyGuided

BATCH = batch(
    torch.tensor([[0.3, -0.2], [0.8, 0.1]]),
    observations=torch.tensor([[0.5], [-1.0]]),
    next_observations=torch.tensor([[2.0], [-2.0]]),
    rewards=torch.tensor([1.0, -1.0]),
    discounts=torch.tensor([0.9, 0.0]),
    valid=torch.tensor([1.0, 0.0]),
)


def schedule_at(t: float) -> tuple[float, float]:
    alpha = math.exp(-19.9 * t**2 / 4 - 0.05 * t)
    return alpha, math.sqrt(1 - alpha**2)


def landed(action: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Where the solver ends, exactly, if the behaviour always predicts the noise of one action: not quite at it."""
    (early, little), (late, much) = schedule_at(1e-3), schedule_at(1.0)
    return early * action + little / much * (start - late * action)


def test_behaviour_learns_the_noise_summed_over_the_coordinates() -> None:
    seen = []

    def watch(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return torch.full_like(x, 0.25)

    u, z = torch.tensor([[0.5], [0.0]]), torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    nets = Networks(view(actor_diffusion=watch), view(), view())
    loss, _ = behavior_loss(nets, BATCH, ReplayedNoise(2, [u, z]), QGPOConfig())
    assert float(loss) == pytest.approx((0.75**2 + 2.25**2) / 2)
    (x, t) = seen[0]
    assert t.flatten().tolist() == pytest.approx([0.5005, 1e-3])
    alpha, sigma = schedule_at(0.5005)
    assert x[0].tolist() == pytest.approx([0.3 * alpha + sigma, -0.2 * alpha - 2 * sigma], rel=1e-5)


def point(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The noise, if the only action of a state is (s / 4, 0.1)."""
    alpha, sigma, _ = noise_level(t)
    action = torch.cat([s / 4, torch.full_like(s, 0.1)], -1)
    return (x - alpha * action) / sigma


def q(slope: float):
    return lambda s, a: slope * torch.stack([a[..., 0], a[..., 0] + 1.0])


def test_critic_learns_the_value_of_the_unguided_support() -> None:
    cfg = QGPOConfig(num_samples=3, support_steps=4)
    nets = Networks(view(critic=q(1.0)), view(actor_diffusion=point, inner_value=fail), view(critic=q(2.0)))
    _, metrics = critic_loss(nets, BATCH, ReplayedNoise(2, [torch.zeros(2, 3, 2)]), cfg)
    next_value = 2.0 * float(landed(np.array(2.0 / 4), np.array(0.0)))  # The lower critic.
    assert float(metrics["target_mean"]) == pytest.approx((1 + 0.9 * next_value - 1) / 2, rel=1e-5)


def test_energy_sees_one_time_per_state_and_noise_per_action() -> None:
    """Against the formulas in numpy; the behaviour has actions of +-0.5, by the sign of the noise."""
    behavior = lambda s, x, t: (x - noise_level(t).alpha * 0.5 * x.sign()) / noise_level(t).sigma
    f = lambda s, x, t: x[..., 0] * 1.5 - t[..., 0] * x[..., 1]
    cfg = QGPOConfig(num_samples=2, support_steps=6, alpha=1.7)
    start = torch.tensor([[[1.0, 1.0], [-1.0, 1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
    u, z = torch.tensor([[0.2], [0.7]]), torch.randn(2, 2, 2, generator=torch.Generator().manual_seed(0))
    nets = Networks(view(inner_value=f), view(actor_diffusion=behavior), view(critic=q(1.0)))
    loss, metrics = energy_loss(nets, BATCH, ReplayedNoise(2, [start, u, z]), cfg)
    actions, total = landed(0.5 * start.sign().numpy(), start.numpy()), []
    for b, uniform in enumerate((0.2, 0.7)):
        t = 1e-3 + 0.999 * uniform
        alpha, sigma = schedule_at(t)
        x = alpha * actions[b] + sigma * z[b].numpy()
        energies, values = x[:, 0] * 1.5 - t * x[:, 1], 1.7 * actions[b][:, 0]
        w = np.exp(values) / np.exp(values).sum()
        total.append(-(w * (energies - np.log(np.exp(energies).sum()))).sum())
    assert float(loss) == pytest.approx(np.mean(total), rel=1e-5)
    assert float(metrics["q_spread"]) == pytest.approx(actions[..., 0].std(1).mean(), rel=1e-5)
    assert actions[..., 0].std(0).mean() < 0.01  # Not over the states.


def test_critics_are_initialised_as_pytorch_does() -> None:
    torch.manual_seed(0)
    first = QGPOConfig().networks(0.005)["critic"].factory(13, 3).net.layers[0]
    for parameter in (first.weight, first.bias):  # Uniform within 1 / sqrt(16), biases too.
        assert 0.24 < float(parameter.detach().abs().max()) <= 0.25


def test_phases() -> None:
    cfg = QGPOConfig(pretrain_steps=2, critic_steps=1)
    steps = [cfg.update_spec(i) for i in range(5)]
    alone = [UpdateSpec(((name,),), (), targets_first=False) for name in ("behavior", "energy")]
    assert steps == [
        alone[0],
        alone[0],
        UpdateSpec((("critic",), ("energy",)), targets_first=False),
        alone[1],
        alone[1],
    ]


def test_what_is_trained_when(data) -> None:
    model = tiny(QGPO, dataset=data)
    everything = lambda: {key: tensor.clone() for key, tensor in model.policy.state_dict().items()}
    for expected in (
        {"networks.actor_diffusion"},
        {"networks.critic", "networks.inner_value", "targets.critic"},
        {"networks.inner_value"},
    ):
        before = everything()
        model.learn_offline(1)
        after = everything()
        moved = {".".join(key.split(".")[:2]) for key in before if not torch.equal(before[key], after[key])}
        assert moved == expected


def test_networks_and_sampler_of_the_spec() -> None:
    nets = QGPOConfig().networks(0.005)
    assert nets["actor_diffusion"].learning_rate == 1e-4
    assert [name for name, n in nets.items() if n.target_rate is not None] == ["critic"]
    energy, behavior = nets["inner_value"].factory(11, 3), nets["actor_diffusion"].factory(11, 3)
    assert isinstance(behavior, UNet)
    assert isinstance(energy, NoisyValue)
    assert [layer.weight.shape[-1] for layer in energy.net.layers] == [256] * 4
    assert QGPOConfig(guidance_scale=4.0).sampler() == EnergyGuided(guidance_scale=4.0, steps=15)


def test_energy_of_noisy_actions_is_the_log_mean_of_what_they_may_come_from() -> None:
    """Two equally likely actions +-0.5 with Q = a: gradient steps on a table of energies, at one time, over x.

    The minimiser is log E[exp(alpha Q) | x_t], up to a constant: here it is compared at bins of x.
    """
    g, t, bins = torch.Generator().manual_seed(0), torch.tensor([[0.3]]), torch.linspace(-1.5, 1.5, 13)
    table = torch.zeros(12, requires_grad=True)
    look_up = lambda s, x, t: table[(torch.bucketize(x[..., 0], bins) - 1).clamp(0, 11)]
    behavior = lambda s, x, t: (x - noise_level(t).alpha * 0.5 * x.sign()) / noise_level(t).sigma
    value = view(critic=lambda s, a: a[None, ..., 0])
    nets = Networks(view(inner_value=look_up), view(actor_diffusion=behavior), value)
    n, m = 400, 16
    optimizer, cfg = torch.optim.Adam([table], 0.05), QGPOConfig(num_samples=m, support_steps=2, alpha=2.0)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 300)
        draws = [torch.randn(n, m, 1, generator=g), t.expand(n, 1), torch.randn(n, m, 1, generator=g)]
        optimizer.zero_grad()
        energy_loss(nets, batch(torch.zeros(n, 1)), ReplayedNoise(1, draws), cfg)[0].backward()
        optimizer.step()
    alpha, sigma = schedule_at(1e-3 + 0.999 * 0.3)
    x = np.linspace(-1.5, 1.5, 12 * 50 + 1)[:-1].reshape(12, 50) + 1.5 / 600
    likely = {a: np.exp(-((x - alpha * a) ** 2) / (2 * sigma**2)) for a in (0.5, -0.5)}
    tilted = sum(np.exp(2.0 * a) * p for a, p in likely.items()).sum(1) / sum(likely.values()).sum(1)
    found, expected = table.detach().numpy()[2:-2], np.log(tilted)[2:-2]
    np.testing.assert_allclose(found - found.mean(), expected - expected.mean(), atol=0.06)
    assert np.ptp(expected) > 0.5
