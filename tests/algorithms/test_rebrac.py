"""ReBRAC: its target by hand, what a delayed update moves, and how it acts."""

import numpy as np
import pytest
import torch
from batches import batch
from stubs import view
from tiny import tiny

from flowpolicies.algorithms import ReBRAC, ReBRACConfig, ReBRACQAM, ReBRACQAMConfig
from flowpolicies.algorithms.rebrac import actor_loss, critic_loss
from flowpolicies.core import Networks, ReplayedNoise, ZeroNoise

BATCH = batch(
    torch.tensor([[0.5, 0.0], [1.0, 1.0]]),
    next_actions=torch.tensor([[0.0, 0.5], [0.0, 0.0]]),
    rewards=torch.tensor([1.0, 2.0]),
    discounts=torch.tensor([0.9, 0.0]),
    valid=torch.tensor([1.0, 0.0]),
)


def critic(s: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    return torch.stack([a.sum(-1), 3 * a.sum(-1)])


def test_target_takes_the_smaller_slow_critic_less_the_penalty() -> None:
    slow = view(critic=critic, actor=lambda s: (torch.tensor([[0.5, 0.9], [0.0, 0.0]]), torch.zeros(2, 2)))
    nets = Networks(slow | view(critic=lambda s, a: torch.zeros(2, 2)), view(), slow)
    noise = ReplayedNoise(2, [torch.tensor([[1.0, 9.0], [0.0, 0.0]])])
    loss, metrics = critic_loss(nets, BATCH, noise, ReBRACConfig(alpha_critic=0.1))
    next_action = [0.5 + 0.2, 1.0]  # 0.9 + clip(1.8) beyond the bound.
    penalty = 0.7**2 + 0.5**2
    target = 1.0 + 0.9 * (sum(next_action) - 0.1 * penalty)
    assert float(loss) == pytest.approx((2 * target**2) / 4)
    assert float(metrics["target_mean"]) == pytest.approx((target + 2.0) / 2)
    assert float(metrics["penalty"]) == pytest.approx(penalty / 2)


def test_actor_loss_with_the_minimum_and_with_the_lower_bound() -> None:
    mean = torch.tensor([[0.25, 0.25], [-0.5, 0.25]])
    nets = Networks(view(actor=lambda s: (mean, torch.zeros(2, 2))), view(critic=critic), view())
    bc = (0.25**2 + 0.25**2) / 2
    loss, metrics = actor_loss(nets, BATCH, ZeroNoise(2), ReBRACConfig(alpha_actor=0.3))
    least = [0.5, -0.75]
    assert float(metrics["bc_loss"]) == pytest.approx(bc)
    assert float(loss) == pytest.approx(-sum(least) / (0.5 + 0.75) + 0.3 * bc)
    loss, metrics = actor_loss(nets, BATCH, ZeroNoise(2), ReBRACQAMConfig(alpha_actor=0.3))
    bound = [1.0 - 0.5 * 0.5, -0.5 - 0.5 * 0.25]
    assert float(loss) == pytest.approx(-sum(bound) / (0.75 + 0.625) + 0.3 * bc)


def flat(tree: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in tree.values()]).clone()


def trace(algorithm, data, updates: int) -> dict[str, list[bool]]:
    """Whether each thing moved, update by update."""
    model = tiny(algorithm, dataset=data)
    parts = {
        "actor": lambda: flat(model._state.params["actor"]),
        "critic": lambda: flat(model._state.params["critic"]),
        "slow actor": lambda: flat(model._state.targets["actor"]),
        "slow critic": lambda: flat(model._state.targets["critic"]),
    }
    moved: dict[str, list[bool]] = {name: [] for name in parts}
    for _ in range(updates):
        before = {name: part() for name, part in parts.items()}
        model.learn_offline(1)
        for name, part in parts.items():
            moved[name].append(not torch.equal(before[name], part()))
    return moved


def test_every_second_update_is_whole_and_momentum_moves_the_actor_between(data) -> None:
    # The slow copies lag: in the second update the actor that they move towards is still the first one.
    assert trace(ReBRAC, data, 5) == {
        "actor": [False, True, True, True, True],
        "critic": [True] * 5,
        "slow actor": [False, False, False, True, False],
        "slow critic": [False, True, False, True, False],
    }


def test_in_qams_form_only_the_slow_copies_wait(data) -> None:
    assert trace(ReBRACQAM, data, 4) == {
        "actor": [True] * 4,
        "critic": [True] * 4,
        "slow actor": [False, True, False, True],
        "slow critic": [False, True, False, True],
    }


@pytest.mark.parametrize("config", [ReBRACConfig, ReBRACQAMConfig])
def test_the_last_of_every_so_many_updates_moves_the_slow_copies(config) -> None:
    specs = [config(actor_freq=3).update_spec(number) for number in range(6)]
    moves = [None if spec.target_updates is None else set(spec.target_updates) for spec in specs]
    assert [move != set() for move in moves] == [False, False, True, False, False, True]


def test_momentum_after_one_gradient(data) -> None:
    model = tiny(ReBRAC, dataset=data, alpha_actor=1.0)
    learner, state, batch = model._learner, model._state, model.replay_buffer.sample(32)
    whole, delayed = (model.cfg.update_spec(number) for number in (1, 0))
    steps = []
    for step in (whole, delayed, delayed):
        before = flat(state.params["actor"])
        draws = learner.draws(state, batch, step, [torch.Generator().manual_seed(0)])
        learner.update(state, batch, draws, step, torch.tensor(3e-4))
        steps.append(flat(state.params["actor"]) - before)
    large = steps[0].abs() > 2.999e-4  # Where the gradient is large against Adam's epsilon.
    assert large.float().mean() > 0.5
    for step, size in zip(steps, (3.0e-4, 2.0e-4, 1.6e-4), strict=True):
        along = (step * steps[0].sign())[large]
        torch.testing.assert_close(along, torch.full_like(along, size), atol=5e-6, rtol=0)


def test_both_kinds_of_update_compile(data) -> None:
    sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,)}
    models = [tiny(ReBRAC, dataset=data, alpha_actor=0.1, compile=b, **sizes) for b in (False, "eager")]
    for model in models:
        torch._dynamo.reset()
        model.learn_offline(3)
    eager, compiled = (model.policy.state_dict() for model in models)
    for key, tensor in eager.items():
        torch.testing.assert_close(compiled[key], tensor, atol=1e-5, rtol=0)


def test_noise_when_exploring_and_in_qams_form_also_in_evaluation(data) -> None:
    obs = np.zeros((500, 3), np.float32)
    for algorithm, evaluated in ((ReBRAC, False), (ReBRACQAM, True)):
        policy = tiny(algorithm, dataset=data, actor_noise=0.4, actor_noise_clip=0.1).policy
        mean = policy.predict(obs, deterministic=True)[0]
        for explore, noisy in ((False, evaluated), (True, True)):
            around = (policy.predict(obs, explore=explore)[0] - mean) / 2
            assert float(np.abs(around).max()) == pytest.approx(0.1 * noisy, abs=1e-6)
            assert (len(np.unique(around)) > 50) == noisy
