"""Addresses of environments that files from outside name, such as the metadata of a dataset or the record of a run."""

from __future__ import annotations

import os

import gymnasium

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.addresses import split_options
from flowpolicies.data.sources import list_sources


def environment_fault(address: object) -> str | None:
    """Why an address of an environment is not followed if a file from outside names it; None: it may be followed.

    It may be an id that is registered in Gymnasium, or "source:name" with a source of environments of an installed
    package. "module:EnvId" would import any module, also as an option of an environment that wraps others, and the
    option `trust` would trust whatever else the file names.

    Returns:
        The end of a sentence about the environment, such as "is not registered in Gymnasium".
    """
    if not isinstance(address, str):
        return "is not text"
    try:
        base, options = split_options(address)
    except ValueError as error:
        return f"is not an address ({error})"
    if "trust" in options:
        return "asks for trust itself"
    source, colon, _ = base.partition(":")
    if colon:
        is_source = source in list_sources("environments")
        return None if is_source else f"does not begin with a source of environments, but with '{source[:80]}'"
    if base not in gymnasium.registry:
        return "is not registered in Gymnasium"
    return "has an option with a colon, which may name a module" if ":" in address else None


def check_environment(address: object, path: str | os.PathLike[str]) -> str:
    """An address of an environment that a file from outside names, if it may be followed.

    Args:
        address: the address.
        path: path of the file.

    Raises:
        ArtifactError: if it may not, see `environment_fault`.
    """
    if (fault := environment_fault(address)) is not None:
        raise ArtifactError(
            path,
            f"it names the environment {str(address)[:200]!r}, which {fault}",
            hint="Files do not decide which modules are imported: pass --env ADDRESS yourself.",
        )
    return str(address)
