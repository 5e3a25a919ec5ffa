"""SAC and RLPD against a double-precision transcription with torch.distributions, and how they act and sample."""

import dataclasses

import numpy as np
import pytest
import torch
from stubs import view
from tiny import tiny
from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

from flowpolicies.algorithms import RLPD, SAC, RLPDConfig, SACConfig
from flowpolicies.algorithms.sac import actor_loss, critic_loss
from flowpolicies.core import Batch, Networks, ReplayedNoise

B, A = 5, 3
G = torch.Generator().manual_seed(0)


def rand(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=G)


BATCH = Batch(
    observations=rand(B, 2),
    actions=torch.cat([rand(B - 1, A).tanh(), torch.ones(1, A)]).double(),
    next_observations=rand(B, 2),
    next_actions=rand(B, 0),
    rewards=rand(B),
    discounts=torch.tensor([0.9, 0.9, 0.0, 0.9, 0.9]).double(),
    valid=torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0]).double(),
    action_mask=torch.ones(B, A).double(),
)
WEIGHTS, SLOW_WEIGHTS = rand(4, A), rand(4, A)
MEAN, LOG_STD = 0.3 * rand(2, A), 0.3 * rand(2, A)
EPS = rand(B, A)


def critic(weights: torch.Tensor):
    return lambda s, a: (weights[:, None] * a).sum(-1) + s.sum(-1)


def squashed(mean: torch.Tensor, log_std: torch.Tensor, s: torch.Tensor) -> TransformedDistribution:
    return TransformedDistribution(Independent(Normal(s @ mean, (s @ log_std).exp()), 1), TanhTransform())


def networks(mean: torch.Tensor = MEAN, log_std: torch.Tensor = LOG_STD, alpha: float | torch.Tensor = 0.7) -> Networks:
    online = {"actor": lambda s: (s @ mean, s @ log_std), "temperature": lambda: torch.as_tensor(alpha)}
    frozen = {
        "actor": lambda s: (s @ mean.detach(), s @ log_std.detach()),
        "critic": critic(WEIGHTS),
        "temperature": lambda: torch.as_tensor(alpha).detach(),
    }
    return Networks(view(critic=critic(WEIGHTS), **online), view(**frozen), view(critic=critic(SLOW_WEIGHTS)))


def lower_bound(q: torch.Tensor, rho: float) -> torch.Tensor:
    return q.mean(0) - rho * ((q - q.mean(0)).square().mean(0)).sqrt()


@pytest.mark.parametrize(
    ("cfg", "value"),
    [
        (SACConfig(), lambda q: q.min(0).values),
        (SACConfig(entropy_backup=1.0), lambda q: q.min(0).values),
        (RLPDConfig(), lambda q: lower_bound(q, 0.5)),
        (RLPDConfig(rho=0.0, entropy_backup=0.5), lambda q: q.mean(0)),
    ],
)
def test_critic_target(cfg, value) -> None:
    s = BATCH.next_observations
    actions = (s @ MEAN + (s @ LOG_STD).exp() * EPS).tanh()
    entropy = -0.7 * squashed(MEAN, LOG_STD, s).log_prob(actions)
    next_value = value(critic(SLOW_WEIGHTS)(s, actions)) + cfg.entropy_backup * entropy
    target = BATCH.rewards + BATCH.discounts * next_value
    error = (critic(WEIGHTS)(BATCH.observations, BATCH.actions) - target).square() * BATCH.valid
    loss, metrics = critic_loss(networks(), BATCH, ReplayedNoise(A, [EPS]), cfg)
    assert float(loss) == pytest.approx(float(error.sum()) / (4 * B))
    assert float(metrics["target_mean"]) == pytest.approx(float(target.mean()))


@pytest.mark.parametrize("cfg", [SACConfig(), RLPDConfig(), RLPDConfig(bc_alpha=0.3, target_entropy_multiplier=2.0)])
def test_actor_and_temperature_losses_and_gradients(cfg) -> None:
    leaves = [MEAN.clone().requires_grad_(), LOG_STD.clone().requires_grad_(), torch.tensor(0.7).requires_grad_()]
    loss, metrics = actor_loss(networks(*leaves), BATCH, ReplayedNoise(A, [EPS]), cfg)
    gradients = torch.autograd.grad(loss, leaves)

    mean, log_std, alpha = (leaf.detach().clone().requires_grad_() for leaf in leaves)
    s, policy = BATCH.observations, squashed(mean, log_std, BATCH.observations)
    actions = (s @ mean + (s @ log_std).exp() * EPS).tanh()
    log_probs = policy.log_prob(actions)
    climb = (0.7 * log_probs - lower_bound(critic(WEIGHTS)(s, actions), cfg.rho)).mean()
    hold = alpha * (-log_probs.detach().mean() + cfg.target_entropy_multiplier * A)
    clone = -(BATCH.valid * policy.log_prob(BATCH.actions.clamp(-1 + 1e-5, 1 - 1e-5))).mean()
    expected = climb + hold + cfg.bc_alpha * clone
    found = (loss, metrics["bc_loss"], metrics["entropy"])
    for ours, theirs in zip(found, (expected, clone, -log_probs.mean()), strict=True):
        assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-6)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected, [mean, log_std, alpha]), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_the_two_policies_are_initialised_and_bounded_as_in_their_codes(data) -> None:
    heads = {cls: tiny(cls, dataset=data).policy.networks["actor"] for cls in (SAC, RLPD)}
    assert heads[SAC].log_std_bounds == (-5.0, 2.0)
    assert heads[RLPD].log_std_bounds == (-20.0, 2.0)
    bound = (6 / 17) ** 0.5  # Xavier: 16 features, 1 action.
    assert float(heads[SAC].mean.weight.abs().max()) <= 0.1 * bound < float(heads[RLPD].mean.weight.abs().max())
    for head in heads.values():  # The deviation depends on the state.
        assert not torch.equal(*head(torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]]))[1])
    assert [SACConfig().ensemble, RLPDConfig().ensemble] == [2, 10]


def test_sac_evaluates_with_the_mean_and_rlpd_with_samples(data) -> None:
    obs = np.zeros((8, 3), np.float32)
    for cls, samples in ((SAC, False), (RLPD, True)):
        policy = tiny(cls, dataset=data).policy
        mean = policy.predict(obs, deterministic=True)[0]
        assert np.array_equal(policy.predict(obs)[0], mean) != samples
        assert not np.array_equal(policy.predict(obs, explore=True)[0], mean)


def test_half_of_rlpds_batches_is_prior_data_once_there_is_experience(data) -> None:
    marked = dataclasses.replace(data, rewards=np.full_like(data.rewards, 100.0))
    model = tiny(RLPD, env="Pendulum-v1", dataset=marked, learning_starts=1000).learn(60)
    rewards = model.replay_buffer.sample(32).rewards
    assert int((rewards == 100.0).sum()) == 16
    assert int((rewards <= 0.0).sum()) == 16
