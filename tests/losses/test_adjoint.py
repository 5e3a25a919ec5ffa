"""Fine-tuning along the memoryless SDE: minima, clipping, and who moves."""

import pytest
import torch
from trees import weights

from flowpolicies.algorithms import BAM, QAM, QAME, QAMF
from flowpolicies.core import Batch, GeneratorNoise, Learner, LossTerm, Networks, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.flows import memoryless_sigma, unit_grid
from flowpolicies.losses import adjoint_loss, adjoint_matching, control_cost, terminal_adjoint
from flowpolicies.losses.adjoint import departure, fine_tuned

SIZES = {"actor_hidden_dims": (8, 8), "value_hidden_dims": (8, 8), "ensemble": 2, "flow_steps": 4}
GENERATOR = torch.Generator().manual_seed(0)
BATCH = Batch(
    observations=torch.randn(6, 3, generator=GENERATOR),
    actions=torch.rand(6, 2, generator=GENERATOR) * 2 - 1,
    next_observations=torch.randn(6, 3, generator=GENERATOR),
    next_actions=torch.zeros(6, 2),
    rewards=torch.randn(6, generator=GENERATOR),
    discounts=torch.full((6,), 0.99),
    valid=torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 1.0]),
    action_mask=torch.ones(6, 2),
)


def noise() -> GeneratorNoise:
    return GeneratorNoise(2, torch.Generator().manual_seed(0))


def modules(cls, cfg) -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {name: spec.factory(3, 2) for name, spec in cfg.networks(0.005).items()}


def term(cls, name: str) -> LossTerm:
    return next(term for term in cls.losses if term.name == name)


def views(found: dict[str, torch.nn.Module]) -> Networks:
    return Networks(View.of(found), View.of(found), View.of(found))


def test_least_at_base_minus_half_sigma_squared_adjoint() -> None:
    grid = unit_grid(torch.zeros(6, 2), 4)
    states, shift = [torch.randn(6, 2) for _ in range(5)], 0.7
    sigma = memoryless_sigma(grid[:-1], grid.diff(dim=0))
    adjoints = (-2 * shift / sigma.square()).expand(4, 6, 2)
    best, none = (lambda x, t, by=by: torch.full_like(x, by) for by in (shift, 0.0))
    assert float(adjoint_matching(best, states, grid, adjoints)) == pytest.approx(0.0, abs=1e-8)
    by_hand = (sigma * adjoints).square().sum() / 6
    assert float(adjoint_matching(none, states, grid, adjoints)) == pytest.approx(float(by_hand), rel=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_the_departure_is_the_fine_tuned_field_minus_the_base(residual: bool) -> None:
    actor, base = View.of(modules(QAM, QAM.Config(**SIZES))).actor_fast, lambda x, t: 0.3 * x + t
    x, t = torch.randn(4, 6, 2), torch.rand(4, 6, 1)  # All times at once.
    field = fine_tuned(actor, BATCH.observations, base, residual)
    expected = torch.stack([field(x[i], t[i]) - base(x[i], t[i]) for i in range(4)])
    torch.testing.assert_close(departure(actor, BATCH.observations, base, residual)(x, t), expected)


def test_control_cost_leaves_the_last_step_out() -> None:
    grid = unit_grid(torch.zeros(6, 2), 4)
    states = [torch.zeros(6, 2)] * 5
    cost = control_cost(lambda x, t: x, states, [torch.full((6, 2), 0.5)] * 3, grid)
    weights = [(t + 0.25) / (1 - t + 0.25) for t in (0.0, 0.25, 0.5)]
    assert float(cost) == pytest.approx(sum(weights) * 2 * 0.25)


def test_terminal_adjoint_is_zero_where_the_action_saturates() -> None:
    q = lambda a: torch.stack([a.sum(-1), 3 * a.sum(-1)])
    x = torch.tensor([[0.5, 1.5], [-2.0, 0.0]])
    clipped = terminal_adjoint(q, x, clip=True)
    torch.testing.assert_close(clipped, torch.tensor([[-2.0, 0.0], [0.0, -2.0]]))
    torch.testing.assert_close(terminal_adjoint(q, x, clip=False), torch.full((2, 2), -2.0))


@pytest.mark.parametrize(("cls", "name"), [(QAM, "adjoint"), (BAM, "actor")])
def test_without_a_critic_the_minimum_is_the_behaviour_flow(cls, name: str) -> None:
    cfg = cls.Config(inv_temp=0.0, **SIZES)
    found = modules(cls, cfg)
    found["actor_fast"].load_state_dict(found["actor_slow"].state_dict())
    loss, _ = term(cls, name)(views(found), BATCH, noise(), cfg)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert all(float(p.grad.abs().max()) == 0.0 for p in found["actor_fast"].parameters())
    assert "actor_slow" in repr(cfg.sampler())


def test_residual_zero_is_the_behaviour_flow() -> None:
    cfg = QAM.Config(inv_temp=0.0, residual=True, **SIZES)
    found = modules(QAM, cfg)
    assert float(adjoint_loss(views(found), BATCH, noise(), cfg)[0].detach()) > 0
    for parameter in found["actor_fast"].parameters():
        torch.nn.init.zeros_(parameter)
    assert float(adjoint_loss(views(found), BATCH, noise(), cfg)[0].detach()) == pytest.approx(0.0, abs=1e-10)


@pytest.mark.parametrize("option", ["target_actor", "clip_adj", "residual", "use_target_grad"])
def test_every_option_changes_the_loss(option: str) -> None:
    cfg = QAM.Config(inv_temp=3.0, **SIZES)
    online, slow = modules(QAM, cfg), modules(QAM, cfg)
    for module in slow.values():
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    nets = Networks(View.of(online), View.of(online), View.of(slow))
    other = QAM.Config(**{"inv_temp": 3.0, option: not getattr(cfg, option), **SIZES})
    losses = [float(adjoint_loss(nets, BATCH, noise(), c)[0].detach()) for c in (cfg, other)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_fine_tuning_ignores_valid() -> None:
    cfg = QAM.Config(**SIZES)
    nets = views(modules(QAM, cfg))
    batches = (BATCH, BATCH._replace(valid=torch.ones(6)))
    losses = [float(adjoint_loss(nets, batch, noise(), cfg)[0].detach()) for batch in batches]
    assert losses[0] == losses[1]


def learner(cls, cfg) -> tuple[Learner, LearnerState]:
    found, specs = modules(cls, cfg), cfg.networks(0.005)
    params = weights(found)
    targets = {name: params[name] for name, spec in specs.items() if spec.target_rate is not None}
    made = Learner(found, specs, cls.losses, cfg, action_dim=2, clip_grad_norm=cfg.clip_grad_norm)
    return made, LearnerState(params, targets, initial_moments(params))


def test_a_loud_policy_loss_shrinks_the_step_of_the_critic() -> None:
    sizes = []
    for inv_temp in (1.0, 1e6):
        made, state = learner(QAM, QAM.Config(inv_temp=inv_temp, **SIZES))
        step = made.cfg.update_spec(0)
        draws = made.draws(state, BATCH, step, [torch.Generator().manual_seed(0)])
        grads, metrics = made.gradients(state, BATCH, draws[0], tuple(made.terms))
        sizes.append(sum(float(g.square().sum()) for g in grads["critic"].values()) ** 0.5)
        total = sum(float(g.square().sum()) for tree in grads.values() for g in tree.values()) ** 0.5
        assert total == pytest.approx(1.0, rel=1e-4)
        assert float(metrics["grad/norm"]) > 1.0
    assert sizes[1] < 1e-4 * sizes[0]


@pytest.mark.parametrize("cls", [QAM, QAMF, QAME, BAM])
@pytest.mark.parametrize(
    "options", [{"flow_steps": 1}, {"residual": True}, {"inv_temp": 0.0}, {"best_of_n": 3}], ids=str
)
def test_every_setting_runs(cls, options: dict) -> None:
    made, state = learner(cls, cls.Config(**{**SIZES, **options}))
    step = made.cfg.update_spec(0)
    draws = made.draws(state, BATCH, step, [torch.Generator().manual_seed(0)])
    grads, metrics = made.gradients(state, BATCH, draws[0], tuple(made.terms))
    assert all(bool(v.isfinite()) for v in metrics.values())
    assert set(grads) == set(made.networks)
