"""DAC in both forms: the guided noise regression by hand, the dual ascent, and the order of an update (6, 3.15)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from noisy_rows import EPS, ROWS, abar, column, noised, parabolas, replay, rows
from stubs import view
from tiny import tiny
from trees import clone

from flowpolicies.algorithms import DACD4RL, DACConfig, DACD4RLConfig
from flowpolicies.algorithms.dac import actor_loss
from flowpolicies.algorithms.dac_d4rl import actor_loss as published_actor_loss
from flowpolicies.algorithms.dac_d4rl import critic_loss as published_critic_loss
from flowpolicies.algorithms.dac_d4rl import dual_ascent
from flowpolicies.core import Networks, ReplayedNoise, View
from flowpolicies.losses import denoising
from flowpolicies.networks import NoisePrediction

NOTHING = view()


def by_hand(predict: Callable[[float, int], float], steps: int) -> tuple[float, float]:
    """Mean squared error of the predicted noise, and mean sqrt(1 - abar) G eps_hat."""
    errors, guided = [], []
    for action, level, eps in ROWS:
        x = noised(action, level, eps, steps)
        eps_hat = predict(x, level + 1)
        errors.append((eps_hat - eps) ** 2)
        guided.append(math.sqrt(1 - abar(level, steps)) * (3 * x - 0.5) * eps_hat)
    return sum(errors) / 2, sum(guided) / 2


def test_the_ogbench_loss_by_hand() -> None:
    predict = lambda x, t: 0.3 * x + 0.1 * t
    nets = Networks(view(actor_diffusion=lambda s, x, t: predict(x, t)), NOTHING, view(critic=parabolas))
    loss, info = actor_loss(nets, rows(), replay(), DACConfig(alpha=0.3))
    error, guided = by_hand(predict, 10)
    assert float(info["bc_loss"]) == pytest.approx(error, rel=1e-7)
    assert float(info["guidance"]) == pytest.approx(guided, rel=1e-7)
    assert float(loss) == pytest.approx(0.3 * error + guided, rel=1e-7)


def published(predict: Callable[..., torch.Tensor], eta: float, critic: Callable[..., torch.Tensor]) -> Networks:
    """The views that the published actor loss reads."""
    multiplier = lambda: torch.tensor(eta, dtype=torch.float64)
    online = view(actor_diffusion=lambda s, x, t: predict(x, t), temperature=multiplier)
    return Networks(online, view(temperature=multiplier), view(critic=critic))


def test_the_published_loss_divides_by_the_size_of_q() -> None:
    predict = lambda x, t: 0.3 * x + 0.1 * t
    loss, info = published_actor_loss(published(predict, 0.4, parabolas), rows(), replay(), DACD4RLConfig())
    error, guided = by_hand(predict, 5)
    q_size = (0.75 + 0.5 + 0.12 + 0.2) / 4  # |3 a^2| and |-a| at 0.5 and -0.2.
    assert float(info["q_size"]) == pytest.approx(q_size)
    assert float(info["eta"]) == pytest.approx(0.4)
    assert float(loss) == pytest.approx(0.4 * error + guided / (q_size + 1e-6), rel=1e-7)
    tiny_q = published(predict, 0.4, lambda s, a: 1e-9 * parabolas(s, a))
    _, small = published_actor_loss(tiny_q, rows(), replay(), DACD4RLConfig())
    assert float(small["guidance"]) == pytest.approx(1e-9 * guided / (1e-9 * q_size + 1e-6), rel=1e-6)


def test_the_noise_is_driven_down_q_and_the_data_hold_it() -> None:
    """The loss is least at eps - sqrt(1 - abar) G / (2 alpha); without the data it falls along -G for ever."""
    eps_hat = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    online = view(actor_diffusion=lambda s, x, t: eps_hat)
    slope = column(2.0, -4.0)
    critic = view(critic=lambda s, a: (slope * a).squeeze(-1).expand(3, 2))
    pull = lambda alpha: torch.autograd.grad(
        actor_loss(Networks(online, NOTHING, critic), rows(), replay(), DACConfig(alpha=alpha))[0], eps_hat
    )[0]
    assert torch.equal(pull(0.0).sign(), slope.sign())
    size = column(*(math.sqrt(1 - abar(level, 10)) for _, level, _ in ROWS))
    eps_hat.data = EPS - size * slope / (2 * 0.7)
    torch.testing.assert_close(pull(0.7), torch.zeros(2, 1, dtype=torch.float64), atol=1e-7, rtol=0)


def test_invalid_rows_do_not_count() -> None:
    nets = Networks(view(actor_diffusion=lambda s, x, t: x), NOTHING, view(critic=parabolas))
    one = rows(valid=torch.tensor([1.0, 0.0], dtype=torch.float64))
    loss, _ = actor_loss(nets, one, replay(), DACConfig())
    other = one._replace(actions=column(0.5, 0.9))
    assert float(actor_loss(nets, other, replay(), DACConfig())[0]) == float(loss) != 0


@pytest.mark.parametrize("max_q_backup", [False, True])
def test_next_values_over_actions_first_then_over_critics(max_q_backup: bool) -> None:
    """One level and eps_hat = 0: an action is clip(x / sqrt(abar)). Q_1 = 2 a, Q_2 = -a."""
    root = math.sqrt(abar(0, 1))
    x = torch.tensor([[0.3, 5.0], [-0.1, 0.2]], dtype=torch.float64).unsqueeze(-1) * root
    actions = [[0.3, 1.0], [-0.1, 0.2]]
    cfg = DACD4RLConfig(diffusion_steps=1, next_samples=2, rho=0.5, max_q_backup=max_q_backup)
    critic = lambda s, a: torch.stack([2 * a, -a]).squeeze(-1)
    target = view(critic=critic, actor_diffusion=lambda s, x, t: torch.zeros_like(x))
    nets = Networks(view(critic=lambda s, a: torch.zeros(2, 2)), NOTHING, target)
    _, info = published_critic_loss(nets, rows(), ReplayedNoise(1, [x, torch.zeros_like(x)]), cfg)
    expected = []
    for pair in actions:
        over = max if max_q_backup else lambda q: sum(q) / 2
        q_1, q_2 = over([2 * a for a in pair]), over([-a for a in pair])
        expected.append(3 + 0.9 * ((q_1 + q_2) / 2 - 0.5 * abs(q_1 - q_2) / 2))
    assert float(info["target_mean"]) == pytest.approx(sum(expected) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("error", "eta", "expected"),
    [
        (1.3, 1.0, 1.03),  # 0.1 (1.3 - 1)
        (0.5, 1.0, 0.95),
        (9.0, 1.0, 1.1),  # The excess is clipped to 1.
        (9.0, 99.95, 100.0),
        (0.0, 0.05, 0.001),
    ],
)
def test_dual_ascent(error: float, eta: float, expected: float) -> None:
    """The gradient of its loss, whose value is 0, is what a step of rate 1 takes away."""
    multiplier = torch.tensor(eta, dtype=torch.float64, requires_grad=True)
    nets = Networks(view(temperature=lambda: multiplier), view(temperature=lambda: multiplier.detach()), NOTHING)
    loss = dual_ascent(nets, torch.tensor(error), DACD4RLConfig(eta_lr=0.1, threshold=1.0))
    (gradient,) = torch.autograd.grad(loss, multiplier)
    assert float(loss.detach()) == 0.0
    assert float(multiplier.detach() - gradient) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("clip", [1.0, 1e-6])
def test_one_published_update(data, clip: float) -> None:
    """Critic, Polyak, actor at the moved slow critic; eta by the error from before the actor's step, unclipped."""
    model = tiny(DACD4RL, dataset=data, eta=0.7, eta_lr=0.01, threshold=0.2, clip_grad_norm=clip)
    learner, state, sampled = model._learner, model._state, model.replay_buffer.sample(32)
    step = model.cfg.update_spec(0)
    draws = learner.draws(state, sampled, step, [model.generators["noise"]])
    before, slow = clone(state.params), clone(state.targets)
    metrics = learner.update(state, sampled, draws, step, torch.tensor(0.01))

    for key, moved in state.targets["critic"].items():
        torch.testing.assert_close(moved, slow["critic"][key].lerp(state.params["critic"][key], model.tau))
    assert all(torch.equal(p, slow["actor_diffusion"][key]) for key, p in state.targets["actor_diffusion"].items())

    views = [View.of(learner.networks, tree) for tree in (before, before, state.targets)]
    _, guided = published_actor_loss(Networks(*views), sampled, ReplayedNoise(1, draws[1]), model.cfg)
    assert float(metrics["actor/guidance"]) == pytest.approx(float(guided["guidance"].detach()), rel=1e-5)

    error = lambda tree: float(
        denoising(
            View.of(learner.networks, tree).actor_diffusion, sampled, ReplayedNoise(1, draws[1]), model.cfg.diffusion
        )
    )
    assert float(metrics["actor/bc_loss"]) == pytest.approx(error(before), rel=1e-5)
    assert error(state.params) != pytest.approx(error(before), rel=1e-4)
    assert float(metrics["actor/eta"]) == pytest.approx(0.7)
    eta = float(state.params["temperature"]["value"])
    assert eta == pytest.approx(0.7 + 0.01 * min(max(error(before) - 0.2, -1), 1), rel=1e-6)


@pytest.mark.parametrize("eta", [0.1, 250.0])
def test_eta_may_be_fixed(data, eta: float) -> None:
    """Also outside the range in which the dual ascent keeps it."""
    model = tiny(DACD4RL, dataset=data, eta=eta, eta_lr=0.0)
    model.learn_offline(2)
    assert float(model._state.params["temperature"]["value"]) == pytest.approx(eta)


def test_the_slow_actor_moves_in_every_fifth_update_after_the_thousandth() -> None:
    steps = [DACD4RLConfig().update_spec(k) for k in range(1100)]
    assert [k for k, step in enumerate(steps) if "actor_diffusion" in step.target_updates] == list(range(1005, 1100, 5))
    assert all("critic" in step.target_updates and not step.targets_first for step in steps)


def test_who_acts(data) -> None:
    """The trained actor proposes, the slow critics choose."""
    model = tiny(DACD4RL, dataset=data)
    for explore in (False, True):
        seen = model.policy.view(explore)
        assert seen["critic"].module is model.policy.targets["critic"]
        assert seen["actor_diffusion"].module is model.policy.networks["actor_diffusion"]
    assert model.policy.sampler.n == 4


def test_the_last_step_is_the_clipped_estimate() -> None:
    torch.manual_seed(0)
    network = NoisePrediction(3, 2, hidden_dims=(16,), time_embedding="learned_fourier")
    cfg, observations = DACConfig(), torch.randn(64, 3)
    draws = list(torch.randn(11, 64, 2))
    actions = cfg.sampler()(View.of({"actor_diffusion": network}), observations, ReplayedNoise(2, draws))
    states, eps = cfg.diffusion.reverse(
        lambda x, t: network(observations, x, t), draws[0], ReplayedNoise(2, draws[1:]), "ancestral"
    )
    share = abar(0, 10)
    estimate = (states[-2] - math.sqrt(1 - share) * eps[-1]) / math.sqrt(share)
    assert float((estimate.abs() > 1).float().mean()) > 0.01
    torch.testing.assert_close(actions, estimate.clamp(-1, 1), atol=1e-5, rtol=0)
