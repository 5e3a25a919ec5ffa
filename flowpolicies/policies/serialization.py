"""Networks and samplers as JSON, by name, from a list of known classes: loading a file never executes code."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import nn

from flowpolicies import networks, samplers
from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.samplers import Sampler

Json = dict[str, Any]

NETWORK_CLASSES: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in vars(networks).values() if isinstance(cls, type) and issubclass(cls, nn.Module)
}
# Files keep the name that this class had when the first of them were written.
NETWORK_CLASSES["Gaussian"] = NETWORK_CLASSES.pop("GaussianNetwork")
SAMPLER_CLASSES: dict[str, type[Any]] = {
    cls.__name__: cls for cls in vars(samplers).values() if isinstance(cls, type) and dataclasses.is_dataclass(cls)
}


def network_to_json(name: str, network: Network) -> Json:
    """The declaration of a network.

    Raises:
        TypeError: if its factory is not a class of `flowpolicies.networks`, or a partial of one.
    """
    factory = network.factory if isinstance(network.factory, partial) else partial(network.factory)
    cls = factory.func
    known = next((known for known, network_class in NETWORK_CLASSES.items() if network_class is cls), None)
    if factory.args or known is None:
        raise TypeError(
            f"the factory of network {name!r} cannot be saved without pickle: {network.factory!r} is not "
            f"functools.partial(<one of {', '.join(NETWORK_CLASSES)}>, **options). Save the algorithm instead (a zip)."
        )
    return {
        "type": known,
        "options": factory.keywords,
        "target_rate": network.target_rate,
        "learning_rate": network.learning_rate,
    }


def network_from_json(entry: Mapping[str, Any]) -> Network:
    """Undoes `network_to_json`."""
    cls = _known(entry["type"], NETWORK_CLASSES, "network")
    options = {key: tuple(v) if isinstance(v, list) else v for key, v in entry["options"].items()}
    return Network(partial(cls, **options), entry["target_rate"], entry["learning_rate"])


def sampler_to_json(sampler: Any) -> Json:
    """A sampler and the samplers in it.

    Raises:
        TypeError: if it is not a class of `flowpolicies.samplers`.
    """
    cls = type(sampler)
    if SAMPLER_CLASSES.get(cls.__name__) is not cls:
        raise TypeError(
            f"the sampler {sampler!r} cannot be saved without pickle: {cls.__name__} is not one of "
            f"{', '.join(SAMPLER_CLASSES)}. Set policy.sampler to one of them before saving."
        )
    fields = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}
    return {"type": cls.__name__} | {
        key: sampler_to_json(v) if dataclasses.is_dataclass(v) else v for key, v in fields.items()
    }


def sampler_from_json(entry: Mapping[str, Any]) -> Sampler:
    """Undoes `sampler_to_json`."""
    cls = _known(entry["type"], SAMPLER_CLASSES, "sampler")
    fields = {key: sampler_from_json(v) if isinstance(v, dict) else v for key, v in entry.items() if key != "type"}
    return cls(**fields)  # type: ignore[no-any-return]


def _known(name: str, classes: Mapping[str, Any], kind: str) -> Any:
    if name not in classes:
        hint = did_you_mean(name, classes) or " Was the file written by a newer version of flowpolicies?"
        raise ValueError(f"unknown {kind} {name!r} (known: {', '.join(classes)}).{hint}")
    return classes[name]
