"""RLPD as published, against numbers recorded from the paper's own code, and what its fields change.

`rlpd_paper.npz` holds five updates by `SACLearner` of https://github.com/ikostrikov/rlpd (c90fd4b, MIT) on tiny
networks, in float32, un-jitted, under our names of networks and parameters: K = 4 critics of which 2 make the target,
and every second update trains actor and temperature. Every weight has noise of its own, so that no copy can be taken
for another.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from stubs import view
from torch import Tensor, nn

from flowpolicies.algorithms import RLPDPaper, RLPDPaperConfig
from flowpolicies.algorithms.rlpd_paper import critic_loss
from flowpolicies.core import Batch, Learner, Networks, ReplayedNoise, View
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState

with np.load(Path(__file__).with_name("rlpd_paper.npz")) as file:
    RECORDED = {key: torch.from_numpy(file[key]) for key in file.files}
A, K = 3, 4
CFG = RLPDPaperConfig(actor_hidden_dims=(8, 8), value_hidden_dims=(8, 8), ensemble=K, actor_every=2)
SPECS = CFG.networks(0.01)


@cache
def modules() -> dict[str, nn.Module]:
    return {name: spec.factory(4, A) for name, spec in CFG.networks(0.01).items()}


def below(prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{prefix}/"): value for key, value in RECORDED.items() if key.startswith(f"{prefix}/")}


def weights(prefix: str, network: str, slow: bool = False) -> dict[str, Tensor]:
    """Recorded weights of a network in the shapes of ours."""
    found = below(f"{prefix}/{'target_' if slow else ''}{network}")
    ours = dict(modules()[network].named_parameters())
    assert ours.keys() == found.keys()
    return {name: found[name].reshape(p.shape).clone() for name, p in ours.items()}


def recorded_batch(number: int) -> Batch:
    get = below(f"update/{number}/batch")
    ones = torch.ones_like(get["rewards"])
    return Batch(
        get["observations"],
        get["actions"],
        get["next_observations"],
        get["actions"][:, :0],
        get["rewards"],
        0.97 * get["masks"],
        ones,
        torch.ones_like(get["actions"]),
    )


def recorded_draws(number: int) -> list[list[Tensor]]:
    """The draws of each stage. TensorFlow Probability draws with the axis of the action in front; the target critics
    were recorded as numbers, in place of which ours takes the least of K uniform draws."""
    next_eps, chosen, *eps = below(f"update/{number}/draw").values()
    order = torch.ones(K)
    order[chosen] = 0.1 * torch.arange(len(chosen))
    return [[next_eps.mT, order], *([e.mT] for e in eps)]


def close(ours: Tensor, theirs: Tensor) -> bool:
    return float((ours - theirs).abs().max()) <= 2e-6


def test_five_updates_are_those_of_the_papers_code() -> None:
    learner = Learner(modules(), SPECS, RLPDPaper.losses, CFG, action_dim=A)
    params = {name: weights("param", name) for name in SPECS}
    state = LearnerState(params, {"critic": weights("param", "critic", slow=True)}, initial_moments(params))
    metrics = {"critic_loss": "critic/loss", "q": "critic/q_mean", "entropy": "actor/entropy"}
    metrics |= {"temperature": "actor/temperature", "temperature_loss": "actor/temperature_loss"}
    for number in range(5):
        spec, draws = CFG.update_spec(number), recorded_draws(number)
        found = learner.update(state, recorded_batch(number), draws, spec, torch.tensor(1e-3))
        found["actor_loss"] = sum(found.get(f"actor/{part}", torch.tensor(0.0)) for part in ("q_loss", "entropy_loss"))
        theirs = below(f"update/{number}/loss")
        assert ("actor_loss" in theirs) == (number % 2 == 1) == ("actor/loss" in found)
        for name, value in theirs.items():
            assert float(found[metrics.get(name, name)]) == pytest.approx(float(value), rel=1e-5), (number, name)
    for name in SPECS:
        theirs = weights("final", name)
        assert all(close(state.params[name][key], theirs[key]) for key in theirs), name
    theirs = weights("final", "critic", slow=True)
    assert all(close(state.targets["critic"][key], theirs[key]) for key in theirs)


def test_it_collects_with_samples_and_evaluates_the_mode() -> None:
    view = View.of(modules(), {name: weights("param", name) for name in SPECS})
    s = RECORDED["sample/observations"]
    explorer = CFG.explorer()
    assert explorer is not None
    collected = explorer(view, s, ReplayedNoise(A, [RECORDED["sample/noise"].mT]))
    assert close(collected, RECORDED["sample/actions"])
    evaluated = CFG.sampler()(view, s, ReplayedNoise(A, [torch.randn(5, A)]))
    assert close(evaluated, RECORDED["eval/actions"])


@pytest.mark.parametrize(
    ("options", "next_q"),
    [
        ({}, 3.0),  # The minimum of 3 and 9.
        ({"target_critics": 1}, 9.0),
        ({"target_critics": 4}, 1.0),
        ({"target_critics": 50}, 1.0),
        ({"q_agg": "mean"}, 6.0),
        ({"entropy_backup": 0.0}, 3.0),
    ],
)
def test_the_target_is_made_of_some_critics(options: dict[str, object], next_q: float) -> None:
    cfg = RLPDPaperConfig(ensemble=4, **{"entropy_backup": 1.0, **options})
    ends = lambda *values: lambda s, a: torch.tensor(values).unsqueeze(-1).expand(-1, len(s))
    frozen = view(actor=lambda s: (torch.zeros(1, A), torch.zeros(1, A)), temperature=lambda: torch.tensor(0.5))
    nets = Networks(view(critic=ends(0.0, 0.0)), frozen, view(critic=ends(1.0, 3.0, 9.0, 5.0)))
    draws = [torch.zeros(1, A), torch.tensor([0.9, 0.3, 0.1, 0.6])]  # Critics 2, 1, 3, 0 in this order.
    data = recorded_batch(0)
    data = Batch(*(part[:1] for part in data))._replace(rewards=torch.ones(1), discounts=torch.full((1,), 0.5))
    _, metrics = critic_loss(nets, data, ReplayedNoise(A, draws), cfg)
    entropy = A * 0.5 * float(torch.log(torch.tensor(2 * torch.pi)))  # -log pi of tanh(0) for sigma = 1.
    expected = 1 + 0.5 * (next_q + cfg.entropy_backup * 0.5 * entropy)
    assert float(metrics["target_mean"]) == pytest.approx(expected, rel=1e-5)


def test_the_policy_s_heads_are_initialised_like_other_layers_and_bounded() -> None:
    torch.manual_seed(0)
    actor = RLPDPaperConfig().networks(0.01)["actor"].factory(4, A)
    assert actor.log_std_bounds == (-20.0, 2.0)
    bound = (6 / (256 + A)) ** 0.5  # Xavier: 256 features.
    assert 0.9 * bound < float(actor.mean.weight.detach().abs().max()) <= bound


def test_the_last_of_every_so_many_updates_trains_the_actor() -> None:
    specs = [RLPDPaperConfig(actor_every=3).update_spec(number) for number in range(6)]
    assert [spec.stages == (("critic",), ("actor",)) for spec in specs] == [False, False, True] * 2
