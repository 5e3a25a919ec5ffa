"""Models that are updated together equal models that are trained alone, for every algorithm."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from tiny import tiny

from flowpolicies.algorithms import FQL, QGPO, OfflineAlgorithm
from flowpolicies.data import TransitionDataset
from flowpolicies.samplers import OneStep
from flowpolicies.shell.fields import hints_of
from flowpolicies.shell.hyperparameters import SB3Hyperparameters
from flowpolicies.training.seeds.together import Vectorized, check_sweep, update_together
from flowpolicies.training.seeds.variants import make_variants

FREE = "networks.inner_value.net.output.bias"
"""QGPO's energy counts up to a constant: the gradient of this bias is rounding, which Adam blows up to its rate."""

REFUSED = ("clip_grad_norm", "ema", "weight_decay")
"""Numbers that an optimiser reads, besides learning rates."""


def begin(models: list[OfflineAlgorithm]) -> None:
    for model in models:
        model.learn_offline(0)  # Makes a logger.


def assert_nearly_equal(found: torch.Tensor, expected: torch.Tensor, atol: float) -> None:
    """All within `atol`, but for one weight in a thousand within Adam's rate: it moves a weight whose gradient is
    nothing but rounding, which differs with the order of sums, by up to its rate (DSRL: one of 2,560 by 1.02e-5)."""
    difference = (found - expected).abs()
    assert (difference > atol).sum() <= difference.numel() // 1000
    assert difference.max() < 3e-4


def compare(
    algorithm: type[OfflineAlgorithm], data: TransitionDataset, options: list[dict[str, Any]], steps: int, **wishes: Any
) -> None:
    """Trains models together and alone, and compares all that a model holds."""
    swept, atol = wishes.get("swept", ()), wishes.get("atol", 1e-5)
    backend = wishes.get("compile", False)
    models = [tiny(algorithm, dataset=data, compile=backend, **own) for own in options]
    alone = [tiny(algorithm, dataset=data, **own) for own in options]
    begin(models)
    check_sweep(models, swept)
    together = Vectorized(models, swept)
    for _ in range(steps):
        together.train()
    together.release()
    for model, single in zip(models, alone, strict=True):
        single.learn_offline(steps)
        assert model._n_updates == steps
        mine, theirs = model.get_parameters(), single.get_parameters()
        for key, expected in theirs["policy"].items():
            if algorithm is not QGPO or key != FREE:
                assert_nearly_equal(mine["policy"][key], expected, atol)
        for index, moments in theirs["optimizer"]["state"].items():
            assert mine["optimizer"]["state"][index]["step"] == moments["step"]
        states, expected = model.generators.state_dict(), single.generators.state_dict()
        assert all(torch.equal(states[name], expected[name]) for name in expected)  # Same batches, same draws.


@pytest.mark.more
@pytest.mark.slow
def test_a_hundred_updates_of_each_seed_equal_those_of_its_own_run(algorithm, data) -> None:
    compare(algorithm, data, [{"seed": seed} for seed in (0, 1, 2)], steps=100)


@pytest.mark.more
def test_chunks(algorithm, data) -> None:
    compare(algorithm, data, [{"seed": seed, "horizon": 3} for seed in (0, 5)], steps=2)


def test_seeds_and_all_numbers_of_losses_equal_their_own_runs(algorithm, data) -> None:
    """Two models differ in the seed and in every number that can be swept. What an optimiser reads is refused."""
    base = tiny(algorithm, dataset=data).cfg
    values = {}
    for field in dataclasses.fields(algorithm.Config):
        value, hint = getattr(base, field.name), hints_of(algorithm.Config)[field.name]
        if float not in (hint, *getattr(hint, "__args__", ())) or (field.name == "rho" and base.q_agg == "min"):
            continue
        pair = [0.7, 0.6] if value is None else [value, 0.9 * value + 0.03]
        if field.name in REFUSED or field.name.endswith("learning_rate"):
            with pytest.raises(ValueError, match=f"{field.name} cannot be swept, .* and the optimiser "):
                make_variants(algorithm, base, SB3Hyperparameters(), [0], {field.name: pair})
        elif field.name != "temperature":  # BDPO's, for which 0 is another sampler.
            values[field.name] = pair
    assert values or algorithm.name.startswith("bc")
    options = [{"seed": seed, **{name: pair[i] for name, pair in values.items()}} for i, seed in enumerate((0, 5))]
    compare(algorithm, data, options, steps=3, swept=list(values))


def test_a_model_that_is_trained_with_others_can_act_and_be_saved_at_any_time(data, tmp_path) -> None:
    models = [tiny(FQL, dataset=data, seed=seed) for seed in range(8)]
    begin(models)
    together = Vectorized(models)
    together.train()
    models[3].save(tmp_path / "together.zip")
    tiny(FQL, dataset=data).save(tmp_path / "alone.zip")
    assert (tmp_path / "together.zip").stat().st_size < 1.1 * (tmp_path / "alone.zip").stat().st_size
    loaded = FQL.load(tmp_path / "together.zip", device="cpu")
    assert all(map(torch.equal, loaded.policy.state_dict().values(), models[3].policy.state_dict().values()))
    before = models[3].predict([0.1, 0.2, 0.3], deterministic=True)[0]
    together.train()
    assert (models[3].predict([0.1, 0.2, 0.3], deterministic=True)[0] != before).any()


def test_large_networks_are_updated_in_turn_on_a_cpu(data) -> None:
    """Which is faster there, and equal to the last bit."""
    models, alone = ([tiny(FQL, dataset=data, seed=s, actor_hidden_dims=(520, 8)) for s in (0, 1)] for _ in range(2))
    begin(models)
    together = update_together(models)
    assert not isinstance(together, Vectorized)
    assert isinstance(update_together([tiny(FQL, dataset=data, seed=seed) for seed in (0, 1)]), Vectorized)
    for _ in range(2):
        together.train()
    for model, single in zip(models, alone, strict=True):
        single.learn_offline(2)
        torch.testing.assert_close(model.get_parameters(), single.get_parameters(), atol=0, rtol=0)


@pytest.mark.more
@pytest.mark.slow
def test_compiled(data) -> None:
    torch._dynamo.reset()
    options = [{"seed": seed, "alpha": alpha, "flow_steps": 2} for seed, alpha in ((0, 1.0), (1, 3.0))]
    compare(FQL, data, options, steps=2, swept=["alpha"], compile="aot_eager")


def test_a_number_that_decides_which_code_runs_is_refused(data, monkeypatch) -> None:
    monkeypatch.setattr(FQL.Config, "sampler", lambda self: OneStep("actor_onestep") if self.alpha < 100 else None)
    models = [tiny(FQL, dataset=data, alpha=alpha) for alpha in (1.0, 2.0)]
    states = [model.generators.state_dict() for model in models]
    with pytest.raises(ValueError, match=r"alpha cannot be swept, .* a loss decides by it which code runs"):
        check_sweep(models, ["alpha"])
    assert all(torch.equal(a[k], m.generators.state_dict()[k]) for a, m in zip(states, models, strict=True) for k in a)
