"""Embeddings of the flow time."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

TimeEmbedding = Literal["none", "scalar", "fourier"]
"""How a network sees the flow time t. none: not at all; scalar: t itself; fourier: sines and cosines of t."""


def embedding_dim(embedding: TimeEmbedding, time_dim: int) -> int:
    """Number of features that an embedding of the flow time has.

    Raises:
        ValueError: for an odd number of Fourier features, or fewer than 4.
    """
    if embedding == "fourier" and (time_dim % 2 or time_dim < 4):
        raise ValueError(f"time_dim must be even and at least 4 (sines and cosines), got {time_dim}")
    return {"none": 0, "scalar": 1, "fourier": time_dim}[embedding]


def embed_time(t: Tensor, embedding: TimeEmbedding, time_dim: int = 64) -> Tensor:
    """phi(t) = [sin(t w), cos(t w)] with log-spaced frequencies w from 1 to 256, or t itself; `[*, D]`.

    Args:
        t: flow times `[*, 1]`.
    """
    if embedding == "scalar":
        return t
    exponents = torch.linspace(0.0, math.log(256.0), time_dim // 2, device=t.device, dtype=t.dtype)
    angles = t * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)
