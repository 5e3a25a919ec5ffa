"""IDQL against a transcription with torch's own modules and optimisers (arXiv 2304.10573)."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from batches import batch
from stubs import view
from tiny import tiny

from flowpolicies.algorithms import IDQL, IDQLConfig
from flowpolicies.algorithms.idql import actor_loss, dropout_masks
from flowpolicies.core import GeneratorNoise, Networks, ReplayedNoise, ZeroNoise
from flowpolicies.networks import Critic, InputNormValue, ResidualNoisePrediction
from flowpolicies.samplers import BestOfN, Denoise


def test_actor_loss_sums_over_dimensions_and_drops_what_the_draws_say() -> None:
    generator = torch.Generator().manual_seed(0)
    rand = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)
    seen = []

    def predict(s, x, t, masks):
        seen.append(masks)
        return 0.3 * x + 0.2 * s + 0.1 * t + masks.mean((-1, -2))[:, None]

    s, a, eps, level, u = rand(4, 2), rand(4, 2).tanh(), rand(4, 2), torch.tensor([0, 1, 2, 2]), torch.rand(4, 3, 8)
    valid = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    cfg = IDQLConfig(diffusion_steps=3, actor_hidden_dims=(8, 8, 8), dropout=0.25)
    nets = Networks(view(actor_diffusion=predict), view(), view())
    data = batch(a, observations=s, valid=valid)
    loss, _ = actor_loss.fn(nets, data, ReplayedNoise(2, [u.double(), level, eps]), cfg)

    masks = np.where(u.numpy() < 0.25, 0.0, 1 / 0.75)
    alpha = np.exp([-0.1 / 3 - 9.9 * (2 * t - 1) / (2 * 3**2) for t in range(1, 4)])
    abar, index = np.cumprod(alpha)[level][:, None], level.numpy()[:, None]
    x = np.sqrt(abar) * a.numpy() + np.sqrt(1 - abar) * eps.numpy()
    error = 0.3 * x + 0.2 * s.numpy() + 0.1 * index + masks.mean((-1, -2))[:, None] - eps.numpy()
    assert float(loss) == pytest.approx((valid.numpy() * (error**2).sum(-1)).mean(), rel=1e-10)
    np.testing.assert_allclose(seen[0].numpy(), masks, rtol=1e-12)


def test_dropout_keeps_the_mean_and_stays_away_from_acting(data) -> None:
    masks = dropout_masks(GeneratorNoise(1, torch.Generator().manual_seed(0)), (200, 3, 100), 0.1)
    assert sorted(masks.unique().tolist()) == pytest.approx([0.0, 1 / 0.9])
    assert float(masks.mean()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(dropout_masks(ZeroNoise(1), (5,), 0.0), torch.ones(5))
    model = tiny(IDQL, dataset=data, num_samples=1)
    obs = np.zeros((3, 3), np.float32)
    acted = model.predict(obs, deterministic=True)[0]
    model.policy.set_training_mode(True)
    np.testing.assert_array_equal(acted, model.predict(obs, deterministic=True)[0])


def test_three_updates_written_with_torchs_modules_and_optimisers(data) -> None:
    """Actor, value, then critics with the new value; slow copies after the steps; AdamW with a cosine for the actor."""
    model = tiny(IDQL, dataset=data, decay_updates=4, weight_decay=0.1, ema=0.9, tau=0.05, learning_rate=1e-2)
    cfg, mine = model.cfg, {name: copy.deepcopy(module) for name, module in model.policy.networks.items()}
    slow = {name: copy.deepcopy(module) for name, module in model.policy.targets.items()}
    for module in mine.values():
        module.requires_grad_(True)
    actor = torch.optim.AdamW(mine["actor_diffusion"].parameters(), lr=1e-2, weight_decay=0.1)
    rest = {name: torch.optim.Adam(mine[name].parameters(), lr=1e-2) for name in ("value", "critic")}
    abar = torch.tensor([math.exp(-0.1 / 3 - 9.9 * (2 * t - 1) / (2 * 3**2)) for t in range(1, 4)]).cumprod(0)

    for k in range(3):
        rows, step = model.replay_buffer.sample(32), cfg.update_spec(k)
        draws = model._learner.draws(model._state, rows, step, [torch.Generator().manual_seed(k)])
        model._learner.update(model._state, rows, draws, step, torch.tensor(1e-2))

        (u, level, eps), *others = draws
        assert others == [[], []]
        s, a, y = rows.observations, rows.actions, rows.rewards
        x = abar[level].sqrt()[:, None] * a + (1 - abar[level]).sqrt()[:, None] * eps
        masks = (u >= 0.1).float() / 0.9
        loss = (mine["actor_diffusion"](s, x, level[:, None].float(), masks) - eps).square().sum(-1).mean()
        actor.param_groups[0]["lr"] = 1e-2 * (1 + math.cos(math.pi * k / 4)) / 2
        descend(actor, loss)

        u = slow["critic"](s, a).min(0).values.detach() - mine["value"](s)
        descend(rest["value"], (torch.where(u < 0, 0.3, 0.7) * u**2).mean())

        target = (y + rows.discounts * mine["value"](rows.next_observations)).detach()
        descend(rest["critic"], (mine["critic"](s, a) - target).square().mean())

        for name, rate in (("critic", 0.05), ("actor_diffusion", 0.1)):
            for bar, p in zip(slow[name].parameters(), mine[name].parameters(), strict=True):
                bar.data = (1 - rate) * bar.data + rate * p.data

    for ours, theirs in ((model.policy.networks, mine), (model.policy.targets, slow)):
        assert set(theirs) == set(ours)
        for name, module in theirs.items():
            for p, expected in zip(ours[name].parameters(), module.parameters(), strict=True):
                torch.testing.assert_close(p, expected.detach(), atol=2e-5, rtol=0)


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def test_networks_rates_and_sampler() -> None:
    cfg = IDQLConfig()
    specs = cfg.networks(0.005)
    assert {n: (s.target_rate, s.decay_updates, s.weight_decay, s.clip_grad_norm) for n, s in specs.items()} == {
        "critic": (0.005, None, 0.0, None),
        "value": (None, None, 0.0, None),
        "actor_diffusion": (pytest.approx(0.001), 3_000_000, 1e-4, None),
    }
    critic, value, actor = (specs[name].factory(17, 6) for name in ("critic", "value", "actor_diffusion"))
    assert isinstance(critic, Critic)
    assert critic.net.activation == "relu"
    assert [tuple(layer.weight.shape) for layer in critic.net.layers] == [(2, 23, 256), (2, 256, 256)]
    assert critic.net.norms is None
    assert isinstance(value, InputNormValue)
    assert isinstance(actor, ResidualNoisePrediction)
    assert cfg.sampler() == BestOfN(Denoise("actor_diffusion", 5, "vp", 0, "direct"), 64, score="min")
    assert IDQLConfig(num_samples=1).sampler() == Denoise("actor_diffusion", 5, "vp", 0, "direct")


def test_the_slow_actor_and_the_slow_critics_act(data) -> None:
    model = tiny(IDQL, dataset=data)
    for explore in (False, True):
        seen = model.policy.view(explore)
        for name in ("actor_diffusion", "critic"):
            assert seen[name].module is model.policy.targets[name]


def test_widths_of_residual_blocks_must_agree(data) -> None:
    with pytest.raises(ValueError, match="residual blocks need one width"):
        tiny(IDQL, dataset=data, actor_hidden_dims=(16, 8))
