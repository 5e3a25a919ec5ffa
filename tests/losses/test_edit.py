"""The edit policy's loss, worked out by hand."""

import math

import pytest
import torch
from batches import batch
from stubs import view

from flowpolicies.core import Networks, ReplayedNoise
from flowpolicies.losses import edit_objective
from flowpolicies.networks import TanhNormal
from flowpolicies.samplers import OneStep

BATCH = batch(torch.zeros(2, 1), valid=torch.zeros(2))


def test_edit_objective_by_hand_and_who_gets_gradient() -> None:
    alpha, log_value = math.exp(0.5), torch.tensor(0.5, requires_grad=True)
    shift = torch.tensor(0.3, requires_grad=True)
    edit = lambda s, a, eps: (shift + 0.5 * eps, (shift * 2 + a).sum(-1))
    frozen = view(
        actor_onestep=lambda s, z: z,
        critic=lambda s, a: torch.stack([a.sum(-1), 3 * a.sum(-1)]),
        temperature=lambda: torch.tensor(alpha),
    )
    online = view(edit_actor=edit, temperature=lambda: log_value.exp())
    z, eps = torch.tensor([[0.2], [0.9]]), torch.tensor([[1.0], [1.0]])
    noise = ReplayedNoise(1, [z, eps])
    loss, metrics = edit_objective(Networks(online, frozen, frozen), BATCH, noise, OneStep(), 0.5, -2.0)

    log_probs = [0.6 + 0.2, 0.6 + 0.9]
    entropy = -sum(log_probs) / 2
    q = 2 * (0.2 + 0.5 * 0.8 + 1.0) / 2  # The second action saturates at 1.
    assert float(metrics["q_loss"]) == pytest.approx(-q)
    assert float(metrics["entropy"]) == pytest.approx(entropy)
    assert float(metrics["temperature"]) == pytest.approx(alpha)
    assert float(loss) == pytest.approx(-q - alpha * entropy + alpha * (entropy + 2.0))
    loss.backward()
    assert float(log_value.grad) == pytest.approx(alpha * (entropy + 2.0))
    assert float(shift.grad) == pytest.approx(-2 * 0.5 / 2 + 2 * alpha)


def test_tanh_normal_that_takes_an_action_depends_on_it() -> None:
    torch.manual_seed(0)
    policy = TanhNormal(3, 2, hidden_dims=(8,), takes_action=True)
    s, a, eps = (torch.randn(5, n) for n in (3, 2, 2))
    edits, log_probs = policy(s, a, eps)
    assert (edits.shape, log_probs.shape) == ((5, 2), (5,))
    assert not torch.equal(edits, policy(s, a + 1, eps)[0])
    normal = torch.distributions.Normal(policy.mean(h := policy.trunk(torch.cat([s, a], -1))), policy.log_std(h).exp())
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform(cache_size=1))
    torch.testing.assert_close(log_probs, squashed.log_prob(edits).sum(-1), atol=1e-4, rtol=1e-4)
