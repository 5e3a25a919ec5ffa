"""Weights against numpy, the exact tilt in a case with two actions, and when the support is renewed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from batches import batch, column
from scipy.special import softmax
from stubs import fail, view
from tiny import tiny
from torch import Tensor

from flowpolicies.algorithms import QIPOConfig, QIPOFull, QIPOFullConfig
from flowpolicies.algorithms.qipo import actor_loss, critic_loss, support_loss, weighted_support
from flowpolicies.core import Networks, ReplayedNoise, UpdateSpec

ROWS = batch(column(0.3, -1.0), rewards=torch.tensor([1.0, 2.0]), discounts=torch.full((2,), 0.9))


def two_atoms(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """A flow whose one Euler step ends at 0.5 or -0.5, by the sign of the noise."""
    return 0.5 * x.sign() - x


def critic(slope: float):
    return lambda s, a: slope * torch.stack([a[..., 0] + 0.2, a[..., 0] - 0.2])


def networks(velocity: float = 0.0, slope: float = 3.0, support: str = "frozen") -> Networks:
    """The trained flow is a constant; the critic of the loss is the current one."""
    nothing = lambda s, a: torch.zeros(2, *a.shape[:-1])
    constant = view(actor_flow=lambda s, x, t: torch.full_like(x, velocity), critic=nothing)
    other = {"frozen": "target", "target": "frozen"}[support]
    flows = {support: two_atoms, other: fail}
    return Networks(
        constant,
        view(actor_flow=flows["frozen"], critic=critic(slope)),
        view(actor_flow=flows["target"], critic=critic(10 * slope)),
    )


SUPPORT = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, -0.1]])[..., None]


@pytest.mark.parametrize("config", [QIPOConfig, QIPOFullConfig])
def test_weights_equal_numpy_with_the_data_first(config) -> None:
    cfg = config(num_samples=3, flow_steps=1, beta=0.8, rho=0.5)
    nets = networks(support=config.support)
    actions, weights = weighted_support(nets, ROWS, ReplayedNoise(1, [SUPPORT]), cfg)
    expected = np.concatenate([[[0.3], [-1.0]], 0.5 * np.sign(SUPPORT.numpy()[..., 0])], 1)
    np.testing.assert_allclose(actions[..., 0], expected)
    pessimistic = 3.0 * expected - 0.5 * 3.0 * 0.2  # mean - rho std over the two critics.
    np.testing.assert_allclose(weights, softmax(0.8 * pessimistic, -1), rtol=1e-5)


@pytest.mark.parametrize("config", [QIPOConfig, QIPOFullConfig])
def test_weights_are_even_when_all_actions_are_equally_good(config) -> None:
    nets, cfg = networks(slope=0.0, support=config.support), config(num_samples=3, flow_steps=1, beta=50.0)
    _, weights = weighted_support(nets, ROWS, ReplayedNoise(1, [SUPPORT]), cfg)
    torch.testing.assert_close(weights, torch.full((2, 4), 1 / 4))


def test_indifference_is_a_share_of_cloning_or_all_of_it() -> None:
    nets, x_0, t = networks(velocity=0.1, slope=0.0), torch.tensor([[0.4], [1.0]]), torch.full((2, 1), 0.5)
    cloning = np.mean([(0.1 - (0.3 - 0.4)) ** 2, (0.1 - (-1.0 - 1.0)) ** 2])
    for normalize, share in ((False, 1 / 4), (True, 1.0)):
        cfg = QIPOConfig(num_samples=3, flow_steps=1, normalize_weights=normalize)
        loss, metrics = actor_loss(nets, ROWS, ReplayedNoise(1, [SUPPORT, x_0, t]), cfg)
        assert float(loss) == pytest.approx(share * cloning, rel=1e-5)
        assert float(metrics["weight"]) == pytest.approx(1 / 4)


def test_only_valid_rows_count() -> None:
    nets, t = networks(velocity=0.1, slope=0.0, support="target"), torch.full((2, 4, 1), 0.5)
    noise = [SUPPORT, torch.zeros(2, 4, 1), t]
    cfg = QIPOFullConfig(num_samples=3, flow_steps=1)
    loss, _ = support_loss(nets, ROWS._replace(valid=torch.tensor([1.0, 0.0])), ReplayedNoise(1, noise), cfg)
    members = np.array([0.3, 0.5, -0.5, 0.5])
    assert float(loss) == pytest.approx(((0.1 - members) ** 2).mean() / 2, rel=1e-5)


def test_the_weight_of_the_data_is_logged() -> None:
    cfg, nets = QIPOFullConfig(num_samples=3, flow_steps=1, beta=0.8), networks(support="target")
    noise = [SUPPORT, torch.zeros(2, 4, 1), torch.full((2, 4, 1), 0.5)]
    _, metrics = support_loss(nets, ROWS, ReplayedNoise(1, noise), cfg)
    members = np.concatenate([[[0.3], [-1.0]], 0.5 * np.sign(SUPPORT.numpy()[..., 0])], 1)
    assert float(metrics["weight"]) == pytest.approx(softmax(0.8 * 3 * members, -1)[:, 0].mean(), rel=1e-5)


def best_constant(loss) -> float:
    """Where a loss that is a parabola in a constant velocity is least."""
    low, middle, high = (float(loss(c)) for c in (-1.0, 0.0, 1.0))
    return (low - high) / (2 * (low + high - 2 * middle))


TILTED = 0.5 * math.tanh(0.8 * 3.0 * 0.5)
"""Mean action of behaviour times exp(beta Q), for actions +-0.5 that are equally likely, beta = 0.8 and Q = 3 a."""


def test_data_only_regression_is_exactly_that_of_the_tilted_policy() -> None:
    """Both actions of the data, each against the other one: from x_0 = 0 the best velocity is the mean action."""

    def loss(velocity: float) -> Tensor:
        noise = [torch.tensor([-1.0, 1.0])[:, None, None], torch.zeros(2, 1), torch.full((2, 1), 0.5)]
        cfg = QIPOConfig(num_samples=1, flow_steps=1, beta=0.8)
        return actor_loss(networks(velocity), batch(column(0.5, -0.5)), ReplayedNoise(1, noise), cfg)[0]

    assert best_constant(loss) == pytest.approx(TILTED, rel=1e-5)


def test_full_support_regression_is_exactly_that_of_the_tilted_policy() -> None:
    """One row is enough: both actions are members of its support."""

    def loss(velocity: float) -> Tensor:
        noise = [torch.tensor([[[-1.0]]]), torch.zeros(1, 2, 1), torch.full((1, 2, 1), 0.5)]
        cfg = QIPOFullConfig(num_samples=1, flow_steps=1, beta=0.8)
        return support_loss(networks(velocity, support="target"), batch(column(0.5)), ReplayedNoise(1, noise), cfg)[0]

    assert best_constant(loss) == pytest.approx(TILTED, rel=1e-5)


def test_each_member_has_noise_and_time_of_its_own() -> None:
    seen = []

    def watch(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return torch.zeros_like(x)

    nets = networks(support="target")._replace(online=view(actor_flow=watch))
    x_0, t = torch.tensor([[[0.5], [-1.0]]]), torch.tensor([[[0.25], [0.75]]])
    cfg = QIPOFullConfig(num_samples=1, flow_steps=1, beta=0.0)
    loss, _ = support_loss(nets, batch(column(0.3)), ReplayedNoise(1, [torch.tensor([[[1.0]]]), x_0, t]), cfg)
    torch.testing.assert_close(seen[0][0], torch.tensor([[[0.75 * 0.5 + 0.25 * 0.3], [0.25 * -1.0 + 0.75 * 0.5]]]))
    assert float(loss) == pytest.approx(((0.3 - 0.5) ** 2 + (0.5 + 1.0) ** 2) / 2, rel=1e-5)


@pytest.mark.parametrize("config", [QIPOConfig, QIPOFullConfig])
def test_critic_learns_the_soft_value_of_the_next_support(config) -> None:
    cfg = config(num_samples=3, flow_steps=1, beta=0.8)
    _, metrics = critic_loss(networks(support=config.support), ROWS, ReplayedNoise(1, [SUPPORT]), cfg)
    q = 30.0 * 0.5 * np.sign(SUPPORT.numpy()[..., 0])
    y = np.array([1.0, 2.0]) + 0.9 * (softmax(0.8 * q, -1) * q).sum(-1)
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-5)


def test_phases_of_the_full_form() -> None:
    cfg = QIPOFullConfig(pretrain_steps=2, critic_warmup=1, renew_every=3)
    flow, values = (
        UpdateSpec((("flow_matching",),), ("actor_flow",), targets_first=False),
        UpdateSpec((("critic",),), ("critic",), targets_first=False),
    )
    both = UpdateSpec((("critic", "support"),), ("critic",), targets_first=False)
    steps = [cfg.update_spec(i) for i in range(9)]
    assert steps == [
        flow,
        flow,
        values,
        both,
        both,
        both._replace(target_updates=None),
        both,
        both,
        both._replace(target_updates=None),
    ]


def test_support_comes_from_the_flow_of_the_last_renewal(data) -> None:
    model = tiny(QIPOFull, dataset=data, pretrain_steps=2, critic_warmup=1, renew_every=3)
    weights = lambda tree: torch.cat([p.flatten().clone() for p in tree["actor_flow"].parameters()])
    copies, flows = [], []
    for _ in range(9):
        model.learn_offline(1)
        copies.append(weights(model.policy.targets))
        flows.append(weights(model.policy.networks))
    same = [torch.equal(a, b) for a, b in zip(copies, flows, strict=True)]
    assert same == [True, True, True, False, False, True, False, False, True]
    assert all(torch.equal(copies[i], copies[2]) for i in (3, 4))
    assert all(torch.equal(copies[i], copies[5]) for i in (6, 7))


def test_default_form_is_one_joint_update_without_a_slow_flow() -> None:
    assert QIPOConfig().update_spec(0) == UpdateSpec()
    nets = QIPOConfig().networks(0.005)
    assert {name: n.target_rate for name, n in nets.items()} == {"critic": 0.005, "actor_flow": None}
