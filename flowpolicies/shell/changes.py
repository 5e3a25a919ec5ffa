"""Changes of hyperparameters after a model was built: which are possible, and which would need other networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any, NamedTuple

from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.shell.config import PolicyConfig, current_names

FIXED = ("horizon", "encoder", "observation_scaling", "observation_gain", "reward_scaling", "reward_gain")
"""Fields that decide the inputs and outputs of all networks, and the unit of values."""


class LoadChanges(NamedTuple):
    """What `load` is asked to change, sorted by who applies it."""

    attributes: dict[str, Any]
    """Attributes of the model, which Stable-Baselines3 sets: hyperparameters such as gamma, and others."""
    hyperparameters: dict[str, Any]
    """Fields of the Config."""
    custom_objects: dict[str, Any] | None
    """Objects that replace those of the file when it is read, as in Stable-Baselines3."""


def sort_changes(
    who: str,
    config: type[PolicyConfig],
    keywords: Mapping[str, Any],
    custom_objects: Mapping[str, Any] | None,
    known: Iterable[str],
) -> LoadChanges:
    """Sorts the keywords of `load` into fields of the Config and attributes of the model.

    Args:
        who: class name of the algorithm, for the error.
        config: its Config.
        keywords: what `load` was given.
        custom_objects: as of Stable-Baselines3; fields of the Config may be among them.
        known: names of attributes that may be changed; names that begin with an underscore are not checked.

    Raises:
        TypeError: for a keyword that is neither.
    """
    own = {field.name for field in fields(config)}
    given, objects = current_names(config, keywords), current_names(config, custom_objects or {})
    allowed = set(known)
    for name in given:
        if name not in own and name not in allowed and not name.startswith("_"):
            raise TypeError(
                f"{who}.load() got the keyword {name!r}, which is neither a hyperparameter of {who} nor an attribute "
                f"that can be changed.{did_you_mean(name, [*own, *allowed])}"
            )
    return LoadChanges(
        {name: value for name, value in given.items() if name not in own},
        {name: value for part in (objects, given) for name, value in part.items() if name in own},
        {name: value for name, value in objects.items() if name not in own} or None,
    )


def changed_config(config: PolicyConfig, changes: Mapping[str, Any], who: str) -> PolicyConfig:
    """The config with some fields changed.

    Args:
        config: the config of the built model.
        changes: new values of fields by name.
        who: class name of the algorithm, for the error.

    Raises:
        ValueError: for a field that the networks depend on, by its name, and for a value out of its range.
        TypeError: for a value of another type.
    """
    refused = [name for name, value in changes.items() if _needs_other_networks(config, name, value)]
    if refused:
        now = ", ".join(f"{name}={getattr(config, name)!r}" for name in refused)
        raise ValueError(
            f"{', '.join(refused)} cannot be changed in an existing model of {who}, because the networks depend on it "
            f"(they were built with {now}). Build a new model: {who}({', '.join(f'{name}=...' for name in refused)})."
        )
    return replace(config, **changes)


def _needs_other_networks(config: PolicyConfig, name: str, value: Any) -> bool:
    if getattr(config, name) == value:
        return False
    if name in FIXED:
        return True
    before, after = (_architecture(cfg.networks(1.0)) for cfg in (config, replace(config, **{name: value})))
    return before != after


def _architecture(networks: Mapping[str, Network]) -> dict[str, tuple[Any, ...]]:
    """Name of each network -> what it is built from, and whether it has a target copy."""
    found = {}
    for name, network in networks.items():
        factory = network.factory if isinstance(network.factory, partial) else partial(network.factory)
        options = tuple(sorted(factory.keywords.items(), key=lambda item: item[0]))
        found[name] = (factory.func, factory.args, options, network.target_rate is None)
    return found
