"""The declaration of a policy file, checked as a whole before any network is built."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from gymnasium import spaces
from torch import Tensor

from flowpolicies.policies.building import check_weights
from flowpolicies.policies.declared import MAX_HORIZON, MAX_NETWORKS, check_count, check_networks, check_sampler
from flowpolicies.policies.serialization import encoder_from_json, network_from_json, sampler_from_json
from flowpolicies.spaces.json import space_from_json
from flowpolicies.spaces.layout import check_action_space


def policy_from_json(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of `FlowPolicy`, from the declaration in a policy file.

    Args:
        config: the declaration.
        weights: tensors of the file by name, to which the declared networks are compared.

    Raises:
        ValueError: for a part that is missing or of another kind, a number beyond its bound, tensors that are not those
            of the declared networks, and a class that is not known here; the message names its package.
        ImportError: if the package of a class cannot be imported.
    """
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(f"the declaration lacks {', '.join(missing)}")
    declared = config["networks"]
    if not isinstance(declared, dict) or len(declared) > MAX_NETWORKS:
        raise ValueError(f"the networks must be an object of at most {MAX_NETWORKS} networks")
    networks = {name: network_from_json(entry) for name, entry in declared.items()}
    check_networks(networks)
    observation_space = space_from_json(config["observation_space"])
    action_space = check_action_space(space_from_json(config["action_space"]), "FlowPolicy")
    horizon = check_count("horizon", config["horizon"], MAX_HORIZON)
    execute = check_count("execute", config["execute"], horizon)
    samplers = {
        key: sampler_from_json(config[key]) if config.get(key) is not None else None for key in ("sampler", "explorer")
    }
    encoder = encoder_from_json(config["encoder"])
    for key, sampler in samplers.items():
        if sampler is not None:
            check_sampler(sampler, networks, key)
    slow = [name for name, network in networks.items() if network.target_rate is not None]
    if not isinstance(scaled := config["scaled"], bool):
        raise ValueError(f"scaled must be true or false, got {reprlib.repr(scaled)}")
    factor = config["reward_factor"]
    if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 < factor < math.inf:
        raise ValueError(f"reward_factor must be a positive number, got {reprlib.repr(factor)}")
    check_weights(networks, observation_space, encoder, horizon * math.prod(action_space.shape), weights, scaled=scaled)
    return {
        "observation_space": observation_space,
        "action_space": action_space,
        "networks": networks,
        **samplers,
        "act_with": _names(config["act_with"], slow, "act_with"),
        "explore_with": _names(config.get("explore_with", []), slow, "explore_with"),
        "horizon": horizon,
        "execute": execute,
        "encoder": encoder,
        "scaled": scaled,
        "reward_factor": float(factor),
    }


_REQUIRED = (
    "observation_space",
    "action_space",
    "networks",
    "sampler",
    "act_with",
    "horizon",
    "execute",
    "encoder",
    "scaled",
    "reward_factor",
)


def _names(given: Any, known: list[str], what: str) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(name, str) and name in known for name in given):
        raise ValueError(
            f"{what} must list networks that have a slow copy ({', '.join(known) or 'none'}), got {reprlib.repr(given)}"
        )
    return tuple(given)


def check_declared(
    observation_space: spaces.Space[Any],
    action_space: spaces.Box,
    arguments: Mapping[str, Any],
    weights: Mapping[str, Tensor],
) -> None:
    """Checks the arguments of a policy that a model zip declares against the tensors in it.

    Args:
        observation_space: space of the observations.
        action_space: space of the actions.
        arguments: further arguments of `FlowPolicy`.
        weights: tensors of the file by name.

    Raises:
        ValueError: as `policy_from_json`.
    """
    networks, horizon = arguments["networks"], check_count("horizon", arguments["horizon"], MAX_HORIZON)
    check_networks(networks)
    for key in ("sampler", "explorer"):
        if arguments[key] is not None:
            check_sampler(arguments[key], networks, key)
    chunk_dim = horizon * math.prod(action_space.shape)
    scaled = arguments["scaled"]
    check_weights(networks, observation_space, arguments["encoder"], chunk_dim, weights, scaled=scaled)
