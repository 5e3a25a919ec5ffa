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
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Recorded `loss/...` entry -> our metric."""
    first_integer: int = 0
    """The least value of recorded integer draws, which is 0 here."""
    invalid_rows: Callable[[Config], Mapping[str, float]] = lambda config: {}
    """Recorded `loss/...` entry -> what it counts for a row that is not valid, and ours does not."""
    variants: tuple[str, Mapping[str, str]] | None = None
    """A key of the recorded config, and for some of its values the port that the recording is for instead."""


def _critics(config: Config) -> Mapping[str, Any]:
    """LayerNorm of the critics; the size of the ensemble is read from the weights (`recorded_ensemble`)."""
    return {
        "ensemble": config["recorded_ensemble"],
        "value_layer_norm": config.get("value_layer_norm", config.get("layer_norm", True)),
    }


def _qflow(config: Config) -> Mapping[str, Any]:
    fourier = config.get("use_time_embed", True)
    return {**_critics(config), "time_embedding": "fourier" if fourier else "scalar"}


def _sum(config: Config) -> float:
    """FQL's code sums its critics' losses, where ours is a mean."""
    return float(config["recorded_ensemble"])


def _iql(config: Config) -> Mapping[str, Any]:
    return {**_critics(config), "q_agg": "min", "critic_weight": _sum(config)}


def _ifql(config: Config) -> Mapping[str, Any]:
    qam = "num_qs" in config
    style = {**_critics(config), "q_agg": "mean", "critic_weight": 1.0} if qam else _iql(config)
    return {**style, "expectile": config.get("kappa", config.get("expectile", 0.9))}


def _rebrac(config: Config) -> Mapping[str, Any]:
    return {**_critics(config), "q_agg": "mean" if "num_qs" in config else "min"}


CRITIC_METRICS = {
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/q_mean",
    "critic/q_max": "critic/q_max",
    "critic/q_min": "critic/q_min",
}
TD_METRICS = CRITIC_METRICS | {"actor/flow_loss": "flow_matching/loss"}

FQL = Port(
    "fql",
    networks={"actor_bc_flow": "actor_flow", "actor_onestep_flow": "actor_onestep"},
    derived=_critics,
    metrics=CRITIC_METRICS
    | {
        "actor/bc_flow_loss": "flow_matching/loss",
        "actor/distill_loss": "actor/distill",
        "actor/q_loss": "actor/q_loss",
    },
)
IQL_METRICS = {
    "value/value_loss": "value/loss",
    "value/v_mean": "value/v_mean",
    "value/v_max": "value/v_max",
    "value/v_min": "value/v_min",
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/target_mean",  # IQL's code calls its target q.
}
IFQL = Port("ifql", derived=_ifql, metrics=IQL_METRICS | {"actor/actor_loss": "flow_matching/loss"})


def _cgql(algorithm: str, **metrics: str) -> Port:
    translated = {f"critic/{theirs}": ours for theirs, ours in metrics.items()}
    return Port(algorithm, networks={"actor": "actor_flow"}, derived=_critics, metrics=TD_METRICS | translated)


def _edit(config: Config) -> Mapping[str, Any]:
    """Edit policies: their target entropy is recorded as a number and, unless None, wins over the multiplier."""
    width = config["action_dim"] * (config["horizon_length"] if config["action_chunking"] else 1)
    recorded = config.get("edit_target_entropy")
    multiplier = config.get("edit_target_entropy_multiplier", 0.5) if recorded is None else -recorded / width
    return {**_critics(config), "target_entropy_multiplier": multiplier}


def _dsrl(config: Config) -> Mapping[str, Any]:
    named = {f"edit_{key}": config[key] for key in ("target_entropy", "target_entropy_multiplier")}
    return _edit({**config, **named})


def _qam(config: Config) -> Mapping[str, Any]:
    """QAM and its variants clip the joint gradient at 1 or not at all; BAM always does."""
    return {**_edit(config), "clip_grad_norm": 1.0 if config.get("clip_grad", True) else None}


EDIT_NETWORKS = {"alpha": "temperature", "edit_alpha": "temperature", "actor_bc_flow": "actor_flow"}
EDIT_METRICS = {
    "actor/bc_flow_loss": "flow_matching/loss",
    "actor/edit_q_loss": "edit/q_loss",
    "actor/edit_entropy_loss": "edit/entropy_loss",
    "actor/edit_alpha_loss": "edit/temperature_loss",
    "actor/edit_entropy": "edit/entropy",
    "actor/edit_alpha": "edit/temperature",
}
ADJOINT_METRICS = TD_METRICS | {
    "actor/adj_loss": "adjoint/loss",
    "actor/adj_max": "adjoint/terminal_max",
    "actor/adj_mean": "adjoint/terminal_mean",
    "actor/adj_std": "adjoint/terminal_std",
}

REBRAC_METRICS = TD_METRICS | {
    "actor/total_loss": "actor/loss",
    "actor/actor_loss": "actor/q_loss",
}


def _score(algorithm: str, guidance: str) -> Port:
    """DAC and QSM: noise levels from 1; the parts of the actor's loss to the power of `valid`, 1 for an invalid row."""
    return Port(
        algorithm,
        networks={"actor": "actor_diffusion"},
        derived=_critics,
        metrics={"critic/critic_loss": "critic/loss", "critic/q": "critic/q_mean", "actor/actor_loss": guidance},
        first_integer=1,
        invalid_rows=lambda config: {"actor/actor_loss": 1.0, "total": 1.0 + config["alpha"]},
    )


PORTS: Mapping[str, Port] = {
    "bam": Port(
        "bam", derived=_critics, metrics=TD_METRICS | {"actor/bam_loss": "actor/loss", "actor/bc_loss": "actor/cost"}
    ),
    "fawac": Port(
        "fawac",
        networks={"actor": "actor_flow"},
        derived=_critics,
        metrics=TD_METRICS | {"critic/value_loss": "value/loss", "actor/actor_loss": "actor/loss"},
    ),
    "fbrac": Port("fbrac", derived=_critics, metrics=TD_METRICS | {"actor/bc_flow_loss": "flow_matching/loss"}),
    "fedit": Port("fedit", networks=EDIT_NETWORKS, derived=_edit, metrics=TD_METRICS | EDIT_METRICS),
    "qam": Port("qam", derived=_qam, metrics=ADJOINT_METRICS),
    "qam_e": Port("qam_e", networks=EDIT_NETWORKS, derived=_qam, metrics=ADJOINT_METRICS | EDIT_METRICS),
    "qam_f": Port(
        "qam_f",
        networks={"one_step_actor": "actor_onestep"},
        hyperparameters={"alpha": "fql_alpha"},
        derived=_qam,
        metrics=ADJOINT_METRICS | {"actor/fql_distill_loss": "actor/distill", "actor/fql_q_loss": "actor/q_loss"},
    ),
    "cgql": _cgql("cgql"),
    "cgql_mse": _cgql("cgql_m", noisy_critic_loss="noisy_mse/error"),
    "cgql_linex": _cgql("cgql_l", noisy_critic_loss="noisy_linex/error"),
    "dac": _score("dac", "actor/guidance"),
    "qsm": _score("qsm", "actor/score_error"),
    "dsrl": Port(
        "dsrl",
        networks={
            "actor_bc_flow": "actor_flow",
            "actor": "latent_actor",
            "alpha": "temperature",
            "z_critic": "latent_critic",
        },
        derived=_dsrl,
        metrics=TD_METRICS
        | {
            "critic/distill_loss": "latent_critic/loss",
            "actor/alpha_loss": "latent_actor/temperature_loss",
            "actor/alpha": "latent_actor/temperature",
            "actor/entropy": "latent_actor/entropy",
        },
    ),
    "fql": FQL,
    "qam_fql": FQL,
    "ifql": IFQL,
    "qam_ifql": IFQL,
    "iql": Port(
        "iql",
        derived=_iql,
        metrics=IQL_METRICS
        | {"actor/actor_loss": "awr/loss", "actor/adv": "awr/advantage", "actor/bc_log_prob": "awr/log_prob"},
        variants=("actor_loss", {"ddpgbc": "iql_ddpgbc"}),
    ),
    "iql_ddpgbc": Port(
        "iql_ddpgbc",
        derived=_iql,
        metrics=IQL_METRICS
        | {"actor/actor_loss": "ddpgbc/loss", "actor/q_loss": "ddpgbc/q_loss", "actor/bc_log_prob": "ddpgbc/log_prob"},
    ),
    "rebrac": Port("rebrac", derived=_rebrac, metrics=REBRAC_METRICS),
    "qam_rebrac": Port("rebrac_qam", derived=_rebrac, metrics=REBRAC_METRICS),
    "qflow": Port(
        "qflow",
        networks={"actor_bc_flow": "actor_flow", "tc_critic": "inner_value"},
        hyperparameters={"time_dim": "time_embed_dim"},
        derived=_qflow,
        metrics={"critic": "critic/loss", "inner_value": "inner_value/loss", "actor": "actor/loss"},
    ),
    "rql": Port(
        "rql",
        networks={"actor": "actor_flow"},
        hyperparameters={"horizon": "h", "ensemble": "ensemble_ct", "value_layer_norm": "layer_norm"},
        metrics={
            "critic_loss": "value/loss",
            "q_mean": "value/v_mean",
            "q_max": "value/v_max",
            "q_min": "value/v_min",
            "bc_loss": "actor/bc_loss",
            "actor_loss": "actor/q_loss",
        },
    ),
}
"""Recorded algorithm -> its port. A file `NAME_anything.npz` belongs to the longest NAME that it starts with."""


def port_of(name: str, config: Config) -> Port:
    """The port of a recorded algorithm with this config."""
    port = PORTS[name]
    key, others = port.variants or ("", {})
    return PORTS[others[config[key]]] if config.get(key) in others else port


def recorded_name(stem: str) -> str:
    """The recorded algorithm of a file name without its ending."""
    names = [name for name in PORTS if stem == name or stem.startswith(f"{name}_")]
    return max(names, key=len, default=stem)
