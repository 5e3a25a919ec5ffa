"""The source of all randomness in losses and samplers.

A loss or a sampler asks its `noise` for draws. Because draws are data, the same code runs eagerly, compiled,
vectorised over seeds, and on the recorded draws of another implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

Distribution = Literal["normal", "uniform", "integers"]


class Draw(NamedTuple):
    """The kind and the shape of a draw, without its values.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import Draw
        >>> Draw("integers", (4,), high=10).sample(torch.Generator()).shape
        torch.Size([4])
    """

    kind: Distribution
    shape: tuple[int, ...]
    high: int = 0
    """Upper bound of integers, which are in 0..high - 1; other kinds ignore it."""

    def sample(self, generator: torch.Generator) -> Tensor:
        """Values from `generator`, on its device, `[*shape]`."""
        if self.kind == "integers":
            return torch.randint(self.high, self.shape, generator=generator, device=generator.device)
        make = torch.randn if self.kind == "normal" else torch.rand
        return make(self.shape, generator=generator, device=generator.device, dtype=torch.float32)


class Noise(ABC):
    """Source of draws for actions of width `action_dim`.

    Examples:
        >>> from flowpolicies.core import Noise, ZeroNoise
        >>> noise: Noise = ZeroNoise(action_dim=2)
        >>> noise.actions((256,)).shape, noise.times((256,)).shape  # x_0 and t of a batch
        (torch.Size([256, 2]), torch.Size([256, 1]))
    """

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    @abstractmethod
    def draw(self, draw: Draw) -> Tensor:
        """The next draw, `[*draw.shape]`."""

    def actions(self, batch_shape: Sequence[int]) -> Tensor:
        """Standard normal, `[*batch_shape, A]`: x_0, where a flow starts."""
        return self.draw(Draw("normal", (*batch_shape, self.action_dim)))

    def times(self, batch_shape: Sequence[int]) -> Tensor:
        """Uniform flow times in [0, 1), `[*batch_shape, 1]`."""
        return self.draw(Draw("uniform", (*batch_shape, 1)))

    def integers(self, high: int, batch_shape: Sequence[int]) -> Tensor:
        """Uniform over 0..high - 1, `[*batch_shape]`, int64."""
        return self.draw(Draw("integers", tuple(batch_shape), high))


@final
class GeneratorNoise(Noise):
    """Draws from a generator, whose state can be saved and restored.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import GeneratorNoise
        >>> noise = GeneratorNoise(2, torch.Generator().manual_seed(0))
        >>> x_0, t = noise.actions((256,)), noise.times((256,))
    """

    def __init__(self, action_dim: int, generator: torch.Generator) -> None:
        super().__init__(action_dim)
        self.generator = generator

    def draw(self, draw: Draw) -> Tensor:
        return draw.sample(self.generator)


@final
class ZeroNoise(Noise):
    """Every draw is the centre of its distribution: 0 for normal, 1/2 for uniform, high // 2 for integers.

    It makes any sampler deterministic.

    Examples:
        >>> from flowpolicies.core import ZeroNoise
        >>> ZeroNoise(2).actions((1,)), ZeroNoise(2).times((1,))
        (tensor([[0., 0.]]), tensor([[0.5000]]))
    """

    def __init__(self, action_dim: int, device: torch.device | str = "cpu") -> None:
        super().__init__(action_dim)
        self.device = torch.device(device)

    def draw(self, draw: Draw) -> Tensor:
        if draw.kind == "integers":
            return torch.full(draw.shape, draw.high // 2, device=self.device)
        center = 0.0 if draw.kind == "normal" else 0.5
        return torch.full(draw.shape, center, device=self.device, dtype=torch.float32)


@final
class RecordingNoise(Noise):
    """Passes the draws of another noise through, and records which draws were made.

    Examples:
        >>> from flowpolicies.core import RecordingNoise, ZeroNoise
        >>> noise = RecordingNoise(ZeroNoise(2))
        >>> x_0 = noise.actions((256,))
        >>> noise.draws
        [Draw(kind='normal', shape=(256, 2), high=0)]
    """

    def __init__(self, source: Noise) -> None:
        super().__init__(source.action_dim)
        self.source = source
        self.draws: list[Draw] = []

    def draw(self, draw: Draw) -> Tensor:
        self.draws.append(draw)
        return self.source.draw(draw)


@final
class ReplayedNoise(Noise):
    """Returns given draws in order: those of a compiled update, or those recorded from another implementation.

    Args:
        action_dim: width of an action (chunk).
        values: the draws, in the order in which they will be asked for. Their shapes may have other axes of size one
            than those asked for.

    Raises:
        ValueError: when more draws are asked for than were given, or one of another shape.

    Examples:
        >>> import torch
        >>> from flowpolicies.core import ReplayedNoise
        >>> x_0 = torch.randn(256, 2)
        >>> ReplayedNoise(2, [x_0]).actions((256,)) is x_0
        True
    """

    def __init__(self, action_dim: int, values: Iterable[Tensor]) -> None:
        super().__init__(action_dim)
        self.values = list(values)
        self.used = 0

    def draw(self, draw: Draw) -> Tensor:
        shape = tuple(draw.shape)
        if self.used == len(self.values):
            raise ValueError(
                f"draw {self.used} ({draw.kind} {list(shape)}) was asked for, but only {self.used} were recorded"
            )
        value = self.values[self.used]
        self.used += 1
        if tuple(value.shape) == shape:
            return value
        if [n for n in value.shape if n != 1] == [n for n in shape if n != 1]:
            return value.reshape(shape)
        raise ValueError(
            f"draw {self.used - 1} was recorded with shape {list(value.shape)}, asked for with {list(shape)} "
            f"({draw.kind}): the order or the size of the draws differs from the recording"
        )
