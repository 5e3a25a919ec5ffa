"""BDPO against a transcription of its equations (arXiv 2502.04778) in double precision, and the phases."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from stubs import fail, view
from tiny import tiny
from torch import Tensor

from flowpolicies.algorithms import BDPO, BDPOConfig
from flowpolicies.algorithms.bdpo import actor_loss, critic_loss, inner_value_loss
from flowpolicies.core import Batch, Networks, ReplayedNoise, UpdateSpec, View
from flowpolicies.networks import NoisyValue
from flowpolicies.samplers import BestOfN, Denoise, SoftmaxOfN

B, N, T = 4, 3, 3
VALID = np.array([1.0, 1.0, 0.0, 1.0])


def draws(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes]


observations, actions, following, rewards = draws(0, (B, 2), (B, 2), (B, 2), (B,))
BATCH = Batch(
    observations,
    actions.tanh(),
    following,
    actions,
    rewards,
    torch.tensor([0.9, 0.0, 0.9, 0.9], dtype=torch.float64),
    torch.tensor(VALID),
    torch.ones(B, 2),
)


# Each works on tensors, and on numpy rows with a float t: the transcription below and the code share nothing else.
def behavior(s, x, t):
    return 0.3 * x + 0.1 * s - 0.05 * t


def actor(s, x, t, theta=0.5):
    return theta * x - 0.2 * s + 0.1 * t * theta**2


def q(s, a, k=1.0):
    return k * (a[..., 0] * s[..., 0] + a[..., 1] ** 2 - 0.5 * a[..., 0])


def v(s, x, t, k=1.0):
    t = t[..., 0] if isinstance(t, Tensor) else t
    return k * (x[..., 0] - t * x[..., 1] * s[..., 1] + 0.3 * x[..., 1] ** 2)


def ensemble(fn):
    """Two members, so that pessimism counts."""
    return lambda *inputs: torch.stack([fn(*inputs, 1.0), fn(*inputs, -0.4)])


SLOW = view(actor_slow=behavior, actor_diffusion=actor, critic=ensemble(q), inner_value=ensemble(v))
NOBODY = view(actor_slow=fail, actor_diffusion=fail, critic=fail, inner_value=fail)


def online(**fns) -> Networks:
    return Networks(view(**fns), NOBODY, SLOW)


ALPHA = [math.exp(-0.1 / T - 9.9 * (2 * t - 1) / (2 * T**2)) for t in range(1, T + 1)]
ABAR = [1.0, *np.cumprod(ALPHA)]


def pen(s, x, t, e):
    beta = 1 - ALPHA[t - 1]
    return beta * np.sum((e - behavior(s, x, t)) ** 2) / (2 * (1 - beta) * (1 - ABAR[t]))


def back(x, t, e, z):
    """S1."""
    beta, alpha = 1 - ALPHA[t - 1], ALPHA[t - 1]
    x0h = np.clip((x - math.sqrt(1 - ABAR[t]) * e) / math.sqrt(ABAR[t]), -1, 1)
    mu = (math.sqrt(ABAR[t - 1]) * beta * x0h + math.sqrt(alpha) * (1 - ABAR[t - 1]) * x) / (1 - ABAR[t])
    return mu + (math.sqrt(beta) * z if t > 1 else 0)


def lcb(members, rho):
    return np.mean(members) - rho * np.std(members)


def terminal_target(b: int, x: np.ndarray, zs: list[np.ndarray], cfg: BDPOConfig) -> float:
    """y_0 of row b."""
    s, found, price = BATCH.next_observations[b].numpy(), [], []
    for n in range(N):
        x_t, total = x[b, n], 0.0
        for t, z in zip((3, 2, 1), zs, strict=True):
            e = actor(s, x_t, t)
            total += pen(s, x_t, t, e)
            x_t = back(x_t, t, e, z[b, n])
        found.append([q(s, x_t), q(s, x_t, -0.4)])
        price.append(total)
    over = np.max(found, 0) if cfg.max_q_backup else np.mean(found, 0)
    y = lcb(over, cfg.rho) - cfg.eta * np.mean(price)
    return float(BATCH.rewards[b] + BATCH.discounts[b] * y)


def level_target(b: int, t: int, eps: np.ndarray, z: np.ndarray, cfg: BDPOConfig, theta: float = 0.5) -> float:
    """y_t of row b."""
    s, a = BATCH.observations[b].numpy(), BATCH.actions[b].numpy()
    x_t = math.sqrt(ABAR[t]) * a + math.sqrt(1 - ABAR[t]) * eps[b]
    e = actor(s, x_t, t, theta)
    before = [back(x_t, t, e, z[b, n]) for n in range(N)]
    value = (lambda x, k: v(s, x, t - 1, k)) if t > 1 else (lambda x, k: q(s, x, k))
    members = [np.mean([value(x, k) for x in before]) for k in (1.0, -0.4)]
    return float(lcb(members, cfg.rho) - cfg.eta * pen(s, x_t, t, e))


@pytest.mark.parametrize("max_q_backup", [False, True])
def test_critic_learns_the_transcribed_target(max_q_backup: bool) -> None:
    cfg = BDPOConfig(diffusion_steps=T, next_samples=N, eta=0.7, rho=0.6, max_q_backup=max_q_backup)
    x, *zs = draws(1, *[(B, N, 2)] * (T + 1))
    loss, metrics = critic_loss(online(critic=ensemble(q)), BATCH, ReplayedNoise(2, [x, *zs]), cfg)
    y = np.array([terminal_target(b, x.numpy(), [z.numpy() for z in zs], cfg) for b in range(B)])
    own = np.stack([q(BATCH.observations.numpy(), BATCH.actions.numpy(), k) for k in (1.0, -0.4)])
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-10)
    assert float(loss) == pytest.approx((VALID * (own - y) ** 2).mean(), rel=1e-10)


LEVELS = torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize("max_q_backup", [False, True])
def test_inner_value_learns_the_transcribed_target(max_q_backup: bool) -> None:
    """At all three levels; the mean over the samples stays a mean whatever the critic's backup is."""
    cfg = BDPOConfig(diffusion_steps=T, next_samples=N, eta=0.7, rho=0.6, max_q_backup=max_q_backup)
    eps, z = draws(2, (B, 2), (B, N, 2))
    zero = lambda s, x, t: torch.zeros(2, B, dtype=torch.float64)
    loss, metrics = inner_value_loss(online(inner_value=zero), BATCH, ReplayedNoise(2, [LEVELS, eps, z]), cfg)
    y = np.array([level_target(b, int(LEVELS[b]) + 1, eps.numpy(), z.numpy(), cfg) for b in range(B)])
    assert float(metrics["target_mean"]) == pytest.approx(y.mean(), rel=1e-10)
    assert float(loss) == pytest.approx((VALID * y**2).mean(), rel=1e-10)


@pytest.mark.parametrize("eta", [0.0, 0.7, 20.0])
def test_actor_climbs_the_same_target_through_the_step_and_through_the_price(eta: float) -> None:
    """The slope in a parameter of the actor, against central differences of the transcription."""
    cfg = BDPOConfig(diffusion_steps=T, next_samples=N, eta=eta, rho=0.6)
    eps, z = draws(2, (B, 2), (B, N, 2))
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    nets = online(actor_diffusion=lambda s, x, t: actor(s, x, t, theta))
    loss, _ = actor_loss(nets, BATCH, ReplayedNoise(2, [LEVELS, eps, z]), cfg)
    (slope,) = torch.autograd.grad(loss, theta)

    def transcribed(value: float) -> float:
        targets = [level_target(b, int(LEVELS[b]) + 1, eps.numpy(), z.numpy(), cfg, value) for b in range(B)]
        return float(-(VALID * targets).mean())

    assert float(loss.detach()) == pytest.approx(transcribed(0.5), rel=1e-10)
    assert float(slope) == pytest.approx((transcribed(0.5 + 1e-5) - transcribed(0.5 - 1e-5)) / 2e-5, rel=1e-6)
    assert abs(float(slope)) > 1e-3


def test_an_actor_that_equals_the_behaviour_pays_nothing() -> None:
    cfg = BDPOConfig(diffusion_steps=T, next_samples=N, eta=1e3, rho=0.6)
    nets = Networks(view(critic=ensemble(q)), NOBODY, SLOW | View({"actor_diffusion": SLOW["actor_slow"]}))
    noise = draws(1, *[(B, N, 2)] * (T + 1))
    _, metrics = critic_loss(nets, BATCH, ReplayedNoise(2, noise), cfg)
    _, free = critic_loss(nets, BATCH, ReplayedNoise(2, noise), replace(cfg, eta=0.0))
    assert float(metrics["kl"]) == 0.0
    assert float(metrics["target_mean"]) == float(free["target_mean"])
    eps, z = draws(2, (B, 2), (B, N, 2))
    _, metrics = actor_loss(online(actor_diffusion=behavior), BATCH, ReplayedNoise(2, [LEVELS, eps, z]), cfg)
    assert float(metrics["kl"]) == 0.0


def test_phases() -> None:
    cfg, critics = BDPOConfig(pretrain_steps=2, actor_warmup=3, actor_every=2), ("critic", "inner_value")
    alone, both = (
        UpdateSpec((critics,), critics, targets_first=False),
        UpdateSpec((critics, ("actor", "behavior")), targets_first=False),
    )
    behavior_only = UpdateSpec((("behavior",),), ("actor_slow",), targets_first=False)
    first = alone._replace(copy_weights=(("actor_diffusion", "actor_slow"),))
    assert [cfg.update_spec(i) for i in range(9)] == [
        *[behavior_only] * 2,
        *[first, alone, alone, alone],
        *[both, alone, both],
    ]
    at_once = BDPOConfig(pretrain_steps=2, actor_warmup=0).update_spec(2)  # Also if the actor is due at the start.
    assert at_once == both._replace(copy_weights=(("actor_diffusion", "actor_slow"),))
    default = BDPOConfig()
    assert default.update_spec(1_999_999) == behavior_only
    assert [default.update_spec(2_050_000 + i) == both for i in (-5, 0, 1, 5)] == [False, True, False, True]


def trees(model: BDPO, name: str) -> tuple[list[Tensor], list[Tensor]]:
    """Weights and slow copy of a network, as they are now."""
    now = lambda module: [p.clone() for p in module.parameters()]
    return now(model.policy.networks[name]), now(model.policy.targets[name])


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_the_actor_begins_as_the_slow_behaviour(data) -> None:
    model = tiny(BDPO, dataset=data, pretrain_steps=3, actor_warmup=100)
    model.learn_offline(3)
    behavior_net, slow = trees(model, "actor_slow")
    assert not equal(behavior_net, slow)
    assert not equal(trees(model, "actor_diffusion")[0], slow)
    model.train(1, 32)
    assert model._means.pop()["critic/kl"] == 0.0
    assert all(equal(tree, slow) for tree in trees(model, "actor_diffusion"))
    assert [equal(*pair) for pair in zip(trees(model, "actor_slow"), (behavior_net, slow), strict=True)] == [
        True,
        True,
    ]


def test_slow_copies_rest_where_their_networks_do(data) -> None:
    model = tiny(BDPO, dataset=data, actor_warmup=0, actor_every=2)
    model.learn_offline(2)
    before = {name: trees(model, name) for name in model.policy.networks}
    model.learn_offline(1)
    after = {name: trees(model, name) for name in model.policy.networks}
    moved = {name: [not equal(*pair) for pair in zip(before[name], after[name], strict=True)] for name in before}
    assert moved["critic"] == moved["inner_value"] == [True, True]
    assert moved["actor_diffusion"] == moved["actor_slow"] == [False, False]
    model.learn_offline(1)
    for name in ("actor_diffusion", "actor_slow"):
        (_, slow), (net, moved_slow) = after[name], trees(model, name)
        assert all(torch.allclose(m, s.lerp(n, 0.005)) for s, n, m in zip(slow, net, moved_slow, strict=True))
        assert not equal(slow, moved_slow)


def test_how_it_acts(data) -> None:
    chain = Denoise(steps=5)
    assert BDPOConfig().sampler() == BestOfN(chain, 10)
    assert BDPOConfig(temperature=None).sampler() == chain
    assert BDPOConfig(temperature=0.5).sampler() == SoftmaxOfN(chain, 10, score="mean", temperature=0.5)
    model = tiny(BDPO, dataset=data)
    with torch.no_grad():
        for p in model.policy.networks.parameters():
            p.fill_(float("nan"))  # The slow copies act, not the trained weights.
    assert np.isfinite(model.predict(np.zeros((4, 3), np.float32))[0]).all()


def test_each_network_has_its_own_optimiser() -> None:
    nets = BDPOConfig(behavior_learning_rate=1e-4).networks(0.005)
    assert {name: (n.learning_rate, n.decay_updates) for name, n in nets.items()} == {
        "actor_slow": (1e-4, None),
        "actor_diffusion": (1e-5, 2_000_000),
        "critic": (None, 2_000_000),
        "inner_value": (None, 2_000_000),
    }
    assert all(n.clip_grad_norm == 1.0 and n.target_rate == 0.005 for n in nets.values())
    eps, inner = nets["actor_slow"].factory(11, 3), nets["inner_value"].factory(11, 3)
    widths = [tuple(p.shape) for p in eps.time.parameters()] + [tuple(p.shape) for p in eps.net.parameters()]
    body = [(256, 256), (256,)] * 3
    assert widths == [(64, 64), (64,), (64, 64), (64,), (78, 256), (256,), *body, (256, 3), (3,)]
    weight = inner.net.output.weight[0].detach()
    assert float(weight.norm()) == pytest.approx(math.sqrt(2), rel=1e-5)  # Orthogonal, gain sqrt 2, output included.
    assert inner.net.norm_first
    assert BDPOConfig(value_layer_norm=True).networks(0.005)["critic"].factory(11, 3).net.norm_first
    assert inner.net.norms is not None


def test_values_of_models_of_version_0_1_0_share_their_features_of_the_level(data, tmp_path) -> None:
    """Such a config lacks the field, and so do the options of the network in a policy file."""
    state = {key: value for key, value in vars(BDPOConfig(ensemble=3)).items() if key != "own_levels"}
    old = BDPOConfig.__new__(BDPOConfig)
    old.__setstate__(state)
    shape = lambda cfg: tuple(cfg.networks(0.005)["inner_value"].factory(11, 3).time.output.weight.shape)
    assert shape(old) == (128, 64)
    assert shape(BDPOConfig(ensemble=3)) == (3, 128, 64)
    assert NoisyValue(11, 3, ensemble=3).time.output.weight.shape == (128, 64)
    model = tiny(BDPO, dataset=data, own_levels=False)
    model.learn_offline(1)
    model.save(tmp_path / "old.zip")
    loaded = BDPO.load(tmp_path / "old.zip", device="cpu")
    with pytest.raises(ValueError, match="own_levels cannot be changed in an existing model of BDPO"):
        loaded.own_levels = True
