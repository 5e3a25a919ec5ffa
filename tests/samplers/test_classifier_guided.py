"""CGQL's guided sampler, and ranking by a timed critic, against numbers worked out by hand."""

import pytest
import torch
from stubs import view

from flowpolicies.core import GeneratorNoise, ReplayedNoise, View, ZeroNoise
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.samplers import BestOfN, ClassifierGuided, Integrate, best_of

OBSERVATIONS = torch.zeros(1, 1)


def from_point(sampler, nets: View, x_0: float) -> float:
    return float(sampler(nets, OBSERVATIONS, ReplayedNoise(1, [torch.tensor([[x_0]])])))


NETS = view(
    actor_flow=lambda s, x, t: 1 - x,
    critic=lambda s, x, t: torch.stack([2 * t * x, 4 * t * x]).squeeze(-1),  # Mean gradient 3 t.
)


@pytest.mark.parametrize(("critic_time", "expected"), [("final", 0.98), ("current", 0.905)])
def test_two_steps_by_hand(critic_time: str, expected: float) -> None:
    # t = 0: x = 0.2 + (1 - 0.2) / 2 = 0.6, without guidance. t = 1/2: v = 0.4, guidance 0.05 / 0.5 (2 * 0.5 * g + 0.6).
    sampler = ClassifierGuided(steps=2, inv_temp=2.0, guidance_coef=0.05, critic_time=critic_time)
    assert from_point(sampler, NETS, 0.2) == pytest.approx(expected)


def test_three_steps_written_out() -> None:
    x, kappa, c = 0.1, 0.7, 0.02
    x += (1 - x) / 3
    for t in (1 / 3, 2 / 3):
        x += (1 - x + c / t * (kappa * (1 - t) * 3 * t + x)) / 3
    sampler = ClassifierGuided(steps=3, inv_temp=kappa, guidance_coef=c, critic_time="current")
    assert from_point(sampler, NETS, 0.1) == pytest.approx(x, rel=1e-6)


def test_first_step_is_not_guided_and_the_end_is_clipped() -> None:
    strong = ClassifierGuided(steps=1, inv_temp=100.0, guidance_coef=100.0)
    assert from_point(strong, NETS, 0.2) == pytest.approx(1.0)
    assert from_point(strong, NETS, -3.0) == pytest.approx(1.0)
    assert from_point(strong, view(actor_flow=lambda s, x, t: 0 * x, critic=NETS.critic.fn), 0.2) == pytest.approx(0.2)


def test_alone_it_is_the_flow_whose_score_is_the_gradient() -> None:
    kappa, sigma = 4.0, 0.3
    variance = lambda t: (1 - t) ** 2 + (sigma * t) ** 2
    nets = view(
        actor_flow=lambda s, x, t: torch.zeros_like(x),
        critic=lambda s, x, t: (-x.square() / (2 * kappa * variance(t))).squeeze(-1)[None],
    )
    sampler = ClassifierGuided(steps=500, inv_temp=kappa, guidance_coef=1.0, critic_time="current")
    assert from_point(sampler, nets, 1.5) == pytest.approx(sigma * 1.5, rel=0.02)


def networks() -> View:
    torch.manual_seed(0)
    critic = Critic(3, 2, hidden_dims=(16, 16), time_embedding="scalar")
    modules = {"critic": critic, "actor_flow": VelocityField(3, 2, hidden_dims=(16, 16))}
    for module in modules.values():
        module.requires_grad_(False)
    return View.of(modules)


@pytest.mark.parametrize("critic_time", ["final", "current"])
@pytest.mark.parametrize("n", [1, 4])
def test_shapes_bounds_and_repeatability(critic_time: str, n: int) -> None:
    sampler = best_of(ClassifierGuided(critic_time=critic_time, inv_temp=10.0), n, at=1.0)
    nets, observations = networks(), torch.randn(2, 3, 3)
    noise = lambda: GeneratorNoise(2, torch.Generator().manual_seed(0))
    actions = sampler(nets, observations, noise())
    assert actions.shape == (2, 3, 2)
    assert actions.abs().max() <= 1
    assert torch.equal(actions, sampler(nets, observations, noise()))
    assert sampler(nets, observations[0, 0], ZeroNoise(2)).shape == (2,)


def test_without_guidance_it_is_plain_integration() -> None:
    nets, observations, x_0 = networks(), torch.randn(5, 3), torch.randn(5, 2)
    plain = Integrate(steps=6)(nets, observations, ReplayedNoise(2, [x_0]))
    guided = ClassifierGuided(steps=6, guidance_coef=0.0)(nets, observations, ReplayedNoise(2, [x_0]))
    torch.testing.assert_close(guided, plain)


@pytest.mark.parametrize(("at", "best"), [(1.0, 0.9), (0.0, -0.9)])
def test_best_of_n_asks_a_timed_critic_at_a_given_time(at: float, best: float) -> None:
    nets = view(actor_flow=lambda s, x, t: 0 * x, critic=lambda s, a, t: ((2 * t - 1) * a).squeeze(-1)[None])
    candidates = torch.tensor([[[0.1], [0.9], [-0.9]]])
    chosen = BestOfN(Integrate(), 3, at=at)(nets, OBSERVATIONS, ReplayedNoise(1, [candidates]))
    assert float(chosen) == pytest.approx(best)
