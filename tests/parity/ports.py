"""How each recorded implementation is spelled here: names of networks and hyperparameters, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Port:
    """The translation of one recorded algorithm."""

    algorithm: str
    """Our name."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Recorded network name -> ours, where they differ."""
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    """Our name -> key in the recorded config, where they differ; equal names are taken as they are."""
    derived: Callable[[Config], Mapping[str, Any]] = lambda config: {}
    """Hyperparameters that follow from several recorded ones."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters that the recorded implementation does not name."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Recorded `loss/...` entry -> our metric."""


def _num_qs(config: Config) -> Mapping[str, Any]:
    """The ensemble of QAM's code (`num_qs`) and of Q-Flow's (`num_ensembles`); FQL's code always has two."""
    ensemble = config.get("num_qs", config.get("num_ensembles", 2))
    return {"ensemble": ensemble, "value_layer_norm": config.get("value_layer_norm", config.get("layer_norm", True))}


def _qflow(config: Config) -> Mapping[str, Any]:
    fourier = config.get("use_time_embed", True)
    return {**_num_qs(config), "time_embedding": "fourier" if fourier else "scalar"}


def _ifql(config: Config) -> Mapping[str, Any]:
    qam = "num_qs" in config
    style = {"q_agg": "mean", "critic_weight": 1.0} if qam else {"q_agg": "min", "critic_weight": 2.0}
    return {**_num_qs(config), **style, "expectile": config.get("kappa", config.get("expectile", 0.9))}


FQL_METRICS = {
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/q_mean",
    "critic/q_max": "critic/q_max",
    "critic/q_min": "critic/q_min",
    "actor/bc_flow_loss": "flow_matching/loss",
    "actor/distill_loss": "actor/distill",
    "actor/q_loss": "actor/q_loss",
}

FQL = Port(
    "fql",
    networks={"actor_bc_flow": "actor_flow", "actor_onestep_flow": "actor_onestep"},
    derived=_num_qs,
    metrics=FQL_METRICS,
)
IFQL = Port(
    "ifql",
    derived=_ifql,
    metrics={
        "value/value_loss": "value/loss",
        "value/v_mean": "value/v_mean",
        "critic/critic_loss": "critic/loss",
        "critic/q_mean": "critic/target_mean",  # IQL's code calls its target q.
        "actor/actor_loss": "flow_matching/loss",
    },
)

PORTS: Mapping[str, Port] = {
    "fql": FQL,
    "qam_fql": FQL,
    "ifql": IFQL,
    "qam_ifql": IFQL,
    "qflow": Port(
        "qflow",
        networks={"actor_bc_flow": "actor_flow", "tc_critic": "inner_value"},
        hyperparameters={"time_dim": "time_embed_dim"},
        derived=_qflow,
        metrics={"critic": "critic/loss", "inner_value": "inner_value/loss", "actor": "actor/loss"},
    ),
}
"""Recorded algorithm -> its port. A file `NAME_anything.npz` belongs to the longest NAME that it starts with."""

RECORDED = (
    "bam", "cgql", "cgql_linex", "cgql_mse", "dac", "dsrl", "fawac", "fbrac", "fedit", "fql", "ifql", "iql", "qam",
    "qam_e", "qam_f", "qam_fql", "qam_ifql", "qam_rebrac", "qflow", "qsm", "rebrac", "rql",
)  # fmt: skip
"""Every algorithm of which recordings exist, ported or not: `qam_e_a` must not be taken for `qam`."""


def recorded_name(stem: str) -> str:
    """The recorded algorithm of a file name without its ending."""
    names = [name for name in {*RECORDED, *PORTS} if stem == name or stem.startswith(f"{name}_")]
    return max(names, key=len, default=stem)
