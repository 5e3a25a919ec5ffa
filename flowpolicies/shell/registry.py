"""Algorithms by name: those of this package, and those that installed packages name in an entry point.

A package adds one with a line in its own pyproject.toml, and is imported when the name is used for the first time:

    [project.entry-points."flowpolicies.algorithms"]
    awesome = "flowpolicies_awesome:Awesome"
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flowpolicies.messages import did_you_mean
from flowpolicies.plugins import Registry

if TYPE_CHECKING:
    from stable_baselines3.common.type_aliases import GymEnv

    from flowpolicies.shell.algorithm import OfflineAlgorithm

ALGORITHMS: dict[str, type[OfflineAlgorithm]] = {}
"""Name -> class of every algorithm that was declared; those of other packages are added when their name is used."""

REGISTRY: Registry[type[OfflineAlgorithm]] = Registry(
    "algorithm",
    "flowpolicies.algorithms",
    "an algorithm of that name, a subclass of OfflineAlgorithm",
    lambda name, cls: ALGORITHMS.get(name) is cls,  # Declaring the class has entered it.
    ALGORITHMS,
)
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


def register(cls: type[OfflineAlgorithm]) -> None:
    """Enters a class. It may be declared again where it was declared before, as in a notebook.

    Raises:
        TypeError: if it lacks a declaration, or another module has an algorithm of that name.
    """
    missing = [part for part in ("Config", "losses", "networks", "sampler") if part not in cls.__dict__]
    if missing:
        raise TypeError(f"{cls.__name__} must declare {', '.join(missing)}; see CONTRIBUTING.md, 'Adding an algorithm'")
    taken = ALGORITHMS.get(cls.name)
    if taken is not None and taken.__module__ != cls.__module__:
        raise TypeError(
            f"{cls.__name__} of {cls.__module__} would be the algorithm {cls.name!r}, which is the name of "
            f"{taken.__module__}.{taken.__name__}. Declare another one: name = ..."
        )
    ALGORITHMS[cls.name] = cls


def configure(config: type[Any], hyperparameters: Mapping[str, Any], who: str, knobs: Iterable[str]) -> Any:
    """An instance of an algorithm's config.

    Args:
        who: the algorithm, for the error.
        knobs: other keywords that may have been meant.

    Raises:
        TypeError: for an unknown hyperparameter, with the nearest name.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for name in hyperparameters:
        if name not in known:
            shared = [knob for knob in knobs if not knob.startswith("_")]
            hint = did_you_mean({"lr": "learning_rate", "discount": "gamma"}.get(name, name), [*known, *shared])
            raise TypeError(
                f"{who} has no hyperparameter {name!r}; it has {', '.join(known)}, and like all algorithms "
                f"{', '.join(shared)}.{hint}"
            )
    return config(**hyperparameters)
