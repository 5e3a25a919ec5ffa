"""Encoders of images, of categories, and of dictionaries that contain them.

Inside the library an observation is one flat vector `[*, O]`, whatever the space: losses and samplers see no images.
`ObservationEncoder` knows the layout of that vector, cuts it into its parts, and returns features `[*, F]`. The IMPALA
encoders are those of OGBench (github.com/seohongpark/ogbench, impls/utils/encoders.py). Other packages add theirs with
`flowpolicies.networks.register_encoder`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowpolicies.moved import moved_names
from flowpolicies.networks.mlp import Dense, gelu
from flowpolicies.networks.registry import ENCODERS

ImpalaVariant = Literal["impala_small", "impala", "impala_large", "impala_debug"]

_VARIANTS: dict[ImpalaVariant, tuple[tuple[int, ...], int, int]] = {
    "impala_small": ((16, 32, 32), 1, 512),
    "impala": ((16, 32, 32), 2, 512),
    "impala_large": ((64, 128, 128), 2, 1024),
    "impala_debug": ((4, 4), 1, 512),
}
"""Variant -> channels of each stack, number of residual blocks per stack, number of features."""


class ObservationPart(NamedTuple):
    """A contiguous piece of the flat observation vector.

    Examples:
        >>> from flowpolicies.networks import ObservationPart
        >>> camera, velocities = ObservationPart((3, 64, 64), image=True), ObservationPart((6,), image=False)
        >>> camera.size + velocities.size  # components of the flat observation
        12294
    """

    shape: tuple[int, ...]
    """Shape of the piece: (C, H, W) for an image, any shape for other numbers."""
    image: bool
    """Whether the piece is an image with values from 0 to 255."""
    categories: tuple[tuple[int, int], ...] = ()
    """Smallest value and number of values of each element, if the elements are categories; empty for numbers."""

    @property
    def size(self) -> int:
        """How many components of the observation vector the piece has."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """Number of features of a piece that is not an image."""
        return sum(n for _, n in self.categories) if self.categories else self.size


@final
class _Convolution(nn.Conv2d):
    """A 3x3 convolution that keeps the size of images. With a weight in bfloat16 its products are in bfloat16."""

    factors = ("weight",)

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(in_channels, channels, 3, padding=1, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.bfloat16:
            rounded = F.conv2d(x.to(torch.bfloat16), self.weight, padding=1)
            return rounded.float() + self.bias[:, None, None]  # type: ignore[index]
        return super().forward(x)


@final
class _Stack(nn.Module):
    """A convolution, max pooling that halves the image, and residual blocks."""

    def __init__(self, in_channels: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.entry = _Convolution(in_channels, channels)
        self.blocks = nn.ModuleList(
            nn.ModuleList(_Convolution(channels, channels) for _ in range(2)) for _ in range(blocks)
        )

    def forward(self, x: Tensor) -> Tensor:
        # "SAME" pooling of an even size pads only below and to the right; nn.MaxPool2d(3, 2, 1) is aligned differently.
        height, width = x.shape[-2:]
        padding = (width % 2, 1, height % 2, 1)
        x = F.max_pool2d(F.pad(self.entry(x), padding, value=-math.inf), 3, 2)
        for block in self.blocks:
            first, second = cast(nn.ModuleList, block)
            x = x + second(F.relu(first(F.relu(x))))
        return x


@final
class _Impala(nn.Module):
    """Images `[N, C, H, W]` with values in 0..255 -> features `[N, F]`."""

    def __init__(self, shape: tuple[int, ...], variant: ImpalaVariant) -> None:
        super().__init__()
        channels, blocks, self.out_dim = _VARIANTS[variant]
        widths = (shape[0], *channels)
        self.stacks = nn.ModuleList(_Stack(i, o, blocks) for i, o in pairwise(widths))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        height, width = shape[1:]
        for _ in channels:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
        self.output = Dense(channels[-1] * height * width, self.out_dim)

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / 255
        for stack in self.stacks:
            x = stack(x)
        # Flattened in (H, W, C) order, as the authors' channels-last networks do.
        return gelu(self.output(F.relu(x).movedim(-3, -1).flatten(-3)))


@final
class _OneHot(nn.Module):
    """Categories `[*, K]` -> their one-hot vectors, concatenated, `[*, sum of the numbers of values]`.

    Args:
        categories: smallest value and number of values of each of the K elements.
    """

    owner: Tensor
    values: Tensor

    def __init__(self, categories: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        counts = torch.tensor([n for _, n in categories])
        values = [torch.arange(start, start + n, dtype=torch.float32) for start, n in categories]
        total = sum(n for _, n in categories)
        owner = torch.arange(len(counts)).repeat_interleave(counts, output_size=total)
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("values", torch.cat(values), persistent=False)

    def forward(self, columns: Tensor) -> Tensor:
        return (columns[..., self.owner] == self.values).to(self.values.dtype)


for _variant in _VARIANTS:
    ENCODERS.register(_variant, partial(_Impala, variant=_variant))


@final
class _Scaled(nn.Module):
    """(x - center) * factor, with a center and a factor for each of the `size` numbers; they are not trained."""

    center: Tensor
    factor: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(size))
        self.register_buffer("factor", torch.ones(size))

    def forward(self, numbers: Tensor) -> Tensor:
        return (numbers - self.center) * self.factor


@final
class ObservationEncoder(nn.Module):
    """Flat observations `[*, O]` -> features `[*, F]`: encoded images, one-hot vectors of categories, and numbers as
    they are or scaled, concatenated in the order of the pieces.

    An observation that was expanded, for many actions each (`samplers.compose.repeat`), is encoded once.

    Args:
        parts: the pieces of the observation vector, in order.
        variant: name of the encoder that each image gets an instance of; see `flowpolicies list encoders`.
        scaled: whether numbers are scaled, as `set_scaling` says.

    Raises:
        ValueError: for an unknown encoder.
        TypeError: if the encoder's factory does not return a module with an `out_dim`.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import ObservationEncoder, ObservationPart
        >>> parts = [ObservationPart((3, 64, 64), image=True), ObservationPart((6,), image=False)]
        >>> encoder = ObservationEncoder(parts, "impala_debug")
        >>> encoder(torch.zeros(8, 3 * 64 * 64 + 6)).shape  # 512 features of the image, and six numbers
        torch.Size([8, 518])
    """

    def __init__(self, parts: Sequence[ObservationPart], variant: str = "impala_small", scaled: bool = False) -> None:
        super().__init__()
        self.parts = tuple(ObservationPart(*part) for part in parts)
        self.images = nn.ModuleList(_build(variant, part.shape) for part in self.parts if part.image)
        self.categories = nn.ModuleList(_OneHot(part.categories) for part in self.parts if part.categories)
        numbers = [part.size for part in self.parts if scaled and not part.image and not part.categories]
        self.numbers = nn.ModuleList(map(_Scaled, numbers))
        widths = iter(image.out_dim for image in self.images)
        self.out_dim = sum(cast(int, next(widths)) if part.image else part.width for part in self.parts)

    def forward(self, observations: Tensor) -> Tensor:
        distinct = _unexpanded(observations)
        rows = distinct.reshape(-1, observations.shape[-1])
        features, sizes = [], [part.size for part in self.parts]
        images, categories, numbers = iter(self.images), iter(self.categories), iter(self.numbers)
        for part, columns in zip(self.parts, torch.split(rows, sizes, -1), strict=True):
            if part.image:
                features.append(next(images)(columns.reshape(-1, *part.shape)))
            elif part.categories:
                features.append(next(categories)(columns))
            else:
                features.append(next(numbers)(columns.float()) if self.numbers else columns.float())
        encoded = torch.cat(features, -1).reshape(*distinct.shape[:-1], self.out_dim)
        return encoded.expand(*observations.shape[:-1], self.out_dim)

    def set_scaling(self, center: Tensor, factor: Tensor) -> None:
        """Sets what numbers are reduced by and then multiplied by, each `[C]` for all numbers in their order."""
        parts = cast(list[_Scaled], list(self.numbers))
        sizes = [len(part.center) for part in parts]
        with torch.no_grad():
            pieces = zip(parts, torch.split(center, sizes), torch.split(factor, sizes), strict=True)
            for part, own_center, own_factor in pieces:
                part.center.copy_(own_center)
                part.factor.copy_(own_factor)


def _build(variant: str, shape: tuple[int, ...]) -> nn.Module:
    """The encoder of an image of a given shape."""
    encoder = ENCODERS.find(variant)(shape)
    if not isinstance(encoder, nn.Module) or not isinstance(getattr(encoder, "out_dim", None), int):
        raise TypeError(
            f"the encoder {variant!r} must return a torch.nn.Module with an attribute out_dim, the number of its "
            f"features, got {encoder!r}."
        )
    return encoder


def _unexpanded(x: Tensor) -> Tensor:
    """`x` without the repetitions along expanded dimensions, whose stride is 0."""
    for dim, stride in enumerate(x.stride()[:-1]):
        if stride == 0 and x.shape[dim] > 1:
            x = x.narrow(dim, 0, 1)
    return x


@final
class Encoded(nn.Module):
    """A network with its own encoder in front: head(encoder(observations), ...).

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import Encoded, ObservationEncoder, ObservationPart, Value
        >>> encoder = ObservationEncoder([ObservationPart((3, 64, 64), image=True)], "impala_debug")
        >>> Encoded(encoder, Value(encoder.out_dim, 1))(torch.zeros(8, 3 * 64 * 64)).shape
        torch.Size([8])
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, observations: Tensor, *inputs: Tensor) -> Tensor:
        return self.head(self.encoder(observations), *inputs)  # type: ignore[no-any-return]


__getattr__ = moved_names(
    __name__,
    {
        "Part": "flowpolicies.networks.encoders:ObservationPart",
    },
)
