"""Networks from their declarations, and what tensors these declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from flowpolicies.core import Network
from flowpolicies.networks import ENCODERS, Encoded, ObservationEncoder, ObservationPart
from flowpolicies.policies.declared import is_built_in
from flowpolicies.spaces.layout import observation_dim, observation_layout


def build_network(
    spec: Network, observation_space: spaces.Space[Any], encoder: str, chunk_dim: int, scaled: bool = False
) -> nn.Module:
    """A network, of type float32 whatever torch's default type is.

    Args:
        spec: its declaration.
        observation_space: space of the observations.
        encoder: name of the encoder of images.
        chunk_dim: number of elements of an action chunk.
        scaled: whether the numbers of an observation are scaled before the network sees them.

    Raises:
        ValueError: if observations are to be scaled and to go through a feature extractor of Stable-Baselines3.
    """
    if _is_extractor(encoder):
        if scaled:
            raise ValueError(
                "scale observations in the feature extractor, which sees them as they are: pass "
                "observation_scaling='none' with a features_extractor_class."
            )
        factory: Any = ENCODERS.find(encoder)
        return _encoded(factory(observation_space), spec, chunk_dim)
    layout = observation_layout(observation_space)
    if not scaled and not any(entry.image or entry.categories for entry in layout):
        return spec.factory(observation_dim(observation_space), chunk_dim).float()
    parts = [ObservationPart(entry.shape, entry.image, entry.categories) for entry in layout]
    return _encoded(ObservationEncoder(parts, encoder, scaled), spec, chunk_dim)


def _is_extractor(encoder: str) -> bool:
    """Whether an encoder is a feature extractor of Stable-Baselines3, which a user may have written."""
    return bool(getattr(ENCODERS.find(encoder), "encodes_observations", False))


def is_own_encoder(encoder: str) -> bool:
    """Whether an encoder is one of this package, and no feature extractor, which our code only wraps."""
    return ENCODERS.is_built_in(encoder) and not _is_extractor(encoder)


def _encoded(encoder: Any, spec: Network, chunk_dim: int) -> nn.Module:
    head = spec.factory(encoder.out_dim, chunk_dim)
    return (Encoded(encoder, head) if getattr(head, "observes", True) else head).float()


def check_weights(
    networks: Mapping[str, Network],
    observation_space: spaces.Space[Any],
    encoder: str,
    chunk_dim: int,
    weights: Mapping[str, Tensor],
    *,
    scaled: bool = False,
) -> None:
    """Checks that tensors are those of the declared networks, without the memory that these need.

    Networks of other packages that cannot be built without memory are left to `limited`.

    Raises:
        ValueError: if a tensor is missing, unexpected, or has another shape or type.
    """
    expected: dict[str, Tensor] = {}
    for name, spec in networks.items():
        prefixes = ["networks", "targets"] if spec.target_rate is not None else ["networks"]
        try:
            with torch.device("meta"), limited(sum(tensor.numel() for tensor in weights.values())):
                tensors = build_network(spec, observation_space, encoder, chunk_dim, scaled).state_dict()
        except Exception:  # Code of others may fail in any way without memory; `limited` guards its real construction.
            if is_built_in(spec) and is_own_encoder(encoder):
                raise
            tensors = {}
            for prefix in prefixes:  # Their tensors are compared when they are loaded.
                start = f"{prefix}.{name}."
                expected |= {key: tensor for key, tensor in weights.items() if key.startswith(start)}
        expected |= {f"{prefix}.{name}.{key}": tensor for prefix in prefixes for key, tensor in tensors.items()}
    for key in expected.keys() | weights.keys():
        if key not in weights:
            raise ValueError(f"the tensor {key!r} of the declared networks is missing")
        if key not in expected:
            raise ValueError(f"the tensor {key!r} belongs to none of the declared networks")
    for key, tensor in expected.items():
        found = weights[key]
        if (found.shape, found.dtype) != (tensor.shape, tensor.dtype):
            raise ValueError(
                f"the tensor {key!r} is {_described(found)}, and the declared network has {_described(tensor)} there"
            )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raises a ValueError for a weight that is NaN or infinite."""
    for key, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError(f"the tensor {key!r} holds values that are NaN or infinite")


@contextmanager
def limited(elements: int) -> Iterator[None]:
    """Refuses to build modules with more parameters than a number of elements.

    Raises:
        ValueError: as soon as there are more.
    """
    built = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built
        built += 0 if parameter is None else parameter.numel()
        if built > elements:
            raise ValueError(f"the declared networks have more than the {elements:,} parameters of the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()
