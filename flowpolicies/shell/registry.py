"""Algorithms by name: those of this package, and those that installed packages name in an entry point.

A package adds one with a line in its own pyproject.toml, and is imported when the name is used for the first time:

    [project.entry-points."flowpolicies.algorithms"]
    awesome = "flowpolicies_awesome:Awesome"
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stable_baselines3.common.type_aliases import GymEnv

from flowpolicies.shell import catalog
from flowpolicies.shell.algorithm import ALGORITHMS as ALGORITHMS
from flowpolicies.shell.algorithm import OfflineAlgorithm

if TYPE_CHECKING:
    from flowpolicies.plugins import Registry

REGISTRY: Registry[type[OfflineAlgorithm]] = catalog.REGISTRY
"""Finds algorithms by name, also those of packages that were not imported yet."""


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
        ValueError: for an unknown name, with the nearest one; for a name that two packages provide; and for an entry
            point that does not lead to an algorithm of its name.
        ImportError: if the package of an entry point cannot be imported.
        TypeError: if the name is not a text.
    """
    if not isinstance(name, str):
        raise TypeError(f"an algorithm is named by a text such as 'qflow', got {name!r}")
    return REGISTRY.find(name.lower())
