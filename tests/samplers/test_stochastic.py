"""The sampler of the memoryless SDE, by hand on linear fields."""

from __future__ import annotations

import math

import pytest
import torch
from batches import column
from stubs import view

from flowpolicies.core import ReplayedNoise
from flowpolicies.samplers import MemorylessSDE


def test_two_steps_the_first_with_noise_along_the_field_the_last_along_the_base() -> None:
    nets = view(actor_fast=lambda s, x, t: 0.1 * s + 0.2 * x + t, actor_slow=lambda s, x, t: 0.5 * x - s)
    x_0, eps, unused = (0.3, -0.8), (0.2, 2.0), (9.0, 9.0)
    noise = ReplayedNoise(1, [column(*x_0), column(*eps), column(*unused)])
    actions = MemorylessSDE("actor_fast", "actor_slow", steps=2)(nets, column(0.4, -0.6), noise)
    expected = []
    for s, x, e in zip((0.4, -0.6), x_0, eps, strict=True):
        drift = 2 * (0.1 * s + 0.2 * x) - x / 0.5  # At t = 0, h = 1/2.
        first = x + 0.5 * drift + math.sqrt(0.5) * math.sqrt(2 * 1.5 / 0.5) * e
        expected.append(first + 0.5 * (0.5 * first - s))
    assert expected[0] < 1 < expected[1]  # The second is clipped.
    assert actions[:, 0].tolist() == pytest.approx([expected[0], 1.0])


def test_actions_are_clipped_at_both_ends_and_candidates_have_noise_of_their_own() -> None:
    nets = view(actor_flow=lambda s, x, t: 5 * torch.sign(s) + 0 * x)
    states = torch.tensor([1.0, -1.0])[:, None, None].expand(2, 3, 1)
    noise = ReplayedNoise(1, [torch.zeros(2, 3, 1)] * 3)
    actions = MemorylessSDE(steps=2)(nets, states, noise)
    assert actions[..., 0].tolist() == [[1.0] * 3, [-1.0] * 3]
