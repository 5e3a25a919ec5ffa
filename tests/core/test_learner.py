"""The learner: leaks, clipping, target copies, seeds, compilation."""

import pytest
import torch
from toy_learner import EVERY, SPECS, Cfg, actor_loss, critic_loss, leaky_loss, make, make_batch, run
from trees import flat, stack, weights

from flowpolicies.core import Batch, Learner, Network, UpdateSpec, loss_term
from flowpolicies.core.adam import adam_step, clip_by_global_norm, initial_moments
from flowpolicies.core.learner import LearnerState


def test_a_term_that_touches_more_than_it_trains_is_refused() -> None:
    learner, state = make(terms=(leaky_loss,))
    with pytest.raises(
        AttributeError, match=r"no network 'actor_flow' in this view \(it has: critic\)\. leaky_loss trains only"
    ):
        run(learner, state, step=UpdateSpec((("leaky",),)))


def test_each_loss_gives_gradient_to_its_own_network_only() -> None:
    learner, state = make()
    draws = [d.sample(torch.Generator().manual_seed(0)) for d in learner._record(state, make_batch(0), EVERY.stages[0])]
    together, _ = learner.gradients(state, make_batch(0), draws, ("critic", "actor"))
    alone, _ = learner.gradients(state, make_batch(0), draws[:2], ("critic",))
    assert set(alone) == {"critic"}
    torch.testing.assert_close(flat(alone), flat({"critic": together["critic"]}))


def test_targets_move_with_the_weights_before_the_step() -> None:
    learner, state = make()
    before = {k: p.clone() for k, p in state.params["critic"].items()}
    expected = {k: 0.9 * t + 0.1 * before[k] for k, t in state.targets["critic"].items()}
    run(learner, state, steps=1)
    torch.testing.assert_close(state.targets["critic"], expected)
    assert not torch.equal(flat({"c": before}), flat({"c": state.params["critic"]}))


def test_first_adam_step_is_the_sign_of_the_gradient() -> None:
    learner, state = make()
    batch = make_batch(0)
    draws = learner.draws(state, batch, EVERY, [torch.Generator().manual_seed(0)])
    grads, _ = learner.gradients(state, batch, draws[0], EVERY.stages[0])
    before = flat(state.params)
    learner.update(state, batch, draws, EVERY, torch.tensor(1e-2))
    torch.testing.assert_close(
        flat(state.params), before - 1e-2 * flat(grads) / (flat(grads).abs() + 1e-8), atol=1e-6, rtol=0
    )


def test_adam_moves_each_weight_by_its_own_gradient_in_any_memory_layout() -> None:
    """Fused Adam pairs the two in the order of memory, which compiled gradients of several seeds may not share."""
    grads = torch.randn(3, 4, 5)
    transposed = grads.transpose(1, 2).contiguous().transpose(1, 2)
    assert transposed.stride() != grads.stride()
    moved = []
    for each in (grads, transposed):
        params = {"critic": {"weight": torch.zeros(3, 4, 5)}}
        adam_step(params, {"critic": {"weight": each}}, initial_moments(params), torch.tensor(1e-2), ["critic"])
        moved.append(params["critic"]["weight"])
    assert torch.equal(*moved)
    assert torch.equal(moved[0].sign(), -grads.sign())


def test_joint_clipping_lets_one_loss_throttle_another() -> None:
    learner, state = make(clip_grad_norm=1.0)
    batch = make_batch(0)
    draws = learner.draws(state, batch, EVERY, [torch.Generator().manual_seed(0)])[0]
    mild, info = learner.gradients(state, batch, draws, EVERY.stages[0])
    learner.cfg = Cfg(weight=1e6)
    harsh, _ = learner.gradients(state, batch, draws, EVERY.stages[0])
    assert float(info["grad/norm"]) > 0
    assert float(flat(harsh).norm()) == pytest.approx(1.0, abs=1e-5)
    assert float(flat({"c": harsh["critic"]}).norm()) < 1e-3 * float(flat({"c": mild["critic"]}).norm())


def test_gradients_below_the_norm_are_left_alone() -> None:
    grads = {"a": {"w": torch.tensor([0.3, 0.4])}}
    clipped, norm = clip_by_global_norm(grads, 1.0)
    assert float(norm) == pytest.approx(0.5)
    torch.testing.assert_close(clipped, grads)
    halved, _ = clip_by_global_norm(grads, 0.25)
    torch.testing.assert_close(halved["a"]["w"], torch.tensor([0.15, 0.2]))


def test_an_idle_network_keeps_weights_and_moments() -> None:
    learner, state = make()
    actor = flat({"a": state.params["actor_flow"]})
    run(learner, state, steps=2, step=UpdateSpec((("critic",),), target_updates=()))
    assert torch.equal(actor, flat({"a": state.params["actor_flow"]}))
    assert all(float(s) == 0 for s in state.moments.step["actor_flow"].values())
    assert all(float(s) == 2 for s in state.moments.step["critic"].values())


def test_stages_run_one_after_the_other() -> None:
    together, apart = make(), make()
    run(*together, steps=1)
    run(*apart, steps=1, step=UpdateSpec((("critic",), ("actor",))))
    assert torch.equal(flat({"c": together[1].params["critic"]}), flat({"c": apart[1].params["critic"]}))
    assert not torch.equal(flat({"a": together[1].params["actor_flow"]}), flat({"a": apart[1].params["actor_flow"]}))


def test_own_learning_rate_of_a_network() -> None:
    learner, state = make()
    learner.specs["critic"] = Network(SPECS["critic"].factory, 0.1, learning_rate=0.0)
    before = flat({"c": state.params["critic"]})
    run(learner, state, steps=1)
    assert torch.equal(before, flat({"c": state.params["critic"]}))


def test_compiled_update_equals_eager() -> None:
    eager, compiled = make(), make(compile="aot_eager")
    a, b = run(*eager), run(*compiled)
    torch.testing.assert_close(flat(a.params), flat(b.params), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat(a.targets), flat(b.targets), atol=1e-5, rtol=0)


def test_vectorised_seeds_equal_single_runs() -> None:
    singles = [run(*make(seed=s), seed=s) for s in range(3)]
    starts = [make(seed=s) for s in range(3)]
    learner = make(n_seeds=3)[0]
    params, targets = stack([s.params for _, s in starts]), stack([s.targets for _, s in starts])
    moments = initial_moments(params)
    state = LearnerState(params, targets, moments)
    generators = [torch.Generator().manual_seed(s) for s in range(3)]
    for i in range(3):
        batch = Batch(*(torch.stack(c) for c in zip(*(make_batch(100 * s + i) for s in range(3)), strict=True)))
        metrics = learner.update(
            state, batch, learner.draws(state, batch, EVERY, generators), EVERY, torch.tensor(1e-2)
        )
    assert metrics["critic/loss"].shape == (3,)
    for s, single in enumerate(singles):
        for name, tree in single.params.items():
            for key, p in tree.items():
                torch.testing.assert_close(state.params[name][key][s], p, atol=2e-6, rtol=0)


def test_draws_are_recorded_once_and_come_from_the_given_generator() -> None:
    learner, state = make()
    first = learner.draws(state, make_batch(0), EVERY, [torch.Generator().manual_seed(5)])
    again = learner.draws(state, make_batch(1), EVERY, [torch.Generator().manual_seed(5)])
    assert [[tuple(d.shape) for d in stage] for stage in first] == [[(8, 2), (8, 1), (8, 2), (8, 1)]]
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))


def test_two_terms_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="share a name"):
        make(terms=(critic_loss, critic_loss))


def test_targets_may_move_with_the_weights_after_the_step_and_only_where_asked() -> None:
    learner, state = make()
    before = {k: t.clone() for k, t in state.targets["critic"].items()}
    run(learner, state, steps=1, step=UpdateSpec((("critic", "actor"),), targets_first=False))
    expected = {k: 0.9 * t + 0.1 * state.params["critic"][k] for k, t in before.items()}
    torch.testing.assert_close(state.targets["critic"], expected)
    learner, state = make()
    run(learner, state, steps=1, step=UpdateSpec((("critic", "actor"),), target_updates=("actor_flow",)))
    torch.testing.assert_close(state.targets["critic"], before)


def test_a_target_moves_once_in_the_stage_of_its_network() -> None:
    """What the actor's stage sees of the critic's copy: moved already."""
    seen = []

    @loss_term(trains="actor_flow")
    def watch_loss(nets, batch, noise, cfg):
        seen.append(flat({"critic": nets.target.critic.weights}))
        return nets.online.actor_flow(batch.observations, batch.actions, noise.times((8,))).mean(), {}

    learner, state = make(terms=(critic_loss, watch_loss))
    start = flat(state.targets)
    run(learner, state, steps=1, step=UpdateSpec((("critic",), ("watch",)), targets_first=False))
    assert not torch.equal(seen[-1], start)
    torch.testing.assert_close(seen[-1], flat(state.targets))


def test_copies_begin_a_phase() -> None:
    specs = SPECS | {"actor_fast": Network(SPECS["critic"].factory, target_rate=0.1)}
    modules = {name: spec.factory(3, 2) for name, spec in specs.items()}
    params = weights(modules)
    slow = {n: {k: p + i for k, p in params[n].items()} for i, n in enumerate(("critic", "actor_fast"), 1)}
    learner = Learner(modules, specs, (actor_loss,), Cfg(), action_dim=2)
    state = LearnerState(params, slow, initial_moments(params))
    run(
        learner,
        state,
        steps=1,
        step=UpdateSpec((("actor",),), target_updates=(), copy_weights=(("actor_fast", "critic"),)),
    )
    torch.testing.assert_close(state.params["actor_fast"], slow["critic"])
    torch.testing.assert_close(state.targets["actor_fast"], slow["critic"])


def test_cosine_decay_counts_the_updates_of_its_own_network() -> None:
    learner, state = make()
    learner.specs["actor_flow"] = Network(SPECS["actor_flow"].factory, learning_rate=1e-3, decay_updates=4)
    moved = []
    for i in range(12):
        before = flat({"a": state.params["actor_flow"]})
        run(learner, state, steps=1, step=EVERY if i % 2 else UpdateSpec((("critic",),)), seed=i)
        moved.append(float((flat({"a": state.params["actor_flow"]}) - before).abs().max()))
    assert moved[::2] == [0.0] * 6
    rates = [1e-3 * (1 + torch.cos(torch.tensor(torch.pi * min(k, 4) / 4))) / 2 for k in range(6)]
    assert moved[1] == pytest.approx(float(rates[0]), rel=1e-3)  # Adam's first step has the size of the rate.
    assert all(0 < size <= 1.5 * float(rate) for size, rate in zip(moved[1:8:2], rates[:4], strict=True))
    assert moved[9] == moved[11] == 0.0


def test_decoupled_weight_decay_equals_adamw() -> None:
    learner, state = make()
    learner.specs["critic"] = Network(SPECS["critic"].factory, weight_decay=0.1)
    batch = make_batch(0)
    draws = learner.draws(state, batch, EVERY, [torch.Generator().manual_seed(0)])
    grads, _ = learner.gradients(state, batch, draws[0], EVERY.stages[0])
    reference = [p.clone().requires_grad_() for p in state.params["critic"].values()]
    for p, g in zip(reference, grads["critic"].values(), strict=True):
        p.grad = g
    torch.optim.AdamW(reference, lr=1e-2, weight_decay=0.1).step()
    learner.update(state, batch, draws, EVERY, torch.tensor(1e-2))
    for ours, theirs in zip(state.params["critic"].values(), reference, strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=1e-6, rtol=0)


def test_a_networks_own_clip_leaves_the_others_alone() -> None:
    learner, state = make(clip_grad_norm=1e-3)
    learner.specs["critic"] = Network(SPECS["critic"].factory, 0.1, clip_grad_norm=2e-3)
    draws = learner.draws(state, make_batch(0), EVERY, [torch.Generator().manual_seed(0)])[0]
    grads, info = learner.gradients(state, make_batch(0), draws, EVERY.stages[0])
    assert float(flat({"c": grads["critic"]}).norm()) == pytest.approx(2e-3, rel=1e-4)
    assert float(flat({"a": grads["actor_flow"]}).norm()) == pytest.approx(1e-3, rel=1e-4)
    assert set(info) >= {"grad/norm", "grad/critic_norm"}


def test_a_term_may_see_the_draws_of_an_earlier_stage_again() -> None:
    @loss_term(trains="critic", same_draws_as="actor")
    def again_loss(nets, batch, noise, cfg):
        x, t = noise.actions(batch.actions.shape[:-1]), noise.times(batch.actions.shape[:-1])
        return nets.online.critic(batch.observations, x + t).mean(), {}

    learner, state = make(terms=(actor_loss, again_loss))
    step = UpdateSpec((("actor",), ("again",)))
    draws = learner.draws(state, make_batch(0), step, [torch.Generator().manual_seed(0)])
    assert all(a is b for a, b in zip(*draws, strict=True))
    with pytest.raises(ValueError, match="no earlier stage has that term"):
        learner.draws(state, make_batch(0), UpdateSpec((("again",), ("actor",))), [torch.Generator()])


def test_plain_gradient_descent_of_one_network() -> None:
    """Its own rate times its gradient, which the joint clip leaves alone, whatever Adam does to the others."""
    learner, state = make(clip_grad_norm=1e-3)
    learner.specs["actor_flow"] = Network(SPECS["actor_flow"].factory, learning_rate=0.5, optimizer="sgd")
    batch = make_batch(0)
    draws = learner.draws(state, batch, EVERY, [torch.Generator().manual_seed(0)])
    free, _ = make()[0].gradients(state, batch, draws[0], EVERY.stages[0])
    before = flat({"a": state.params["actor_flow"]})
    critic = flat({"c": state.params["critic"]})
    metrics = learner.update(state, batch, draws, EVERY, torch.tensor(1e-2))
    expected = before - 0.5 * flat({"a": free["actor_flow"]})
    torch.testing.assert_close(flat({"a": state.params["actor_flow"]}), expected)
    assert float((flat({"c": state.params["critic"]}) - critic).abs().max()) == pytest.approx(1e-2, rel=1e-3)
    assert float(metrics["grad/norm"]) == pytest.approx(float(flat({"c": free["critic"]}).norm()), rel=1e-5)
    assert all(float(count) == 1 for count in state.moments.step["actor_flow"].values())
    assert all(float(m.abs().max()) == 0 for m in state.moments.exp_avg["actor_flow"].values())
