"""Samplers: what each rule is, and how they compose."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stubs import view

from flowpolicies.core import GeneratorNoise, ReplayedNoise, View, ZeroNoise
from flowpolicies.flows import action_gradient
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.samplers import (
    BestOfN,
    Guided,
    Integrate,
    OneStep,
    RobustGuided,
    SoftmaxOfN,
    WithNoise,
    best_of,
    candidates,
)
from flowpolicies.samplers.flow import guidance_schedule

OBSERVATIONS = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def nets() -> View:
    torch.manual_seed(0)
    modules = {
        "critic": Critic(3, 2, hidden_dims=(16, 16)),
        "actor_flow": VelocityField(3, 2, hidden_dims=(16, 16)),
        "actor_onestep": VelocityField(3, 2, hidden_dims=(16,), time_embedding="none"),
    }
    for module in modules.values():
        module.requires_grad_(False)
    return View.of(modules)


def noise(seed: int = 0) -> GeneratorNoise:
    return GeneratorNoise(2, torch.Generator().manual_seed(seed))


def steep(factor: float) -> View:
    """A zero velocity field and a critic whose gradient has norm `factor` * sqrt(2)."""
    return view(actor_flow=lambda s, x, t: torch.zeros_like(x), critic=lambda s, a: factor * a.sum(-1)[None])


def test_candidates_of_samplers_inside_each_other_multiply() -> None:
    assert candidates(OneStep()) == candidates(WithNoise(OneStep())) == 1
    assert candidates(WithNoise(BestOfN(OneStep(), 4))) == 4
    assert candidates(BestOfN(SoftmaxOfN(OneStep(), 3), 5)) == 15


SAMPLERS = [
    Integrate(),
    Integrate(steps=3, method="heun"),
    Guided(beta=0.5),
    RobustGuided(),
    OneStep(),
    BestOfN(OneStep(), 4),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_shapes_bounds_and_repeatability(nets: View, sampler) -> None:
    actions = sampler(nets, OBSERVATIONS, noise())
    assert actions.shape == (6, 2)
    assert actions.abs().max() <= 1
    assert torch.equal(actions, sampler(nets, OBSERVATIONS, noise()))
    assert not torch.equal(actions, sampler(nets, OBSERVATIONS, noise(1)))
    assert sampler(nets, OBSERVATIONS.reshape(2, 3, 3), noise()).shape == (2, 3, 2)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_zero_noise_is_deterministic(nets: View, sampler) -> None:
    assert torch.equal(sampler(nets, OBSERVATIONS, ZeroNoise(2)), sampler(nets, OBSERVATIONS, ZeroNoise(2)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_samplers_are_frozen_plain_data(sampler) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.steps = 3


def test_integrate_is_euler_written_out(nets: View) -> None:
    x_0 = torch.randn(6, 2)
    x = x_0
    for i in range(5):
        x = x + nets.actor_flow(OBSERVATIONS, x, torch.full((6, 1), i / 5)) / 5
    torch.testing.assert_close(Integrate(steps=5)(nets, OBSERVATIONS, ReplayedNoise(2, [x_0])), x.clamp(-1, 1))


def test_guided_is_the_published_rule(nets: View) -> None:
    x_0 = torch.randn(6, 2)
    x = x_0
    for i in range(5):
        guidance = action_gradient(nets.critic.given(OBSERVATIONS), x)
        x = x + (nets.actor_flow(OBSERVATIONS, x, torch.full((6, 1), i / 5)) + 0.7 * guidance) / 5
    torch.testing.assert_close(Guided(steps=5, beta=0.7)(nets, OBSERVATIONS, ReplayedNoise(2, [x_0])), x.clamp(-1, 1))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), steps=st.integers(1, 12))
def test_guided_with_beta_zero_is_plain_integration(nets: View, seed: int, steps: int) -> None:
    guided = Guided(beta=0.0, steps=steps)(nets, OBSERVATIONS, noise(seed))
    torch.testing.assert_close(guided, Integrate(steps=steps)(nets, OBSERVATIONS, noise(seed)), atol=1e-7, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 3))
def test_robust_with_everything_off_is_the_plain_guided_sampler(nets: View, seed: int, beta: float) -> None:
    robust = RobustGuided(beta=beta, adaptive=False, limit=float("inf"))
    expected = Guided(beta=beta)(nets, OBSERVATIONS, noise(seed))
    torch.testing.assert_close(robust(nets, OBSERVATIONS, noise(seed)), expected, atol=0, rtol=0)


def test_guidance_schedules_along_the_flow() -> None:
    t = torch.tensor([[0.0], [0.25], [0.5], [1.0]], dtype=torch.float64)
    weights = {
        "constant": [1.0, 1.0, 1.0, 1.0],
        "linear": [0.0, 0.25, 0.5, 1.0],
        "cosine": [0.0, (1 - 0.5**0.5) / 2, 0.5, 1.0],
        "late": [0.0, 0.0, 1.0, 1.0],
    }
    for schedule, expected in weights.items():
        torch.testing.assert_close(guidance_schedule(t, schedule)[:, 0], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(("schedule", "weights"), [("linear", [0, 0.5]), ("late", [0, 1]), ("cosine", [0, 0.5])])
def test_guidance_schedules(schedule: str, weights: list[float]) -> None:
    x_0, sampler = torch.zeros(6, 2), Guided(steps=2, beta=0.2, schedule=schedule)
    actions = sampler(steep(1.0), OBSERVATIONS, ReplayedNoise(2, [x_0]))
    torch.testing.assert_close(actions, torch.full((6, 2), 0.2 * sum(weights) / 2))


def test_best_of_n_is_never_worse_in_q(nets: View) -> None:
    for seed in range(10):
        wide = OBSERVATIONS.unsqueeze(1).expand(6, 8, 3)
        candidates = Integrate()(nets, wide, noise(seed))
        q = nets.critic(wide, candidates)
        best = BestOfN(Integrate(), 8)(nets, OBSERVATIONS, noise(seed))
        torch.testing.assert_close(nets.critic(OBSERVATIONS, best).mean(0), q.mean(0).amax(-1))
        safest = BestOfN(Integrate(), 8, score="min")(nets, OBSERVATIONS, noise(seed))
        torch.testing.assert_close(nets.critic(OBSERVATIONS, safest).amin(0), q.amin(0).amax(-1))


def test_best_of_one_is_the_sampler_itself() -> None:
    assert best_of(OneStep(), 1) == OneStep()
    assert best_of(OneStep(), 3) == BestOfN(OneStep(), 3)


def test_best_of_n_without_a_critic_names_what_there_is() -> None:
    alone = View.of({"actor_flow": VelocityField(3, 2, hidden_dims=(8,))})
    with pytest.raises(KeyError, match="ranks candidates with the network 'critic', but the policy has: actor_flow"):
        BestOfN(Integrate(), 4)(alone, OBSERVATIONS, noise())


def test_robust_sampler_reduces_long_gradients_row_by_row() -> None:
    sampler = RobustGuided(steps=1, beta=0.001)
    x_0 = torch.zeros(6, 2)
    actions = sampler(steep(1000.0), OBSERVATIONS, ReplayedNoise(2, [x_0]))
    torch.testing.assert_close(actions, torch.full((6, 2), 0.001 * 100 / 2**0.5))
    assert sampler.monitor.reduced == 1.0
    assert sampler.monitor.norm_max == pytest.approx(1000 * 2**0.5, rel=1e-5)


def test_robust_sampler_turns_guidance_down_and_up_again() -> None:
    sampler = RobustGuided(steps=1)
    for _ in range(3):
        sampler(steep(1000.0), OBSERVATIONS, noise())
    assert sampler.monitor.scale == pytest.approx(1 / 8)
    for _ in range(10):
        sampler(steep(1.0), OBSERVATIONS, noise())
    low = sampler.monitor.scale
    assert low < 1 / 8  # The running mean takes a few calls to forget.
    for _ in range(10):
        sampler(steep(1.0), OBSERVATIONS, noise())
    assert sampler.monitor.scale == pytest.approx(low * 1.01**10)
    assert sampler.monitor.norm_mean == pytest.approx(2**0.5, rel=1e-5)


def test_robust_sampler_survives_nan() -> None:
    broken = view(actor_flow=lambda s, x, t: torch.ones_like(x), critic=lambda s, a: a.sum(-1)[None] * float("nan"))
    sampler = RobustGuided(steps=4)
    actions = sampler(broken, OBSERVATIONS, ReplayedNoise(2, [torch.full((6, 2), -0.5)]))
    torch.testing.assert_close(actions, torch.full((6, 2), 0.5))
    assert sampler.monitor.non_finite == 1.0


def test_robust_sampler_clips_gradients_and_states() -> None:
    clipped = RobustGuided(steps=1, beta=0.1, adaptive=False, clip=1.0)
    actions = clipped(steep(50.0), OBSERVATIONS, ReplayedNoise(2, [torch.zeros(6, 2)]))
    torch.testing.assert_close(actions, torch.full((6, 2), 0.1 / 2**0.5))
    assert RobustGuided(limit=0.3)(steep(1e6), OBSERVATIONS, noise()).abs().max() == pytest.approx(0.3)
    assert RobustGuided().monitor is not RobustGuided().monitor
