"""What metadata may name without the user's trust: registered environments and some of Gymnasium's wrappers."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping

import gymnasium
from gymnasium.envs.registration import WrapperSpec

from flowpolicies.data import foreign

PACKAGES = ("gymnasium_robotics", "minigrid", "ale_py", "ogbench")
"""Packages that are imported to register their environments, if a specification names one of them."""

WRAPPERS = {
    "AddRenderObservation",
    "AddWhiteNoise",
    "AtariPreprocessing",
    "Autoreset",
    "ClipAction",
    "ClipReward",
    "DelayObservation",
    "DiscretizeAction",
    "DiscretizeObservation",
    "DtypeObservation",
    "FilterObservation",
    "FlattenObservation",
    "FrameStackObservation",
    "GrayscaleObservation",
    "MaxAndSkipObservation",
    "NormalizeObservation",
    "NormalizeReward",
    "ObstructView",
    "OrderEnforcing",
    "PassiveEnvChecker",
    "RecordEpisodeStatistics",
    "RepeatAction",
    "RescaleAction",
    "RescaleObservation",
    "ReshapeObservation",
    "ResizeObservation",
    "StickyAction",
    "TimeAwareObservation",
    "TimeLimit",
}
"""Gymnasium's wrappers that only compute. Those that write files, open windows or call given functions are missing."""

_WORD = re.compile(r"(?![.~])[\w.+\- ]{0,100}")
"""Text that is neither a path nor an address, and does not name a module."""


def register_known_package(entry_point: object) -> None:
    """Imports the package of an entry point if it is one of `PACKAGES`, so that its environments are registered.

    Raises:
        ImportError: if it is one of them, and is not installed.
    """
    package = str(entry_point).partition(":")[0].partition(".")[0]
    for known in PACKAGES:
        if package == known:
            importlib.import_module(known)


def environment_fault(id: str, kwargs: object) -> str | None:
    """Why an environment is not made from metadata, as the end of a sentence about it; None: it may be made."""
    if id not in gymnasium.registry:
        return "is not registered in Gymnasium"
    return arguments_fault(kwargs)


def wrapper_fault(wrapper: WrapperSpec) -> str | None:
    """Why a wrapper is not applied from metadata, as the end of a sentence about it; None: it may be applied."""
    module, _, name = str(wrapper.entry_point).partition(":")
    if module.partition(".")[0] != "gymnasium" or name not in WRAPPERS:
        return f"({wrapper.entry_point}) is not one of Gymnasium's wrappers that only compute"
    return arguments_fault({} if wrapper.kwargs is None else wrapper.kwargs)


def address_fault(address: object) -> str | None:
    """Why an address of an environment is not followed from metadata, as the end of a sentence; None: it may be."""
    if isinstance(address, str) and address.startswith("minari:"):  # It could name itself.
        return "is that of another Minari dataset"
    return foreign.environment_fault(address)


def arguments_fault(value: object, place: str = "its arguments") -> str | None:
    """What in keyword arguments may be a path, an address or a module, as the end of a sentence; None: nothing."""
    if isinstance(value, Mapping):
        parts = [(f"the argument '{key}'", part) for key, part in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(place, part) for part in value]
    elif isinstance(value, str):
        return None if _WORD.fullmatch(value) else f"has {place} {value[:80]!r}, which may be a path or an address"
    else:
        is_plain = value is None or isinstance(value, bool | int | float)
        return None if is_plain else f"has {place} of type {type(value).__name__}"
    return next((fault for name, part in parts if (fault := arguments_fault(part, name)) is not None), None)
