"""Every hyperparameter of every algorithm has an effect, and reaches the samplers and networks that it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import torch
from term_values import SMALL, evaluate, small
from tiny import known
from torch import Tensor
from toy_learner import leaves, make_batch

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.samplers import Sampler

SHELL = {"horizon", "execute", "encoder", "clip_grad_norm", "observation_scaling", "observation_gain"}
SHELL |= {"reward_scaling", "reward_gain"}
"""Hyperparameters that losses, samplers and networks do not see; they have tests of their own in
tests/shell and tests/policies."""
EARLY = {
    "actor_warmup": 2,
    "critic_warmup": 2,
    "pretrain_steps": 2,
    "critic_steps": 3,
    "ema_start": 2,
    "ema_every": 2,
    "renew_every": 3,
    "actor_every": 2,
    "curriculum_steps": 2,
}
"""Thresholds within the first updates."""
NEEDED: dict[str, dict[str, Any]] = {
    "rho": {"q_agg": "mean"},
    "ema_start": {"ema_every": 1},
    "isd_clip": {"isd_clip": 1e-3},
    "target_critics": {"target_critics": 1},
}
"""What else must be set for a hyperparameter to have an effect."""

INERT = {("qgpo", "actor_layer_norm")}
"""Hyperparameters without an effect: the authors' U-net has no LayerNorm."""

FIXED_LAYER_NORM = {("bdpo", "inner_value"), ("idql", "value"), ("qgpo", "actor_diffusion"), ("qgpo", "inner_value")}
"""Networks that have LayerNorm, or do not, whatever is configured, as their doc pages say."""
NAMES_IN_SAMPLERS = {"scale": "edit_scale", "schedule": "beta_schedule"}
"""Fields of samplers, and the hyperparameters whose values they have, where the names differ."""
OTHERS_IN_SAMPLERS = {"residual", "temperature"}
"""Fields of samplers that only share a name with a hyperparameter."""


def changed(value: Any, hint: Any) -> Any:
    """Another valid value of a field."""
    if options := [option for option in get_args(hint) if isinstance(option, str) and option != value]:
        return options[0]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (5,)
    if value is None:
        return 1 if int in get_args(hint) else 0.25
    return value + 1 if isinstance(value, int) else 0.5 * value + 0.2


def declared(cfg: Any) -> list[Any]:
    """What a config declares: networks, how to act, and what the first updates do."""
    networks = [
        (name, getattr(spec.factory, "keywords", {}), dataclasses.replace(spec, factory=None))
        for name, spec in cfg.networks(0.01).items()
    ]
    return [networks, cfg.sampler(), cfg.explorer(), [cfg.update_spec(step) for step in range(10)]]


def computed(algorithm: type[OfflineAlgorithm], cfg: Any) -> list[Tensor]:
    """Losses, metrics and gradients of all terms on one batch, with the same draws. One row ends early."""
    batch = make_batch(0)
    valid, mask = batch.valid.clone(), batch.action_mask.clone()
    valid[0], mask[0, 1:] = 0, 0
    values = evaluate(algorithm, cfg, batch._replace(valid=valid, action_mask=mask)).values()
    return [*(m for metrics, _ in values for m in metrics.values()), *(g for _, tree in values for g in leaves(tree))]


def has_effect(algorithm: type[OfflineAlgorithm], name: str, value: Any, options: dict[str, Any]) -> bool:
    configs = [algorithm.Config(**options | {name: v}) for v in (options.get(name, value), value)]
    if declared(configs[0]) != declared(configs[1]):
        return True
    before, after = (computed(algorithm, cfg) for cfg in configs)
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_every_hyperparameter_has_an_effect(algorithm) -> None:
    fields = {field.name: field.default for field in dataclasses.fields(algorithm.Config) if field.name not in SHELL}
    hints, without = get_type_hints(algorithm.Config), set()
    for name, default in fields.items():
        options = {name: default} | known(algorithm, SMALL | EARLY | NEEDED.get(name, {}))
        if not has_effect(algorithm, name, changed(options[name], hints[name]), options):
            without.add((algorithm.name, name))
    assert without == {entry for entry in INERT if entry[0] == algorithm.name}


def every_sampler(sampler: Sampler | None) -> Iterator[Sampler]:
    """A sampler and those inside it."""
    if sampler is not None:
        yield sampler
        for field in dataclasses.fields(sampler):
            if dataclasses.is_dataclass(inner := getattr(sampler, field.name)):
                yield from every_sampler(inner)


def test_samplers_make_the_configured_number_of_steps_and_candidates(algorithm) -> None:
    steps = dict.fromkeys(("flow_steps", "diffusion_steps", "solver_steps", "consistency_steps"), 7)
    cfg = algorithm.Config(**known(algorithm, steps | {"best_of_n": 9, "num_samples": 9}))
    found = [inner for sampler in (cfg.sampler(), cfg.explorer()) for inner in every_sampler(sampler)]
    assert {inner.steps for inner in found if hasattr(inner, "steps")} <= {7}
    assert {inner.n for inner in found if hasattr(inner, "n")} <= {9}
    assert not hasattr(cfg, "best_of_n") or any(hasattr(inner, "n") for inner in found)


def test_samplers_have_the_hyperparameters_of_their_names(algorithm) -> None:
    hints = get_type_hints(algorithm.Config)
    own = {field.name: field.default for field in dataclasses.fields(algorithm.Config)}
    cfg = small(algorithm)
    for name in set(own) - SHELL - {"q_agg", "rho"}:
        cfg = dataclasses.replace(cfg, **{name: changed(own[name], hints[name])})
    for inner in (inner for sampler in (cfg.sampler(), cfg.explorer()) for inner in every_sampler(sampler)):
        for theirs in {field.name for field in dataclasses.fields(inner)} - OTHERS_IN_SAMPLERS:
            for ours in {theirs, NAMES_IN_SAMPLERS.get(theirs, theirs)} & set(own):
                assert getattr(inner, theirs) == getattr(cfg, ours), theirs


def unaffected(algorithm: type[OfflineAlgorithm], one: dict[str, Any], other: dict[str, Any]) -> set[tuple[str, str]]:
    """Networks, other than single numbers, whose weights have the same sizes with some hyperparameters and others."""
    sizes = []
    for options in (one, other):
        networks = small(algorithm, **known(algorithm, options)).networks(0.01).items()
        sizes.append({name: [p.shape for p in network.factory(3, 2).parameters()] for name, network in networks})
    return {(algorithm.name, name) for name, shapes in sizes[0].items() if shapes == sizes[1][name] and len(shapes) > 1}


def test_layer_norm_reaches_every_network(algorithm) -> None:
    switches = [dict.fromkeys(("actor_layer_norm", "value_layer_norm"), value) for value in (False, True)]
    assert unaffected(algorithm, *switches) == {entry for entry in FIXED_LAYER_NORM if entry[0] == algorithm.name}


def test_hidden_widths_reach_every_network(algorithm) -> None:
    names = ("actor_hidden_dims", "value_hidden_dims", "energy_hidden_dims")
    assert unaffected(algorithm, *(dict.fromkeys(names, widths) for widths in ((4, 4), (8, 8)))) == set()
