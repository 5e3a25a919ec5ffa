"""Dense layers, optionally an ensemble of them, the MLP of the FQL family, and embeddings of the flow time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowpolicies.core.views import is_transformed

Activation = Literal["gelu", "mish", "relu", "silu"]
Initialization = Literal["xavier", "orthogonal", "lecun", "torch"]
"""Rule of the initial weights. xavier: uniform with variance scale / fan_avg. orthogonal: gain sqrt(2 scale). lecun:
normal with variance scale / fan_in, cut off at two deviations. torch: that of nn.Linear, uniform within 1 /
sqrt(fan_in), also for biases."""

_SCALE = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _SCALE
_SCALES = {dtype: torch.tensor(_SCALE, dtype=dtype) for dtype in (torch.float32, torch.float64)}
_SMALL = 4096
"""Number of elements below which one call of torch is faster than several passes over memory."""
_LARGE = 1 << 17
"""Number of elements from which fewer passes over memory are faster than fewer calls of torch."""


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, as flax computes it.

    On the CPU large tensors are computed as x * sigmoid(x (c + 0.044715 c x^2)), which is the same function; a tanh is
    slow there.
    """
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(x * (_SCALE + _CUBIC * (x * x)))  # Compilers fuse it.
    if x.numel() < _SMALL or not x.is_cpu or x.dtype not in _SCALES or is_transformed():  # Functorch knows torch's own.
        return F.gelu(x, approximate="tanh")
    if torch.is_grad_enabled() and x.requires_grad:
        return _Gelu.apply(x)  # type: ignore[no-any-return, no-untyped-call]
    return torch.addcmul(_SCALES[x.dtype], x, x, value=_CUBIC).mul_(x).sigmoid_().mul_(x)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + exp(x))), spelled out for functorch, which has no rule for the gradient of torch's function."""
    return x * F.softplus(x).tanh() if is_transformed() else F.mish(x)


class _Gelu(torch.autograd.Function):
    """GELU that keeps its slope: few passes over memory; autograd alone would keep six tensors per call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        scale = _SCALES[x.dtype]
        factor = torch.addcmul(scale, x, x, value=_CUBIC)
        gate = (factor * x).sigmoid_()
        # The slope is g + x g', and g' = g (1 - g) (c + 3 * 0.044715 c x^2).
        torch.addcmul(scale, x, x, value=3 * _CUBIC, out=factor)
        slope = torch.addcmul(gate, torch.ops.aten.sigmoid_backward(x, gate), factor, out=factor)
        ctx.save_for_backward(x, slope)
        return gate.mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # The gradient is to be differentiated again, so it must depend on x.
            square = x.square()
            gate = torch.sigmoid(x * (_SCALE + _CUBIC * square))
            slope = gate + gate * (1 - gate) * x * (_SCALE + 3 * _CUBIC * square)
        return grad * slope  # type: ignore[no-any-return]


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "mish": mish,
    "relu": F.relu,
    "silu": F.silu,
}


@final
class Dense(nn.Module):
    """x W + b with W `[in, out]`, or `[E, in, out]` for an ensemble: `[*, in]` or `[E, *, in]` -> `[E, *, out]`.

    Each member has its own initial weights; biases are 0, unless the initialisation says otherwise. With a weight in
    bfloat16 the product is in bfloat16, and all else in float32.
    """

    factors = ("weight",)
    """Names of the parameters that are factors of products (`flowpolicies.core.precision`)."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        ensemble: int | None = None,
        scale: float = 1.0,
        initialization: Initialization = "xavier",
    ) -> None:
        super().__init__()
        leading = () if ensemble is None else (ensemble,)
        self.ensemble = ensemble
        self.weight = nn.Parameter(torch.empty(*leading, in_dim, out_dim, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(*leading, out_dim, dtype=torch.float32))
        with torch.no_grad():
            for member in self.weight.unbind() if ensemble else [self.weight]:
                _initialize(member, scale, initialization)
            if initialization == "torch":
                self.bias.uniform_(-1 / math.sqrt(in_dim), 1 / math.sqrt(in_dim))

    def function(self) -> Callable[[Tensor], Tensor]:
        """The layer with the weights of this moment, without the cost of calling a module; see `MLP.function`."""
        if self.weight.dtype == torch.bfloat16:
            return self._rounded_product
        if self.ensemble is None:
            weight, bias = self.weight, self.bias
            # For rows one operation less than `linear`, and than its gradient; the numbers are the same.
            return lambda x: torch.addmm(bias, x, weight) if x.ndim == 2 else F.linear(x, weight.mT, bias)
        n, factors, biases = self.ensemble, self.weight, self.bias.unsqueeze(-2)
        return lambda x: torch.baddbmm(biases, x.expand(n, *x.shape[-2:]), factors)

    def forward(self, x: Tensor) -> Tensor:
        return self.function()(x)

    def _rounded_product(self, x: Tensor) -> Tensor:
        """The output in float32 for a weight in bfloat16; the bias is added in float32."""
        x = x.to(torch.bfloat16)
        if self.ensemble is None:
            return F.linear(x, self.weight.mT).float() + self.bias
        return torch.bmm(x.expand(self.ensemble, *x.shape[-2:]), self.weight).float() + self.bias.unsqueeze(-2)


def _initialize(weight: Tensor, scale: float, initialization: Initialization) -> None:
    """Fills `[in, out]` in place."""
    in_dim, out_dim = weight.shape
    if initialization == "orthogonal":
        nn.init.orthogonal_(weight, math.sqrt(2 * scale))
    elif initialization == "lecun":
        # The constant is the deviation of a unit normal cut off at +-2, as in jax.
        deviation = math.sqrt(scale / in_dim) / 0.87962566103423978
        nn.init.trunc_normal_(weight, 0.0, deviation, -2 * deviation, 2 * deviation)
    else:
        bound = math.sqrt(6 * scale / (in_dim + out_dim)) if initialization == "xavier" else math.sqrt(scale / in_dim)
        weight.uniform_(-bound, bound)


@final
class LayerNorm(nn.Module):
    """Normalises the last axis, eps 1e-6; scale and bias `[H]`, or `[E, H]` for an ensemble."""

    def __init__(self, dim: int, ensemble: int | None = None) -> None:
        super().__init__()
        shape = (dim,) if ensemble is None else (ensemble, 1, dim)
        self.weight = nn.Parameter(torch.ones(shape, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(shape, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 1:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-6)
        if is_transformed() or x.numel() < _LARGE:
            return torch.addcmul(self.bias, F.layer_norm(x, self.weight.shape[-1:], eps=1e-6), self.weight)
        members = zip(x, self.weight[:, 0], self.bias[:, 0], strict=True)  # One by one: half of the passes over memory.
        return torch.stack([F.layer_norm(m, m.shape[-1:], weight, bias, 1e-6) for m, weight, bias in members])


@final
class MLP(nn.Module):
    """Dense -> activation -> (LayerNorm) for each hidden layer, then a linear output.

    Args:
        out_dim: width of the output layer; None: the last hidden layer, activated, is the output.
        ensemble: number of members; the output has a leading axis of them, `[E, *, out]`.
        norm_first: whether LayerNorm comes before the activation.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import MLP
        >>> MLP(3, (64, 64), 1, layer_norm=True, ensemble=2)(torch.zeros(256, 3)).shape
        torch.Size([2, 256, 1])
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dims: Sequence[int],
        out_dim: int | None,
        *,
        layer_norm: bool = False,
        ensemble: int | None = None,
        activation: Activation = "gelu",
        norm_first: bool = False,
        initialization: Initialization = "xavier",
    ) -> None:
        super().__init__()
        widths = [in_dim, *hidden_dims]
        self.ensemble, self.activation, self.norm_first = ensemble, activation, norm_first
        self.layers = nn.ModuleList(Dense(i, o, ensemble, initialization=initialization) for i, o in pairwise(widths))
        self.norms = nn.ModuleList(LayerNorm(dim, ensemble) for dim in hidden_dims) if layer_norm else None
        self.output = None if out_dim is None else Dense(widths[-1], out_dim, ensemble, initialization=initialization)

    def forward(self, x: Tensor) -> Tensor:
        return self._through(self._parts(self.layers, self.output), x)

    def members(self, x: Tensor) -> Tensor:
        """Each member of the ensemble on an input of its own, `[E, *, in]` -> `[E, *, out]`."""
        y = x.reshape(x.shape[0], -1, x.shape[-1])
        for part in self._parts(self.layers, self.output):
            y = part(y)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def function(self) -> Callable[[Tensor], Tensor]:
        """The network with the weights of this moment, for many calls in a row.

        Its dense layers are not called as modules, which takes as long as a layer of a small network. Networks with
        hooks are called as modules instead.
        """
        layers = [layer.function() if isinstance(layer, Dense) else layer for layer in (*self.layers, self.output)]
        return partial(self._through, self._parts(layers[:-1], layers[-1]))

    def _parts(self, layers: Iterable[Any], output: Any) -> list[Callable[[Tensor], Tensor]]:
        """What is applied in turn."""
        activate, parts = ACTIVATIONS[self.activation], []
        for i, layer in enumerate(layers):
            after = [activate] if self.norms is None else [activate, self.norms[i]]
            parts += [layer, *(reversed(after) if self.norm_first else after)]
        return parts if output is None else [*parts, output]

    def _through(self, parts: Iterable[Callable[[Tensor], Tensor]], x: Tensor) -> Tensor:
        y = x if self.ensemble is None else x.reshape(-1, x.shape[-1])
        for part in parts:
            y = part(y)
        return y if self.ensemble is None else y.reshape(self.ensemble, *x.shape[:-1], y.shape[-1])


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
    # As XLA rounds the authors' jnp.linspace: the index times the rounded reciprocal. With torch.linspace, frequencies
    # were up to 7 ulp away, and losses up to 4e-5 (tests/golden/README.md, "Rounding").
    index = torch.arange(time_dim // 2, device=t.device, dtype=t.dtype)
    exponents = index * (1 / (time_dim // 2 - 1)) * math.log(256.0)
    angles = t * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], -1)
