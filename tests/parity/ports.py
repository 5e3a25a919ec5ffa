"""How each recorded implementation is spelled here, and what its recording holds.

The translations of the algorithms whose checkpoints can be imported are the package's; the others are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowpolicies.importing.ports import FQL as FQL_PORT
from flowpolicies.importing.ports import PORTS as IMPORTED
from flowpolicies.importing.ports import Port, Recorded, qam_hyperparameters


@dataclass(frozen=True)
class Replayed:
    """A recorded algorithm: its translation, and what is compared."""

    port: Port
    """The translation of names."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """Recorded `loss/...` entry -> our metric."""
    first_integer: int = 0
    """The least value of recorded integer draws, which is 0 here."""
    invalid_rows: Callable[[Recorded], Mapping[str, float]] = lambda config: {}
    """Recorded `loss/...` entry -> what it counts for a row that is not valid, and ours does not."""


def _sum(recorded: Recorded) -> float:
    """FQL's code sums its critics' losses, where ours is a mean."""
    return float(recorded["recorded_ensemble"])


def _iql(recorded: Recorded) -> Mapping[str, Any]:
    return {"q_agg": "min", "critic_weight": _sum(recorded)}


def _ifql(recorded: Recorded) -> Mapping[str, Any]:
    style = {"q_agg": "mean", "critic_weight": 1.0} if "num_qs" in recorded else _iql(recorded)
    return {**style, "expectile": recorded.get("kappa", recorded.get("expectile", 0.9))}


def _rebrac(recorded: Recorded) -> Mapping[str, Any]:
    return {"q_agg": "mean" if "num_qs" in recorded else "min"}


CRITIC_METRICS = {
    "critic/critic_loss": "critic/loss",
    "critic/q_mean": "critic/q_mean",
    "critic/q_max": "critic/q_max",
    "critic/q_min": "critic/q_min",
}
TD_METRICS = CRITIC_METRICS | {"actor/flow_loss": "flow_matching/loss"}

FQL = Replayed(
    FQL_PORT,
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
IFQL = Replayed(Port("ifql", derived=_ifql), metrics=IQL_METRICS | {"actor/actor_loss": "flow_matching/loss"})


def _cgql(algorithm: str, **metrics: str) -> Replayed:
    translated = {f"critic/{theirs}": ours for theirs, ours in metrics.items()}
    return Replayed(Port(algorithm, networks={"actor": "actor_flow"}), metrics=TD_METRICS | translated)


def _edit(recorded: Recorded) -> Mapping[str, Any]:
    """Edit policies: their target entropy is recorded as a number and, unless None, wins over the multiplier."""
    return {"target_entropy_multiplier": qam_hyperparameters(recorded)["target_entropy_multiplier"]}


def _dsrl(recorded: Recorded) -> Mapping[str, Any]:
    named = {f"edit_{key}": recorded[key] for key in ("target_entropy", "target_entropy_multiplier")}
    return _edit({**recorded, **named})


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

SOFT_METRICS = {
    "actor/total_loss": "actor/loss",
    "actor/alpha_loss": "actor/temperature_loss",
    "actor/alpha": "actor/temperature",
    "actor/entropy": "actor/entropy",
}
REBRAC_METRICS = TD_METRICS | {
    "actor/total_loss": "actor/loss",
    "actor/actor_loss": "actor/q_loss",
}


def _score(algorithm: str, guidance: str) -> Replayed:
    """DAC and QSM: noise levels from 1; the parts of the actor's loss to the power of `valid`, 1 for an invalid row."""
    return Replayed(
        Port(algorithm, networks={"actor": "actor_diffusion"}),
        metrics={"critic/critic_loss": "critic/loss", "critic/q": "critic/q_mean", "actor/actor_loss": guidance},
        first_integer=1,
        invalid_rows=lambda config: {"actor/actor_loss": 1.0, "total": 1.0 + config["alpha"]},
    )


PORTS: Mapping[str, Replayed] = {
    "bam": Replayed(Port("bam"), TD_METRICS | {"actor/bam_loss": "actor/loss", "actor/bc_loss": "actor/cost"}),
    "fawac": Replayed(
        Port("fawac", networks={"actor": "actor_flow"}),
        TD_METRICS | {"critic/value_loss": "value/loss", "actor/actor_loss": "actor/loss"},
    ),
    "fbrac": Replayed(Port("fbrac"), TD_METRICS | {"actor/bc_flow_loss": "flow_matching/loss"}),
    "fedit": Replayed(Port("fedit", networks=EDIT_NETWORKS, derived=_edit), TD_METRICS | EDIT_METRICS),
    "qam": Replayed(IMPORTED["qam"], ADJOINT_METRICS),
    "qam_e": Replayed(IMPORTED["qam_e"], ADJOINT_METRICS | EDIT_METRICS),
    "qam_f": Replayed(
        IMPORTED["qam_f"],
        ADJOINT_METRICS | {"actor/fql_distill_loss": "actor/distill", "actor/fql_q_loss": "actor/q_loss"},
    ),
    "cgql": _cgql("cgql"),
    "cgql_mse": _cgql("cgql_m", noisy_critic_loss="noisy_mse/error"),
    "cgql_linex": _cgql("cgql_l", noisy_critic_loss="noisy_linex/error"),
    "dac": _score("dac", "actor/guidance"),
    "qsm": _score("qsm", "actor/score_error"),
    "dsrl": Replayed(
        Port(
            "dsrl",
            networks={
                "actor_bc_flow": "actor_flow",
                "actor": "latent_actor",
                "alpha": "temperature",
                "z_critic": "latent_critic",
            },
            derived=_dsrl,
        ),
        TD_METRICS
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
    "iql": Replayed(
        Port("iql", derived=_iql),
        IQL_METRICS
        | {"actor/actor_loss": "awr/loss", "actor/adv": "awr/advantage", "actor/bc_log_prob": "awr/log_prob"},
    ),
    "iql_ddpgbc": Replayed(
        Port("iql_ddpgbc", derived=_iql),
        IQL_METRICS
        | {"actor/actor_loss": "ddpgbc/loss", "actor/q_loss": "ddpgbc/q_loss", "actor/bc_log_prob": "ddpgbc/log_prob"},
    ),
    "rebrac": Replayed(Port("rebrac", derived=_rebrac), REBRAC_METRICS),
    "qam_rebrac": Replayed(Port("rebrac_qam", derived=_rebrac), REBRAC_METRICS),
    "qflow": Replayed(
        IMPORTED["qflow"], {"critic": "critic/loss", "inner_value": "inner_value/loss", "actor": "actor/loss"}
    ),
    "qflow_official": Replayed(
        IMPORTED["qflow"],
        {
            "critic/outer_loss": "critic/loss",
            "critic/q_outer_mean": "critic/q_mean",
            "critic/distillation_loss": "inner_value/loss",
            "critic/q_inner_mean": "inner_value/value",
            "actor/total_loss": "actor/loss",
        },
    ),
    "qc": Replayed(
        Port("qc", networks={"actor_bc_flow": "actor_flow"}, hyperparameters={"num_samples": "actor_num_samples"}),
        CRITIC_METRICS | {"actor/bc_flow_loss": "flow_matching/loss"},
    ),
    "sac": Replayed(
        Port("sac", networks={"alpha": "temperature"}, hyperparameters={"entropy_backup": "backup_entropy"}),
        CRITIC_METRICS | SOFT_METRICS,
    ),
    "rlpd": Replayed(
        Port("rlpd", networks={"alpha": "temperature"}, derived=_dsrl),
        CRITIC_METRICS | SOFT_METRICS,
    ),
    "rql": Replayed(
        IMPORTED["rql"],
        {
            "critic_loss": "value/loss",
            "q_mean": "value/v_mean",
            "q_max": "value/v_max",
            "q_min": "value/v_min",
            "bc_loss": "actor/bc_loss",
            "actor_loss": "actor/q_loss",
        },
    ),
}
"""Name of a port -> the port. Which files are replayed through it is in names.py."""
