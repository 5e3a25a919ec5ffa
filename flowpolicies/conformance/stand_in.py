"""A class in the place of one of Stable-Baselines3's, for Stable-Baselines3's own tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import stable_baselines3

Translate = Callable[[dict[str, Any]], dict[str, Any]]


class StandIn(type):
    """The type of a stand-in: calling it builds a model of its `target`, and everything else is its target's too."""

    target: Any
    arguments: dict[str, Any]
    translate: Translate | None

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        given = kwargs if cls.translate is None else cls.translate(dict(kwargs))
        return cls.target(*args, **{**cls.arguments, **given})

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.target, name)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.target)

    def __subclasscheck__(cls, subclass: Any) -> bool:
        return subclass is cls or issubclass(subclass, cls.target)


def stand_in(target: type, name: str, arguments: Mapping[str, Any], translate: Translate | None) -> StandIn:
    """A class of another name that builds models of `target`.

    Args:
        target: the class that is built.
        name: name of the class that it stands in for.
        arguments: constructor arguments of every model, unless a call gives others.
        translate: turns the keyword arguments of a call into those of the target; None: they are passed on as they are.
    """
    made = StandIn(name, (), {})
    made.target, made.arguments, made.translate = target, dict(arguments), translate
    return made


def put_in_place(target: type, name: str, arguments: Mapping[str, Any], translate: Translate | None = None) -> None:
    """Replaces a class of `stable_baselines3`, before test modules import it from there.

    Raises:
        ValueError: if Stable-Baselines3 has no class of that name.
    """
    if not isinstance(getattr(stable_baselines3, name, None), type):
        raise ValueError(f"stable_baselines3 has no class {name!r}; the tests use SAC, TD3 and DDPG, among others")
    setattr(stable_baselines3, name, stand_in(target, name, arguments, translate))
