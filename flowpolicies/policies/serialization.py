"""Networks, samplers and encoders as JSON in policy files. Loading a file executes nothing that the file names.

What belongs to flowpolicies is written by its name. What belongs to somebody else is also written with its class and
its package, so that a process in which it is missing can say what to install. Only registered names are loaded: built
in, declared in this process, or an entry point of an installed package (see `flowpolicies.plugins`).
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from torch import nn

from flowpolicies.core import Network
from flowpolicies.messages import did_you_mean
from flowpolicies.networks import ENCODERS, NETWORKS
from flowpolicies.plugins import Registry, home_of, package_of
from flowpolicies.samplers import SAMPLERS, Sampler

Json = dict[str, Any]
T = TypeVar("T")


def network_to_json(name: str, network: Network) -> Json:
    """The declaration of a network.

    Args:
        name: how the policy calls the network, for the error.
        network: its declaration.

    Raises:
        TypeError: if its factory is not a class, or a `functools.partial` of a class with options of plain data.
    """
    factory = network.factory if isinstance(network.factory, partial) else partial(network.factory)
    cls: Any = factory.func
    if factory.args or not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise TypeError(
            f"the factory of network {name!r} cannot be saved without pickle: {network.factory!r} is not a subclass of "
            "torch.nn.Module, or functools.partial(Class, **options) of one. Use one of these, or save the whole model "
            "instead: model.save(path)."
        )
    return {
        **_reference(NETWORKS, cls),
        "options": {
            key: _plain(value, f"the option {key!r} of network {name!r}") for key, value in factory.keywords.items()
        },
        "target_rate": network.target_rate,
        "learning_rate": network.learning_rate,
    }


def network_from_json(entry: Mapping[str, Any]) -> Network:
    """The network that `network_to_json` described.

    Raises:
        ValueError: if its class is not known here; the message names the package.
        ImportError: if the package of its class cannot be imported.
    """
    written = _object(_part(entry, "options"), "the options of a network")
    options = {key: _from_plain(value) for key, value in written.items()}
    rates = (_part(entry, key) for key in ("target_rate", "learning_rate"))
    return Network(partial(_resolve(NETWORKS, entry), **options), *rates)


def sampler_to_json(sampler: Any) -> Json:
    """A sampler, with the samplers inside.

    Raises:
        TypeError: if it is not a dataclass whose fields are plain data and samplers.
    """
    cls = type(sampler)
    if not dataclasses.is_dataclass(cls):
        raise TypeError(
            f"the sampler {sampler!r} cannot be saved without pickle: {cls.__name__} is not a dataclass. Make it a "
            "frozen dataclass with fields of plain data, or set policy.sampler to another sampler before saving."
        )
    reference = _reference(SAMPLERS, cls)
    fields = {
        field.name: _plain(getattr(sampler, field.name), f"the field {field.name!r} of the sampler {cls.__name__}")
        for field in dataclasses.fields(sampler)
        if field.init
    }
    return {**reference, **fields} if _is_built_in(reference) else {**reference, "fields": fields}


def sampler_from_json(entry: Mapping[str, Any]) -> Sampler:
    """The sampler that `sampler_to_json` described.

    Raises:
        ValueError: if its class is not known here (the message names the package), or has other fields.
        ImportError: if the package of its class cannot be imported.
    """
    cls = _resolve(SAMPLERS, _object(entry, "a sampler"))
    ours = _is_built_in(entry)
    written = {key: value for key, value in entry.items() if key != "type"} if ours else _part(entry, "fields")
    written = _object(written, "the fields of a sampler")
    fields = {key: _from_plain(value) for key, value in written.items()}
    try:
        sampler: Sampler = cls(**fields)
    except TypeError as error:
        raise ValueError(
            f"the sampler {entry['type']!r} does not take the fields {', '.join(fields)} of the policy file ({error}). "
            f"Install the version of {entry.get('package') or 'flowpolicies'} that wrote the file."
        ) from error
    return sampler


def encoder_to_json(name: str) -> str | Json:
    """The name of an image encoder; with its factory and package if it is not built in."""
    if ENCODERS.is_built_in(name) or name not in ENCODERS:
        return name
    return _described(name, ENCODERS.find(name))


def encoder_from_json(entry: str | Mapping[str, Any]) -> str:
    """The name of the encoder that `encoder_to_json` described.

    Raises:
        ValueError: if it is not known here; the message names the package.
        ImportError: if its package cannot be imported.
    """
    if isinstance(entry, str):
        ENCODERS.check_known(entry)
        return entry
    _resolve(ENCODERS, entry)
    return str(entry["type"])


def _object(value: Any, what: str) -> Mapping[str, Any]:
    """The value, if it is a JSON object.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{what} must be described by an object, got {reprlib.repr(value)}")
    return value


def _part(entry: Mapping[str, Any], key: str) -> Any:
    if key not in _object(entry, "a network, sampler or encoder"):
        raise ValueError(f"the description of {reprlib.repr(entry.get('type', entry))} lacks {key!r}")
    return entry[key]


def _plain(value: Any, what: str) -> Any:
    """A value as JSON. Dicts are wrapped, as a bare dict in a file is a sampler.

    Raises:
        TypeError: if it is not plain data or a sampler.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, what) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"dict": {key: _plain(item, what) for key, item in value.items()}}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return sampler_to_json(value)
    raise TypeError(
        f"{what} cannot be saved without pickle: {value!r} is not plain data (a number, text, True, False, None, or a "
        "tuple, list or dict of these). Replace it by plain data, or save the whole model instead: model.save(path)."
    )


def _from_plain(value: Any) -> Any:
    """The value that `_plain` wrote; sequences come back as tuples, so that frozen dataclasses stay hashable."""
    if isinstance(value, list):
        return tuple(map(_from_plain, value))
    if isinstance(value, dict) and "type" in value:
        return sampler_from_json(value)
    if isinstance(value, dict):
        return {key: _from_plain(item) for key, item in _object(_part(value, "dict"), "a dict").items()}
    return value


def _reference(registry: Registry[Any], cls: type[Any]) -> Json:
    """How a file names a class: by its registered name, else by its module and qualified name."""
    name = registry.name_of(cls)
    if name is not None and registry.is_built_in(name):
        return {"type": name}
    return _described(name or ".".join(home_of(cls)), cls)


def _described(name: str, thing: Any) -> Json:
    return {"type": name, "class": ":".join(home_of(thing)), "package": package_of(thing)}


def _is_built_in(entry: Mapping[str, Any]) -> bool:
    return "class" not in entry


def _resolve(registry: Registry[T], entry: Mapping[str, Any]) -> T:
    """The registered object that an entry names.

    Raises:
        ValueError: if there is none, or the one of another package.
        ImportError: if its package cannot be imported.
    """
    name = str(_part(_object(entry, f"a {registry.kind}"), "type"))
    if _is_built_in(entry):
        if not registry.is_built_in(name):
            known = [known for known in registry.declared if registry.is_built_in(known)]
            hint = did_you_mean(name, known) or " Was the file written by a newer version of flowpolicies?"
            raise ValueError(f"unknown {registry.kind} {name!r} (known: {', '.join(known)}).{hint}")
        return registry.declared[name]
    module, _, qualified_name = str(entry["class"]).partition(":")
    found = registry.find(name) if name in registry else registry.find_at((module, qualified_name))
    if found is None:
        raise ValueError(_what_is_missing(registry, entry))
    package, given = entry.get("package"), package_of(found)
    if None not in (package, given) and package != given:
        raise ValueError(
            f"the policy file needs the {registry.kind} {name!r} of the package {package}, but here the package "
            f"{given} provides a {registry.kind} of that name. Install {package} and uninstall {given}."
        )
    return found


def _what_is_missing(registry: Registry[Any], entry: Mapping[str, Any]) -> str:
    """What to do about a name that nobody registered."""
    package, (module, _, cls) = entry.get("package"), str(entry["class"]).partition(":")
    text = f"the policy file needs the {registry.kind} {entry['type']!r}"
    if package is not None and not _is_installed(package):
        return f"{text} of the package {package}, which is not installed. Install it: pip install {package}"
    origin = f" of the package {package}" if package else ""
    registration = f'@register_{registry.kind}("{entry["type"]}")'
    return (
        f"{text}, the class {cls} of the module {module}{origin}, which is not registered in this process. Before "
        f"loading, run or import the code that declares it with {registration}."
    )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
