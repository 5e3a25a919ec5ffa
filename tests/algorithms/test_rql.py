"""RQL and TFQL on linear stubs, with numbers worked out by hand (arXiv 2606.17551)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from batches import batch, column
from stable_baselines3.common.env_util import make_vec_env
from tiny import tiny
from torch import Tensor

from flowpolicies.algorithms import RQL, TFQL, RQLConfig, TFQLConfig
from flowpolicies.algorithms.rql import actor_loss, reversal_depths, step_value_loss, value_loss
from flowpolicies.core import Batch, GeneratorNoise, Loss, Networks, RecordingNoise, ReplayedNoise, View
from flowpolicies.core.noise import Draw
from flowpolicies.core.views import GivenObservations


class Stub:
    """A network made of a function, which remembers what it was called with."""

    def __init__(self, fn: Callable[..., Tensor]) -> None:
        self.fn, self.calls = fn, []

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls.append(inputs)
        return self.fn(*inputs)

    def given(self, observations: Tensor) -> GivenObservations:
        return GivenObservations(self, observations)


def networks(field: Stub, value: Stub, target: Stub | None = None) -> Networks:
    view = View({"actor_flow": field, "value": value})
    return Networks(view, view, View({"value": target or value}))


def rows(n: int, **columns: Tensor) -> Batch:
    """State 0, action 1, reward 3, discount 0.9, next state 5, of which `columns` replaces some."""
    one = torch.ones(n, 1)
    plain = batch(one, next_observations=5 * one, rewards=3 * one[:, 0], discounts=0.9 * one[:, 0])
    return plain._replace(**columns)


def ensemble(*members: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Stub:
    return Stub(lambda s, x, t: torch.stack([member(s, x, t).squeeze(-1) for member in members]))


def test_depths_are_continuous_in_the_first_half_and_on_the_grid_in_the_second() -> None:
    depth = reversal_depths(GeneratorNoise(1, torch.Generator().manual_seed(0)), 2000, 4)
    first, second = depth[:1000, 0], depth[1000:, 0]
    assert depth.shape == (2000, 1)
    assert ((first >= 0) & (first < 1)).all()
    assert len(first.unique()) > 900
    assert second.unique().tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert float(first.mean()) == pytest.approx(0.5, abs=0.05)
    assert float(second.mean()) == pytest.approx(0.5, abs=0.05)


def test_odd_batches_are_refused(data) -> None:
    with pytest.raises(ValueError, match=r"RQL needs an even batch.*got batch_size=31"):
        tiny(RQL, dataset=data, batch_size=31).learn_offline(1)
    tiny(TFQL, dataset=data, batch_size=31).learn_offline(1)


def reversed_points(field: Callable[..., Tensor], depths: list[float], steps: int) -> tuple[Stub, Stub]:
    """The field and the online value after a value loss at four depths, of which the last two lie on the grid."""
    stub, value = Stub(field), ensemble(lambda s, x, t: x)
    draws = [
        torch.zeros(4, 1),
        column(*depths[:2]),
        torch.tensor([round(d * steps) for d in depths[2:]], dtype=torch.int32),
    ]
    cfg = RQLConfig(flow_steps=steps)
    value_loss(networks(stub, value, ensemble(lambda s, x, t: x)), rows(4), ReplayedNoise(1, draws), cfg)
    return stub, value


def test_reversal_takes_all_steps_of_the_row_s_own_length() -> None:
    field, value = reversed_points(lambda s, x, t: x, [0.3, 0.8, 0.0, 1.0], steps=2)
    _, x, t = value.calls[0]
    # x <- x - (d/2) x, twice; the current velocity at the current point: explicit Euler.
    torch.testing.assert_close(x, column(0.85**2, 0.6**2, 1.0, 0.5**2))
    torch.testing.assert_close(t, column(0.7, 0.2, 1.0, 0.0))
    assert len(field.calls) == 2
    torch.testing.assert_close(field.calls[0][2], column(1.0, 1.0, 1.0, 1.0))
    torch.testing.assert_close(field.calls[1][2], column(0.85, 0.6, 1.0, 0.5))


def test_reversal_of_no_depth_is_the_action_and_of_a_constant_field_its_start() -> None:
    _, value = reversed_points(lambda s, x, t: 0.5 * torch.ones_like(x), [0.0, 0.999, 0.0, 1.0], steps=7)
    torch.testing.assert_close(value.calls[0][1], column(1.0, 1 - 0.4995, 1.0, 0.5))


def test_value_target_expectile_and_valid() -> None:
    target = ensemble(lambda s, x, t: s + x + 7 * t, lambda s, x, t: s + 3 * x + 7 * t)
    online = ensemble(lambda s, x, t: 0 * x, lambda s, x, t: 10 * t)
    draws = [column(1.0, 2.0), column(0.0), torch.tensor([0])]
    data = rows(2, discounts=torch.tensor([0.9, 0.0]), valid=torch.tensor([1.0, 0.5]))
    cfg = RQLConfig(expectile=0.7, rho=0.5, flow_steps=3)
    loss, metrics = value_loss(networks(Stub(lambda s, x, t: x), online, target), data, ReplayedNoise(1, draws), cfg)
    # Row 0: members 6 and 8 at (5, 1, 0), so A = 7 - 0.5 * 1; row 1 does not bootstrap.
    y = [3 + 0.9 * 6.5, 3.0]
    by_hand = [0.7 * y[0] ** 2, 0.3 * (y[0] - 10) ** 2, 0.5 * 0.7 * y[1] ** 2, 0.5 * 0.3 * (y[1] - 10) ** 2]
    assert float(loss) == pytest.approx(sum(by_hand) / 4)
    assert float(metrics["target_mean"]) == pytest.approx(sum(y) / 2)


def test_actor_takes_one_truncated_step_uphill() -> None:
    value = ensemble(lambda s, x, t: 2 * x + t, lambda s, x, t: 4 * x - t)
    data = rows(2, valid=torch.tensor([1.0, 0.0]), action_mask=column(1.0, 0.0))
    draws = [column(-1.0, 0.0), column(0.9, 0.5)]
    cfg = RQLConfig(alpha=10.0, flow_steps=4)
    loss, metrics = actor_loss(networks(Stub(lambda s, x, t: 3 + 0 * x), value), data, ReplayedNoise(1, draws), cfg)
    # Row 0: x_t = 0.9 - 0.1, dt = 0.1 and not 1/4, x+ = 0.8 + 0.3, t+ = 1; its mean value is 3 * 1.1. Row 1 is invalid.
    assert float(metrics["q_loss"]) == pytest.approx(-3.3 / 2)
    # Row 0: (3 - 2)^2; row 1 is masked. Behaviour cloning looks at the mask, not at `valid`.
    assert float(metrics["bc_loss"]) == pytest.approx(1 / 2)
    assert float(loss) == pytest.approx(10 * 0.5 - 1.65)
    torch.testing.assert_close(value.calls[0][2], column(1.0, 0.75))


def test_behaviour_cloning_ignores_valid() -> None:
    nets = networks(Stub(lambda s, x, t: 0 * x), ensemble(lambda s, x, t: 0 * x))
    data = rows(2, valid=torch.zeros(2))
    _, metrics = actor_loss(nets, data, ReplayedNoise(1, [column(0.0, -1.0), column(0.5, 0.5)]), RQLConfig())
    assert float(metrics["bc_loss"]) == pytest.approx((1 + 4) / 2)
    assert float(metrics["q_loss"]) == 0


POINTS = {0: 3 / 8, 1: 1 / 2, 2: 1.0}
"""x_f of v(s, x, t) = x t, F = 2, a = 1: x_1 = 1 - 1/2, x_0 = 1/2 - 1/8. A forward step from x_0 would stay there."""


def step_target(index: int, cfg: TFQLConfig) -> tuple[float, Stub, Loss]:
    """The target of one row at flow step `index` of two, the online value, and the loss; V = 0 online."""
    target = ensemble(lambda s, x, t: s + x + 8 * t, lambda s, x, t: s + 5 * x + 8 * t)
    online = ensemble(lambda s, x, t: 0 * x)
    draws = [column(0.25), torch.tensor([index])]
    found = step_value_loss(
        networks(Stub(lambda s, x, t: x * t), online, target), rows(1), ReplayedNoise(1, draws), cfg
    )
    return float(found[1]["target_mean"]), online, found


@pytest.mark.parametrize(
    ("index", "mean", "std"),
    [
        (0, 3 * (1 / 2) + 8 * (1 / 2), 2 * (1 / 2)),  # V(s, x_1, 1/2): members 0.5 + 4 and 2.5 + 4
        (1, 3 * 1.0 + 8 * 1.0, 2 * 1.0),  # V(s, a, 1): members 1 + 8 and 5 + 8
    ],
)
def test_flow_steps_bootstrap_from_the_point_they_came_from(index: int, mean: float, std: float) -> None:
    y, online, (loss, _) = step_target(index, TFQLConfig(flow_steps=2, rho=0.5, expectile=0.9))
    assert y == pytest.approx(mean - 0.5 * std)  # No reward, discount 1.
    assert float(loss) == pytest.approx(0.9 * y**2)
    _, x, t = online.calls[0]
    assert (float(x), float(t)) == (POINTS[index], index / 2)


def test_the_last_flow_step_is_the_environment_s() -> None:
    y, online, _ = step_target(2, TFQLConfig(flow_steps=2, rho=0.5))
    # V(s', x'_0, 0): members 5 + 0.25 and 5 + 1.25.
    assert y == pytest.approx(3 + 0.9 * (5.75 - 0.5 * 0.5))
    assert [float(part) for part in online.calls[0]] == [0.0, 1.0, 1.0]


def test_inner_pessimism_can_differ_from_the_environment_step_s() -> None:
    cfg = TFQLConfig(flow_steps=2, rho=0.5, inner_rho=0.0)
    assert step_target(0, cfg)[0] == pytest.approx(5.5)
    assert step_target(1, cfg)[0] == pytest.approx(11.0)
    assert step_target(2, cfg)[0] == pytest.approx(3 + 0.9 * 5.5)


def test_rows_of_a_batch_reverse_to_their_own_step() -> None:
    online, field = ensemble(lambda s, x, t: 0 * x), Stub(lambda s, x, t: x * t)
    draws = [torch.zeros(5, 1), torch.tensor([3, 0, 4, 1, 2])]
    nets = networks(field, online, ensemble(lambda s, x, t: x))
    _, metrics = step_value_loss(nets, rows(5), ReplayedNoise(1, draws), TFQLConfig(flow_steps=4))
    chain = [1.0]  # x_4, x_3, ..., x_0
    for f in range(4, 0, -1):
        chain.append(chain[-1] * (1 - 0.25 * f / 4))
    x = dict(zip(range(4, -1, -1), chain, strict=True))
    torch.testing.assert_close(online.calls[0][1], column(x[3], x[0], x[4], x[1], x[2]))
    torch.testing.assert_close(online.calls[0][2], column(0.75, 0.0, 1.0, 0.25, 0.5))
    assert float(metrics["target_mean"]) == pytest.approx((x[4] + x[1] + 3 + x[2] + x[3]) / 5)
    assert len(field.calls) == 4


def test_every_flow_step_and_the_environment_s_are_drawn() -> None:
    noise = RecordingNoise(GeneratorNoise(1, torch.Generator().manual_seed(0)))
    value = ensemble(lambda s, x, t: x)
    step_value_loss(networks(Stub(lambda s, x, t: x), value), rows(6), noise, TFQLConfig(flow_steps=4))
    assert noise.draws[1:] == [Draw("integers", (6,), 5)]  # 0 to 4.


def test_one_flow_step_is_two_backups() -> None:
    online = ensemble(lambda s, x, t: 0 * x)
    nets = networks(Stub(lambda s, x, t: x / 4), online, ensemble(lambda s, x, t: x + t))
    draws = [torch.zeros(2, 1), torch.tensor([0, 1])]
    step_value_loss(nets, rows(2), ReplayedNoise(1, draws), TFQLConfig(flow_steps=1))
    torch.testing.assert_close(online.calls[0][1], column(0.75, 1.0))


@pytest.mark.parametrize("cls", [RQL, TFQL])
def test_the_slow_actor_acts_in_predict_and_the_trained_one_explores(cls, data) -> None:
    model = tiny(cls, env=make_vec_env("Pendulum-v1", n_envs=2, seed=0), learning_starts=0)
    model.policy.targets["actor_flow"].net.output.bias += 20
    obs = np.zeros((2, 3), np.float32)
    assert (model.predict(obs, deterministic=True)[0] == 2).all()
    model._last_obs, model._last_episode_starts = obs, np.ones(2, bool)
    assert (model._sample_action(0, n_envs=2)[1] < 1).any()


def test_learning_again_ends_the_episode_that_ran() -> None:
    model = tiny(RQL, env="Pendulum-v1", learning_starts=100)
    model.learn(10)
    model.learn(10, reset_num_timesteps=False)
    assert model.replay_buffer.online.episodes.table().T.tolist() == [[0, 0, 19]]
    model.learn(10)
    assert model.replay_buffer.online.episodes.table().T.tolist() == [[0, 0, 19], [0, 20, 29]]


@pytest.mark.parametrize("cls", [RQL, TFQL])
def test_targets_move_at_their_own_rates(cls, data) -> None:
    model = tiny(cls, dataset=data, ema=0.75, tau=0.5)
    for module in model.policy.targets.values():
        for parameter in module.parameters():
            parameter += 1
    model.learn_offline(1)
    # The copies follow the weights before the step, from which they were 1 away.
    fresh = tiny(cls, dataset=data, ema=0.75, tau=0.5)
    for name, left in (("value", 0.5), ("actor_flow", 0.75)):
        for slow, before in zip(
            model.policy.targets[name].parameters(), fresh.policy.networks[name].parameters(), strict=True
        ):
            torch.testing.assert_close(slow, before + left)
