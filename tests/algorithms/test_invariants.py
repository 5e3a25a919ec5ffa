"""Properties that the losses of every algorithm have, and what each of them reads, by the equations of its doc page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from term_values import Values, evaluate, small
from torch import Tensor
from toy_learner import leaves, make_batch

from flowpolicies.core import Batch

ROWS = 14
"""Even, for RQL; no other size is 14 or 7."""
INVALID = 3
"""The row that is not valid, where there is one."""

ACTOR, VALUE = ("actor",), ("value",)
COUNT_INVALID_ROWS: Mapping[str, tuple[str, ...]] = {
    "bam": ACTOR,
    "cac": ACTOR,
    "dac_d4rl": ACTOR,
    "diffusion_ql": ACTOR,
    "dsrl": ("latent_critic", "latent_actor"),
    "fbrac": ACTOR,
    "fedit": ("edit",),
    "fql": ACTOR,
    "idql": VALUE,
    "ifql": VALUE,
    "iql": VALUE,
    "iql_ddpgbc": ("value", "ddpgbc"),
    "qam": ("adjoint",),
    "qam_e": ("adjoint", "edit"),
    "qam_f": ("adjoint", "actor"),
    "qflow_bptt": ("bptt",),
    "qgpo": ("energy",),
    "rebrac": ACTOR,
    "rebrac_qam": ACTOR,
    "rlpd": ACTOR,
    "rlpd_paper": ACTOR,
    "sac": ACTOR,
}
"""Terms in which a row counts that is not valid, as their equations say; a term that is not listed has `valid`."""
COUNT_INVALID_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "dac_d4rl": ACTOR,  # Through mean |Q| of the data, which divides the guidance.
    "idql": VALUE,
    "ifql": VALUE,
    "iql": VALUE,
    "iql_ddpgbc": VALUE,
    "qc": ("flow_matching",),  # Masked by `action_mask` instead, as are the next two.
    "rql": ACTOR,
    "tfql": ACTOR,
}
"""Of the terms above and of those with a mask, those in which also the action of the row counts."""
READ_NEXT: Mapping[str, tuple[str, ...]] = {
    "bc": (),
    "bc_gaussian": (),
    "bc_diffusion": (),
    "rql": VALUE,
    "tfql": ("step_value",),
}
"""Terms that read the next state, if they are not `critic` alone."""

PESSIMISTIC: Mapping[str, tuple[str, ...]] = {
    "bam": ("critic", "actor"),
    "bdpo": ("critic", "inner_value", "actor"),
    "idql": VALUE,
    "ifql": VALUE,
    "iql": ("value", "awr"),
    "iql_ddpgbc": ("value", "ddpgbc"),
    "qflow": ("critic", "inner_value"),
    "qflow_bptt": ("critic", "inner_value"),
    "qgpo": ("critic", "energy"),
    "qipo": ("critic", "actor"),
    "qipo_full": ("critic", "support"),
    "rebrac": ("critic", "actor"),
    "rebrac_qam": ("critic", "actor"),
    "rlpd": ("critic", "actor"),
    "rql": VALUE,
    "sac": ("critic", "actor"),
    "tfql": ("step_value",),
}
"""Terms in which an ensemble becomes one value as `q_agg` and `rho` say, if they are not `critic` alone."""
ALWAYS_MEAN = {"sac": ACTOR, "rlpd": ACTOR}
"""Of these, terms that take mean - rho * std whatever `q_agg` is."""

STEPPED: Mapping[str, tuple[str, ...]] = {
    "bam": ("critic", "actor"),
    "bc": (),
    "bc_diffusion": ("denoising",),
    "bdpo": ("behavior", "critic", "inner_value", "actor"),
    "cac": ("critic", "actor"),
    "dac": ("critic", "actor"),
    "dac_d4rl": ("critic", "actor"),
    "diffusion_ql": ("critic", "actor"),
    "dsrl": ("critic", "latent_critic"),
    "fbrac": ("critic", "actor"),
    "fedit": ("critic", "edit"),
    "fql": ACTOR,
    "idql": ACTOR,
    "ifql": (),
    "qam": ("critic", "adjoint"),
    "qam_e": ("critic", "adjoint", "edit"),
    "qam_f": ("adjoint", "actor"),
    "qflow": ("critic", "inner_value"),
    "qflow_bptt": ("critic", "inner_value", "bptt"),
    "qgpo": ("critic", "energy"),
    "qipo": ("critic", "actor"),
    "qipo_full": ("critic", "support"),
    "qsm": ("critic", "actor"),
    "qsm_online": ("critic", "actor"),
    "rql": ("value", "actor"),
    "tfql": ("step_value", "actor"),
}
"""Terms with as many steps, or noise levels, as are configured, if they are not `critic` alone."""

READ: Mapping[str, Mapping[str, str]] = {
    "bam": {
        "critic": "critic critic' actor_fast",
        "flow_matching": "actor_slow",
        "actor": "critic actor_slow' actor_fast",
    },
    "bc": {"flow_matching": "actor_flow"},
    "bc_gaussian": {"likelihood": "actor"},
    "bc_diffusion": {"denoising": "actor_diffusion"},
    "bdpo": {
        "behavior": "actor_slow",
        "critic": "actor_slow' actor_diffusion' critic critic'",
        "inner_value": "actor_slow' actor_diffusion' critic' inner_value inner_value'",
        "actor": "actor_slow' actor_diffusion critic' inner_value'",
    },
    "cac": {"critic": "critic critic' actor_onestep'", "actor": "critic actor_onestep actor_onestep'"},
    "cgql": {"critic": "critic critic' actor_flow'", "flow_matching": "actor_flow"},
    "cgql_m": {"critic": "critic critic' actor_flow'", "noisy_mse": "critic critic'", "flow_matching": "actor_flow"},
    "cgql_l": {"critic": "critic critic' actor_flow'", "noisy_linex": "critic critic'", "flow_matching": "actor_flow"},
    "dac": {"critic": "critic critic' actor_diffusion", "actor": "critic' actor_diffusion"},
    "dac_d4rl": {
        "critic": "critic critic' actor_diffusion'",
        "actor": "critic' actor_diffusion temperature",
    },
    "diffusion_ql": {"critic": "critic critic' actor_diffusion'", "actor": "critic actor_diffusion"},
    "dsrl": {
        "critic": "critic critic' actor_flow' latent_actor",
        "latent_critic": "critic latent_critic actor_flow'",
        "flow_matching": "actor_flow",
        "latent_actor": "latent_critic latent_actor temperature",
    },
    "fawac": {"critic": "critic critic' actor_flow", "value": "critic' value", "actor": "critic value actor_flow"},
    "fbrac": {"critic": "critic critic' actor_flow", "flow_matching": "actor_flow", "actor": "critic actor_flow"},
    "fedit": {
        "critic": "critic critic' actor_flow edit_actor",
        "flow_matching": "actor_flow",
        "edit": "critic actor_flow edit_actor temperature",
    },
    "fql": {
        "critic": "critic critic' actor_onestep",
        "flow_matching": "actor_flow",
        "actor": "critic actor_flow actor_onestep",
    },
    "idql": {"actor": "actor_diffusion", "value": "critic' value", "critic": "critic value"},
    "ifql": {"value": "critic' value", "critic": "critic value", "flow_matching": "actor_flow"},
    "iql": {"value": "critic' value", "critic": "critic value", "awr": "critic value actor"},
    "iql_ddpgbc": {"value": "critic' value", "critic": "critic value", "ddpgbc": "critic actor"},
    "qam": {
        "critic": "critic critic' actor_fast",
        "flow_matching": "actor_slow",
        "adjoint": "critic' actor_slow' actor_fast",
    },
    "qam_f": {
        "critic": "critic critic' actor_onestep",
        "flow_matching": "actor_slow",
        "adjoint": "critic' actor_slow' actor_fast",
        "actor": "critic actor_fast actor_onestep",
    },
    "qam_e": {
        "critic": "critic critic' actor_fast edit_actor",
        "flow_matching": "actor_slow",
        "adjoint": "critic' actor_slow' actor_fast",
        "edit": "critic actor_fast edit_actor temperature",
    },
    "qc": {"critic": "critic critic' actor_flow", "flow_matching": "actor_flow"},
    "qflow": {
        "critic": "critic critic' actor_flow",
        "inner_value": "critic' inner_value actor_flow",
        "actor": "inner_value actor_flow",
    },
    "qflow_bptt": {
        "critic": "critic critic' actor_flow",
        "inner_value": "critic' inner_value actor_flow",
        "bptt": "inner_value actor_flow",
    },
    "qfql": {"critic": "critic critic' actor_flow", "flow_matching": "actor_flow"},
    "qgpo": {
        "behavior": "actor_diffusion",
        "critic": "actor_diffusion critic critic'",
        "energy": "actor_diffusion critic' inner_value",
    },
    "qipo": {"critic": "critic critic' actor_flow", "actor": "critic actor_flow"},
    "qipo_full": {
        "flow_matching": "actor_flow",
        "critic": "critic critic' actor_flow'",
        "support": "critic actor_flow actor_flow'",
    },
    "qsm": {"critic": "critic critic' actor_diffusion", "actor": "critic' actor_diffusion"},
    "qsm_online": {"critic": "critic critic' actor_diffusion", "actor": "critic actor_diffusion"},
    "rebrac": {"critic": "critic critic' actor'", "actor": "critic actor"},
    "rebrac_qam": {"critic": "critic critic' actor'", "actor": "critic actor"},
    "rql": {"value": "value value' actor_flow", "actor": "value actor_flow"},
    "tfql": {"step_value": "value value' actor_flow", "actor": "value actor_flow"},
    "sac": {"critic": "critic critic' actor", "actor": "critic actor temperature"},
    "rlpd_paper": {"critic": "critic critic' actor temperature", "actor": "critic actor temperature"},
    "rlpd": {"critic": "critic critic' actor", "actor": "critic actor temperature"},
}
"""Networks that each term depends on: its weights, and with ' its slow copy, which equations write with a bar."""


def twice(tensor: Tensor) -> Tensor:
    """Each row twice, in place; draws may have the rows, or half of them, along another axis than the first."""
    axis = next((i for i, size in enumerate(tensor.shape) if size in (ROWS, ROWS // 2)), None)
    return tensor if axis is None else tensor.repeat_interleave(2, axis)


def other(batch: Batch, rows: int | slice, *columns: str) -> Batch:
    """The batch with other numbers in some columns of some rows."""
    changed = {name: getattr(batch, name).clone() for name in columns}
    for column in changed.values():
        column[rows] = 0.7 * column[rows] + 0.1
    return batch._replace(**changed)


def different(a: Values, b: Values) -> set[str]:
    """Terms whose loss or gradient differs."""

    def differ(name: str) -> bool:
        (metrics, grads), (other_metrics, other_grads) = a[name], b[name]
        pairs = zip([metrics["loss"], *leaves(grads)], [other_metrics["loss"], *leaves(other_grads)], strict=True)
        return any(not torch.allclose(x, y, rtol=1e-5, atol=1e-8) for x, y in pairs)

    return {name for name in a if differ(name)}


def test_losses_and_metrics_do_not_depend_on_the_size_of_the_batch(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    batch = batch._replace(valid=(torch.arange(ROWS) % 3 > 0).float())
    once, again = evaluate(algorithm, cfg, batch), evaluate(algorithm, cfg, batch, twice)
    torch.testing.assert_close(again, once, rtol=1e-3, atol=1e-6)


def test_rows_that_are_not_valid_count_where_the_equations_say_so(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    valid, mask = batch.valid.clone(), batch.action_mask.clone()
    valid[INVALID], mask[INVALID] = 0, 0
    masked, unmasked = batch._replace(valid=valid, action_mask=mask), batch._replace(valid=valid)
    everything = ("observations", "actions", "next_observations", "next_actions", "rewards")
    for data, columns, expected in (
        (masked, everything, COUNT_INVALID_ROWS),
        (unmasked, ("actions",), COUNT_INVALID_ACTIONS),
    ):
        values = [evaluate(algorithm, cfg, rows) for rows in (data, other(data, INVALID, *columns))]
        assert different(*values) == set(expected.get(algorithm.name, ()))


def test_the_next_state_counts_in_td_targets_only_and_there_by_the_discount(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    last = batch._replace(discounts=0 * batch.discounts)
    columns, terms = ("next_observations", "next_actions"), READ_NEXT.get(algorithm.name, ("critic",))
    for data, expected in ((batch, set(terms)), (last, set())):
        values = [evaluate(algorithm, cfg, rows) for rows in (data, other(data, slice(None), *columns))]
        assert different(*values) == expected


def test_td_targets_are_those_of_the_next_state_alone(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    terms = set(READ_NEXT.get(algorithm.name, ("critic",))) - {"step_value"}  # Of TFQL, most steps stay in the state.
    before, after = (
        evaluate(algorithm, cfg, rows) for rows in (batch, other(batch, slice(None), "observations", "actions"))
    )
    for term in terms:
        torch.testing.assert_close(after[term][0]["target_mean"], before[term][0]["target_mean"])
        assert not torch.allclose(after[term][0]["loss"], before[term][0]["loss"])


def test_pessimism_and_aggregation_count_where_the_equations_say_so(algorithm) -> None:
    if not hasattr(algorithm.Config(), "rho"):
        assert not hasattr(algorithm.Config(), "ensemble")  # Without a critic.
        return
    batch, terms = make_batch(0, ROWS), set(PESSIMISTIC.get(algorithm.name, ("critic",)))
    mean, pessimistic = (evaluate(algorithm, small(algorithm, q_agg="mean", rho=rho), batch) for rho in (0.0, 0.7))
    assert different(mean, pessimistic) == terms
    options = {"rho": 0.0} if algorithm.Config.uses_rho_with_min else {}
    least = evaluate(algorithm, small(algorithm, q_agg="min", **options), batch)
    assert different(mean, least) == terms - set(ALWAYS_MEAN.get(algorithm.name, ()))


def test_terms_have_the_configured_steps(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    names = ("flow_steps", "diffusion_steps", "beta_schedule", "support_steps", "consistency_steps")
    before, found = evaluate(algorithm, cfg, batch), {}
    for name in (name for name in names if hasattr(cfg, name)):
        value = "cosine" if name == "beta_schedule" else getattr(cfg, name) + 1
        found[name] = different(before, evaluate(algorithm, dataclasses.replace(cfg, **{name: value}), batch))
    terms = set(STEPPED.get(algorithm.name, ("critic",)))
    assert [name for name, depending in found.items() if depending != terms] == []


def test_terms_read_the_networks_and_slow_copies_of_their_equations(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    before = evaluate(algorithm, cfg, batch)
    read: dict[str, set[str]] = {name: set() for name in before}
    for network, spec in cfg.networks(0.01).items():
        for kind, mark in (("params", ""), ("targets", "'"))[: 1 if spec.target_rate is None else 2]:
            for term in different(before, evaluate(algorithm, cfg, batch, disturbed=(kind, network))):
                read[term].add(network + mark)
    assert read == {term: set(names.split()) for term, names in READ[algorithm.name].items()}
