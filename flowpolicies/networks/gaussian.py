"""Gaussian policies. They return parameters of a distribution; the noise comes from the caller."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flowpolicies.moved import moved_names
from flowpolicies.networks.mlp import MLP, Activation, Dense


def normal_log_prob(eps: Tensor, log_std: Tensor) -> Tensor:
    """log N(mu + sigma eps; mu, sigma), `[*]`, the sum over the coordinates of eps `[*, A]`."""
    return (-0.5 * (eps.square() + 2 * log_std + math.log(2 * math.pi))).sum(-1)


def tanh_log_slope(u: Tensor) -> Tensor:
    """sum_i log(1 - tanh(u_i)^2), `[*]`, in a stable form; a tanh subtracts it from a log-probability."""
    return (2 * (math.log(2.0) - u - F.softplus(-2 * u))).sum(-1)


@final
class GaussianNetwork(nn.Module):
    """Diagonal Gaussian, `Actor` in FQL's code: observations `[*, O]` -> mean and log-std, each `[*, A]`.

    Args:
        state_dependent_std: whether a head predicts the log-std; otherwise it is 0.
        tanh_mean: whether the mean is squashed to (-1, 1).
        head_scale: scale of the heads' initialisation.
        log_std_bounds: the log-std is clamped to this range.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import GaussianNetwork
        >>> mean, log_std = GaussianNetwork(3, 1, hidden_dims=(64, 64), tanh_mean=True)(torch.zeros(256, 3))
        >>> mean.shape
        torch.Size([256, 1])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = False,
        state_dependent_std: bool = False,
        tanh_mean: bool = False,
        head_scale: float = 0.01,
        log_std_bounds: tuple[float, float] = (-5.0, 2.0),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.tanh_mean, self.log_std_bounds = tanh_mean, log_std_bounds
        self.trunk = MLP(observation_dim, hidden_dims, None, layer_norm=layer_norm, activation=activation)
        self.mean = Dense(hidden_dims[-1], action_dim, scale=head_scale)
        self.log_std = Dense(hidden_dims[-1], action_dim, scale=head_scale) if state_dependent_std else None

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(observations)
        mean = self.mean(features)
        mean = mean.tanh() if self.tanh_mean else mean
        log_std = torch.zeros_like(mean) if self.log_std is None else self.log_std(features)
        return mean, log_std.clamp(*self.log_std_bounds)


@final
class TanhNormal(nn.Module):
    """Squashed Gaussian: (observations `[*, O]`, eps `[*, A]`) -> sample in (-1, 1), log-probability `[*]`.

    The log-probability is computed from the sample before the tanh, so that it stays finite when tanh rounds to 1.

    Args:
        takes_action: whether it also takes actions `[*, A]`: (observations, actions, eps).
        log_std_bounds: the log-std is clamped to this range.

    Examples:
        >>> import torch
        >>> from flowpolicies.networks import TanhNormal
        >>> policy = TanhNormal(3, 1, hidden_dims=(64, 64))
        >>> actions, log_probs = policy(torch.zeros(256, 3), torch.randn(256, 1))
        >>> log_probs.shape
        torch.Size([256])
    """

    def __init__(
        self,
        observation_dim: int,
        action_dim: int,
        *,
        hidden_dims: Sequence[int] = (512, 512, 512, 512),
        layer_norm: bool = False,
        takes_action: bool = False,
        log_std_bounds: tuple[float, float] = (-20.0, 2.0),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        self.log_std_bounds = log_std_bounds
        in_dim = observation_dim + takes_action * action_dim
        self.trunk = MLP(in_dim, hidden_dims, None, layer_norm=layer_norm, activation=activation)
        self.mean = Dense(hidden_dims[-1], action_dim)
        self.log_std = Dense(hidden_dims[-1], action_dim)

    def forward(self, observations: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        *actions, eps = inputs
        features = self.trunk(torch.cat([observations, *actions], -1))
        log_std = self.log_std(features).clamp(*self.log_std_bounds)
        u = self.mean(features) + log_std.exp() * eps
        return u.tanh(), normal_log_prob(eps, log_std) - tanh_log_slope(u)


__getattr__ = moved_names(
    __name__,
    {
        "Gaussian": "flowpolicies.networks.gaussian:GaussianNetwork",
    },
)
