"""Networks and image encoders by name: those of this package, and those that others register."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from flowpolicies.plugins import Registry

NetworkClass = TypeVar("NetworkClass", bound=type[nn.Module])
EncoderFactory = Callable[[tuple[int, ...]], nn.Module]
"""Shape (C, H, W) of an image -> a module from images `[N, C, H, W]`, values 0 to 255, to features `[N, out_dim]`.

The module has an attribute `out_dim`, the number of its features.
"""
Factory = TypeVar("Factory", bound=EncoderFactory)

NETWORKS: Registry[type[nn.Module]] = Registry(
    "network",
    "flowpolicies.networks",
    "a subclass of torch.nn.Module",
    lambda _, cls: isinstance(cls, type) and issubclass(cls, nn.Module),
)
"""Name -> class of every network."""

ENCODERS: Registry[EncoderFactory] = Registry(
    "encoder",
    "flowpolicies.encoders",
    "a function or class that is called with the shape (C, H, W) of an image",
    lambda _, factory: callable(factory),
)
"""Name -> factory of every encoder of images."""


def register_network(name: str) -> Callable[[NetworkClass], NetworkClass]:
    """Makes a network class known by a name, so that policy files can name it and load it.

    The class is built as `NetworkClass(observation_dim, action_dim, **options)`, with options of plain data:

        @register_network("my_field")
        class MyField(nn.Module): ...

    A package names the class in the entry points `flowpolicies.networks` as well, or instead.

    Args:
        name: how policy files name it. It must be free, and should never change.

    Raises:
        TypeError: if the class is not a subclass of `torch.nn.Module`.
        ValueError: if the name is taken.
    """

    def register(cls: NetworkClass) -> NetworkClass:
        NETWORKS.register(name, cls)
        return cls

    return register


def register_encoder(name: str) -> Callable[[Factory], Factory]:
    """Makes an image encoder known by a name, which every algorithm then takes as its hyperparameter `encoder`.

    The factory is called with the shape (C, H, W) of an image. It returns a module that maps images `[N, C, H, W]`
    with values from 0 to 255 to features `[N, out_dim]` and has the attribute `out_dim`:

        @register_encoder("my_cnn")
        class MyCNN(nn.Module):
            def __init__(self, shape: tuple[int, ...]) -> None: ...

    A package names the factory in the entry points `flowpolicies.encoders` as well, or instead.

    Args:
        name: what `encoder=` and policy files call it. It must be free, and should never change.

    Raises:
        TypeError: if the factory cannot be called.
        ValueError: if the name is taken.
    """

    def register(factory: Factory) -> Factory:
        ENCODERS.register(name, factory)
        return factory

    return register
