"""Gaussian policies, plain and squashed, as functions of a head (mean, log-std), each `[*, A]`."""

from __future__ import annotations

from torch import Tensor

from flowpolicies.networks import normal_log_prob, tanh_log_slope

Head = tuple[Tensor, Tensor]
"""Mean and log-std."""


def gaussian_log_prob(head: Head, actions: Tensor) -> Tensor:
    """log N(a; mu, sigma), `[*]`."""
    mean, log_std = head
    return normal_log_prob((actions - mean) * (-log_std).exp(), log_std)


def squashed_sample(head: Head, eps: Tensor) -> tuple[Tensor, Tensor]:
    """a = tanh(u), u = mu + sigma eps, with gradient to the head; and log pi(a) `[*]`, computed from u for accuracy."""
    mean, log_std = head
    u = mean + log_std.exp() * eps
    return u.tanh(), normal_log_prob(eps, log_std) - tanh_log_slope(u)


def squashed_log_prob(head: Head, actions: Tensor, margin: float = 1e-5) -> Tensor:
    """log pi(a) of given actions, `[*]`; actions are first clipped to [-1 + margin, 1 - margin]."""
    u = actions.clamp(-1 + margin, 1 - margin).atanh()
    return gaussian_log_prob(head, u) - tanh_log_slope(u)
