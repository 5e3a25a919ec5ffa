"""QSM in both forms: noise regressed onto -grad Q by hand, its chains, and the order of an update (7, 3.15)."""

from __future__ import annotations

import math

import pytest
import torch
from noisy_rows import EPS, ROWS, alphas, column, noised, parabolas, replay, rows
from stubs import view
from tiny import tiny
from torch import Tensor
from trees import clone

from flowpolicies.algorithms import QSMConfig, QSMOnline, QSMOnlineConfig
from flowpolicies.algorithms.qsm import actor_loss
from flowpolicies.algorithms.qsm_online import actor_loss as published_actor_loss
from flowpolicies.algorithms.qsm_online import critic_loss as published_critic_loss
from flowpolicies.core import Networks, ReplayedNoise, View

NOTHING = view()


@pytest.mark.parametrize("valid", [(1.0, 1.0), (1.0, 0.0)])
def test_the_ogbench_loss_by_hand(valid: tuple[float, float]) -> None:
    nets = Networks(view(actor_diffusion=lambda s, x, t: 0.3 * x + 0.1 * t), NOTHING, view(critic=parabolas))
    cfg = QSMConfig(alpha=0.3, inv_temp=2.0)
    loss, info = actor_loss(nets, rows(valid=torch.tensor(valid, dtype=torch.float64)), replay(), cfg)
    bc, score = 0.0, 0.0
    for (action, level, eps), weight in zip(ROWS, valid, strict=True):
        x = noised(action, level, eps, 10)
        eps_hat = 0.3 * x + 0.1 * (level + 1)
        bc += weight * (eps_hat - eps) ** 2 / 2
        score += weight * (-2.0 * (3 * x - 0.5) - eps_hat) ** 2 / 2
    assert float(info["bc_loss"]) == pytest.approx(bc, rel=1e-7)
    assert float(info["score_error"]) == pytest.approx(score, rel=1e-7)
    assert float(loss) == pytest.approx(0.3 * bc + score, rel=1e-7)


def test_the_noise_is_between_the_data_and_minus_the_gradient() -> None:
    """The loss is least at (alpha eps - kappa G) / (alpha + 1)."""
    slope = column(2.0, -4.0)
    eps_hat = ((0.5 * EPS - 3.0 * slope) / 1.5).requires_grad_()
    nets = Networks(
        view(actor_diffusion=lambda s, x, t: eps_hat),
        NOTHING,
        view(critic=lambda s, a: (slope * a).squeeze(-1).expand(3, 2)),
    )
    loss, _ = actor_loss(nets, rows(), replay(), QSMConfig(alpha=0.5, inv_temp=3.0))
    (gradient,) = torch.autograd.grad(loss, eps_hat)
    torch.testing.assert_close(gradient, torch.zeros(2, 1, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_published_loss_by_hand() -> None:
    """Levels are counted from 0, and the gradient is that of the trained critics."""
    seen = []

    def predict(s: Tensor, x: Tensor, t: Tensor) -> Tensor:
        seen.append(t.flatten().tolist())
        return 0.3 * x + 0.1 * t

    nets = Networks(view(actor_diffusion=predict), view(critic=parabolas), NOTHING)
    loss, info = published_actor_loss(nets, rows(), replay(), QSMOnlineConfig())
    points = [noised(*row, 5) for row in ROWS]
    errors = [(0.3 * x + 0.1 * t + 50 * (3 * x - 0.5)) ** 2 for x, t in zip(points, (0, 3), strict=True)]
    assert seen == [[0.0, 3.0]]
    assert float(loss) == pytest.approx(sum(errors) / 2, rel=1e-7)
    assert float(info["q_gradient"]) == pytest.approx(sum(abs(3 * x - 0.5) for x in points) / 2, rel=1e-7)


def test_published_targets_are_the_least_value_of_a_perturbed_action() -> None:
    """One level and eps_hat = 0: the chain gives clip(x / sqrt(alpha)). Q_1 = 2 a, Q_2 = -a."""
    x = column(0.3, 5.0) * math.sqrt(alphas(1)[0])
    draws = [x, column(9.0, 9.0), column(2.0, 1.0)]  # The chain's start, its unused z, and the perturbation.
    frozen = view(actor_diffusion=lambda s, x, t: torch.zeros_like(x))
    target = view(critic=lambda s, a: torch.stack([2 * a, -a]).squeeze(-1))
    nets = Networks(view(critic=lambda s, a: torch.zeros(2, 2)), frozen, target)
    _, info = published_critic_loss(nets, rows(), ReplayedNoise(1, draws), QSMOnlineConfig(diffusion_steps=1))
    assert float(info["target_mean"]) == pytest.approx(3 - 0.9 * (0.5 + 1.0) / 2, rel=1e-6)


def test_collection_is_perturbed_and_evaluation_is_not(data) -> None:
    cfg = QSMOnlineConfig(diffusion_steps=2)
    nets = view(actor_diffusion=lambda s, x, t: 0.5 * x)
    draws, extra = list(torch.randn(3, 64, 2, generator=torch.Generator().manual_seed(0))), torch.full((64, 2), 0.7)
    plain = cfg.sampler()(nets, torch.zeros(64, 3), ReplayedNoise(2, draws))
    collected = cfg.explorer()(nets, torch.zeros(64, 3), ReplayedNoise(2, [*draws, extra]))
    torch.testing.assert_close(collected, (plain + 0.07).clamp(-1, 1))
    model = tiny(QSMOnline, dataset=data)
    assert model.policy.explorer == model.cfg.explorer()
    assert model.policy.sampler == model.cfg.sampler()


def test_the_chain_jumps_to_its_estimate() -> None:
    """Two levels, eps_hat = 0.9 x - 0.01 t: x <- clip((x - sqrt(1 - abar) eps_hat) / sqrt(abar) + sqrt(beta) z)."""
    x, zs, (first, second) = 0.2, (0.3, 9.0), alphas(2)
    draws = [column(value) for value in (x, *zs)]
    nets = view(actor_diffusion=lambda s, x, t: 0.9 * x - 0.01 * t)
    ours = QSMConfig(diffusion_steps=2).sampler()(nets, torch.zeros(1, 1), ReplayedNoise(1, draws))
    for abar, beta, t, z in ((first * second, 1 - second, 2, zs[0]), (first, 1 - first, 1, 0.0)):
        x = (x - math.sqrt(1 - abar) * (0.9 * x - 0.01 * t)) / math.sqrt(abar) + math.sqrt(beta) * z
        x = min(max(x, -1.0), 1.0)
    assert abs(x) < 1
    assert float(ours) == pytest.approx(x, abs=1e-6)


def test_the_actor_follows_the_critics_as_just_updated(data) -> None:
    model = tiny(QSMOnline, dataset=data)
    learner, state, sampled = model._learner, model._state, model.replay_buffer.sample(32)
    step = model.cfg.update_spec(0)
    draws = learner.draws(state, sampled, step, [model.generators["noise"]])
    before, slow = clone(state.params), clone(state.targets)
    metrics = learner.update(state, sampled, draws, step, torch.tensor(0.01))
    seen = []
    for critic in (state.params["critic"], before["critic"]):
        views = [View.of(learner.networks, tree) for tree in (before, before | {"critic": critic}, slow)]
        seen.append(float(published_actor_loss(Networks(*views), sampled, ReplayedNoise(1, draws[1]), model.cfg)[0]))
    assert float(metrics["actor/loss"]) == pytest.approx(seen[0], rel=1e-5)
    assert seen[0] != pytest.approx(seen[1], rel=1e-3)
    for key, moved in state.targets["critic"].items():
        torch.testing.assert_close(moved, slow["critic"][key].lerp(state.params["critic"][key], model.tau))


def test_only_the_published_actor_decays() -> None:
    specs = QSMOnlineConfig().networks(0.005)
    assert specs["actor_diffusion"].decay_updates == 2_000_000
    assert specs["critic"].decay_updates is None
    assert specs["actor_diffusion"].target_rate is None


def test_the_networks_have_the_published_sizes() -> None:
    """Level: 64 features, Linear 128, mish, Linear 128; then (512, 512), mish in the policy and ReLU in the critics."""
    networks = {name: spec.factory(11, 3) for name, spec in QSMOnlineConfig().networks(0.005).items()}
    actor, critic = networks["actor_diffusion"], networks["critic"]
    assert [tuple(p.shape) for p in actor.time.parameters()] == [(64, 128), (128,), (128, 128), (128,)]
    assert [tuple(p.shape) for p in actor.net.parameters()][::2] == [(142, 512), (512, 512), (512, 3)]
    assert [tuple(p.shape) for p in critic.parameters()][::2] == [(2, 14, 512), (2, 512, 512), (2, 512, 1)]
    assert (actor.net.activation, critic.net.activation) == ("mish", "relu")
