"""How the authors' implementations are spelled here: names of networks and hyperparameters, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, final

from flowpolicies.messages import did_you_mean

Recorded = Mapping[str, Any]
"""The authors' hyperparameters by their names, with what the weights tell: `recorded_ensemble`, the number of critics,
and `recorded_inputs`, the width of each network's input."""


@final
@dataclass(frozen=True)
class Port:
    """The translation of one implementation."""

    algorithm: str
    """Name of the algorithm here."""
    networks: Mapping[str, str] = field(default_factory=dict)
    """Authors' name of a network -> ours, where they differ."""
    hyperparameters: Mapping[str, str] = field(default_factory=dict)
    """Our name -> authors' name, where they differ; equal names are taken as they are."""
    derived: Callable[[Recorded], Mapping[str, Any]] = lambda recorded: {}
    """Hyperparameters that follow from several recorded ones."""
    needed: tuple[str, ...] = ()
    """Authors' hyperparameters that change how the policy acts, and that the weights do not tell."""
    actor: str = ""
    """Authors' name of a network that takes observations, actions (chunks) and a flow time, and returns actions."""


def _target_entropy(recorded: Recorded) -> Mapping[str, Any]:
    """The multiplier of the edit policy's target entropy, which wins over the multiplier if it is recorded."""
    multiplier, entropy = recorded.get("edit_target_entropy_multiplier", 0.5), recorded.get("edit_target_entropy")
    width = recorded["action_dim"] * (recorded["horizon_length"] if recorded.get("action_chunking") else 1)
    return {"target_entropy_multiplier": multiplier if entropy is None else -entropy / width}


def qam_hyperparameters(recorded: Recorded) -> Mapping[str, Any]:
    """QAM and its variants clip the joint gradient at 1 or not at all."""
    return {**_target_entropy(recorded), "clip_grad_norm": 1.0 if recorded.get("clip_grad", True) else None}


def _qflow(recorded: Recorded) -> Mapping[str, Any]:
    """The inner value sees observation, action and embedded time, and the critic the first two.

    Q-Flow's code for single actions calls its lambda alpha.
    """
    inputs = recorded["recorded_inputs"]
    width = inputs["tc_critic"] - inputs["critic"]
    guidance = {"guidance_lambda": recorded["alpha"]} if "alpha" in recorded else {}
    return {**guidance, **({"time_embedding": "scalar"} if width == 1 else {"time_dim": width})}


FQL = Port(
    "fql", networks={"actor_bc_flow": "actor_flow", "actor_onestep_flow": "actor_onestep"}, actor="actor_bc_flow"
)
_QAM = ("horizon_length", "flow_steps")

PORTS: Mapping[str, Port] = {
    "fql": FQL,
    "qam": Port("qam", derived=qam_hyperparameters, needed=_QAM, actor="actor_fast"),
    "qam_e": Port(
        "qam_e",
        networks={"edit_alpha": "temperature"},
        derived=qam_hyperparameters,
        needed=(*_QAM, "edit_scale"),
        actor="actor_fast",
    ),
    "qam_f": Port(
        "qam_f",
        networks={"one_step_actor": "actor_onestep"},
        hyperparameters={"alpha": "fql_alpha"},
        derived=qam_hyperparameters,
        needed=("horizon_length",),
        actor="actor_fast",
    ),
    "qflow": Port(
        "qflow",
        networks={"actor_bc_flow": "actor_flow", "tc_critic": "inner_value"},
        derived=_qflow,
        needed=("flow_steps",),
        actor="actor_bc_flow",
    ),
    "rql": Port(
        "rql",
        networks={"actor": "actor_flow"},
        hyperparameters={"horizon": "h"},
        needed=("horizon_length", "flow_steps"),
        actor="actor",
    ),
}
"""Name of an algorithm here -> its port."""


def port_of(algorithm: str) -> Port:
    """The translation of an algorithm.

    Raises:
        ValueError: if its checkpoints cannot be imported.
    """
    if algorithm not in PORTS:
        raise ValueError(
            f"checkpoints of {algorithm!r} cannot be imported; those of {', '.join(PORTS)} can."
            f"{did_you_mean(algorithm, PORTS)}"
        )
    return PORTS[algorithm]
