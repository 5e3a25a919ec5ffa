"""The declaration of a policy in files: its versions, and how an older one becomes the newest, in memory.

A change of what files declare raises `VERSION` by one, adds a function to `MIGRATIONS`, and adds a file of the version
before to `tests/saved/pretrained`. Files themselves are never rewritten.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.containers import Header
from flowpolicies.version import __version__

FORMAT = "flowpolicies.policy"
VERSION = 4
"""Version of the files that are written. Version 2 lists the keys of a Dict space in their order. Files of version 1
hold the keys in the same order, but the versions of flowpolicies that wrote them sorted the keys when they read one.
Version 3 says whether networks scale the numbers of an observation, version 4 by which factor rewards were scaled."""


def _list_keys_in_order(declaration: dict[str, Any]) -> dict[str, Any]:
    """From version 1: an explorer is optional, and the order of a Dict's keys is that in which the file holds them."""
    spaces = {key: _with_order(declaration[key]) for key in ("observation_space", "action_space")}
    return {"explorer": None, "explore_with": [], **declaration, **spaces}


def _with_order(space: Mapping[str, Any]) -> dict[str, Any]:
    if space.get("type") != "Dict":
        return dict(space)
    parts = {key: _with_order(part) for key, part in space["spaces"].items()}
    return {"type": "Dict", "order": list(parts), "spaces": parts}


def _say_that_nothing_is_scaled(declaration: dict[str, Any]) -> dict[str, Any]:
    """From version 2, whose networks see observations as they are."""
    return {"scaled": False, **declaration}


def _say_that_rewards_are_not_scaled(declaration: dict[str, Any]) -> dict[str, Any]:
    """From version 3, whose networks learned from rewards as they are."""
    return {"reward_factor": 1.0, **declaration}


MIGRATIONS: Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _list_keys_in_order,
    2: _say_that_nothing_is_scaled,
    3: _say_that_rewards_are_not_scaled,
}
"""Version -> function that makes a declaration of the next version."""


def newest(declaration: Any, path: str | os.PathLike[str], place: str, key: str = "version") -> dict[str, Any]:
    """A declaration of any version as one of version `VERSION`, without its format and version.

    Args:
        declaration: JSON data of a file.
        path: path of the file, for errors.
        place: where in the file the declaration is, for errors.
        key: key of its version.

    Raises:
        ArtifactError: if it is of another format, of a newer version, or damaged.
    """
    if not isinstance(declaration, dict) or declaration.get("format") != FORMAT:
        given = declaration.get("format") if isinstance(declaration, dict) else declaration
        raise ArtifactError(path, f"its format is {given!r:.100}, but must be {FORMAT!r}", place=place)
    version = declaration.get(key)
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise ArtifactError(path, f"{key} is {version!r:.100}, but must be a number from 1 to {VERSION}", place=place)
    if version > VERSION:
        raise ArtifactError(
            path,
            f"{key} is {version}, but flowpolicies {__version__} reads versions 1 to {VERSION}",
            place=place,
            hint="A newer flowpolicies wrote it: pip install --upgrade flowpolicies.",
        )
    found = {name: value for name, value in declaration.items() if name not in ("format", key)}
    with reading(path, place, "The file is damaged, or not one that flowpolicies wrote."):
        for step in range(version, VERSION):
            found = MIGRATIONS[step](found)
    return found


def declared(header: Header, path: str) -> dict[str, Any]:
    """The declaration in the header of a policy file, as one of the newest version.

    Raises:
        ArtifactError: if there is none, or one of another format or of a newer version.
    """
    place = "the config in the header"
    return newest(parse_json(header.metadata.get("config", "{}"), path, place), path, place)
