"""Algorithms by name: those of this package, and those that installed packages name in an entry point.

A package adds one with a line in its own pyproject.toml, and is imported when the name is used, not before:

    [project.entry-points."flowpolicies.algorithms"]
    awesome = "flowpolicies_awesome:Awesome"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from stable_baselines3.common.type_aliases import GymEnv

from flowpolicies.messages import did_you_mean
from flowpolicies.shell.algorithm import ALGORITHMS as ALGORITHMS
from flowpolicies.shell.algorithm import OfflineAlgorithm

GROUP = "flowpolicies.algorithms"
"""Of the entry points of other packages."""


def make(name: str, env: GymEnv | str | None = None, **options: Any) -> OfflineAlgorithm:
    """A model by the name of its algorithm: `make("qflow", dataset="ogbench:...", guidance_lambda=5.0)`.

    Args:
        name: as `flowpolicies list algorithms` shows it.
        env: as for the class.
        **options: everything else that the class takes, hyperparameters included.

    Raises:
        ValueError: for an unknown name, and what the class raises.
        TypeError: for an unknown option, with the nearest one.
    """
    return get_algorithm(name)("FlowPolicy", env, **options)


def get_algorithm(name: str) -> type[OfflineAlgorithm]:
    """The class of a name, from this package or from an entry point in the group `flowpolicies.algorithms`.

    Raises:
        ValueError: for an unknown name, with the nearest one, and for an entry point that is not what it says.
        ImportError: if the package of an entry point cannot be imported.
        TypeError: if it is no name.
    """
    if not isinstance(name, str):
        raise TypeError(f"an algorithm is named by a text such as 'qflow', got {name!r}")
    key = name.lower()
    if key in ALGORITHMS:
        return ALGORITHMS[key]
    points = third_party()
    if key not in points:
        known = list(dict.fromkeys([*ALGORITHMS, *points]))
        raise ValueError(f"unknown algorithm {name!r} (known: {', '.join(known)}).{did_you_mean(key, known)}")
    return _load(points[key])


def is_built_in(name: str) -> bool:
    """Whether it is the name of an algorithm of this package."""
    return name in ALGORITHMS and ALGORITHMS[name].__module__.startswith("flowpolicies.")


def third_party() -> dict[str, list[EntryPoint]]:
    """Algorithm names of other packages, with their entry points; none is imported. Ours cannot be taken over."""
    found: dict[str, dict[str, EntryPoint]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if not is_built_in(point.name):
            found.setdefault(point.name, {})[point.value] = point  # Once, if a package is on the path twice.
    return {name: list(points.values()) for name, points in found.items()}


def _load(points: list[EntryPoint]) -> type[OfflineAlgorithm]:
    point, givers = points[0], sorted(distribution(point) for point in points)
    if len(points) > 1:
        raise ValueError(
            f"algorithm {point.name!r} is provided more than once, by {', '.join(givers)}. Uninstall all but one."
        )
    try:
        loaded = point.load()
    except Exception as error:  # Anything may go wrong in the code of others.
        raise ImportError(
            f"algorithm {point.name!r} cannot be imported from the package {givers[0]} ({error}). "
            "Repair or uninstall it."
        ) from error
    if ALGORITHMS.get(point.name) is not loaded:
        raise ValueError(
            f"the entry point {point.name!r} of the package {givers[0]} must lead to an algorithm of that name, a "
            f"subclass of OfflineAlgorithm; '{point.value}' is {loaded!r}."
        )
    return ALGORITHMS[point.name]


def distribution(point: EntryPoint) -> str:
    """Name of the package that an entry point belongs to."""
    return point.dist.name if point.dist else "an unknown package"
