"""Behaviour cloning with a diffusion: the loss by hand, and that it clones."""

from __future__ import annotations

import math

import pytest
import torch
from batches import batch
from stubs import view

from flowpolicies.algorithms import BCDiffusion, BCDiffusionConfig
from flowpolicies.algorithms.bc import denoising_loss
from flowpolicies.core import Networks, ReplayedNoise
from flowpolicies.data import TransitionDataset


def test_the_loss_by_hand() -> None:
    """Level 2 of 5, counted from 1; the second row is not valid."""
    abar, eps = 0.435178, torch.tensor([[0.7, -1.1], [9.0, 9.0]])
    data = batch(torch.tensor([[0.5, -0.2], [0.0, 0.0]]), valid=torch.tensor([1.0, 0.0]))
    nets = Networks(view(actor_diffusion=lambda s, x, t: 0.3 * x + 0.1 * t), view(), view())
    loss, _ = denoising_loss(nets, data, ReplayedNoise(2, [torch.tensor([1, 1]), eps]), BCDiffusionConfig())
    expected = 0.0
    for action, noise in ((0.5, 0.7), (-0.2, -1.1)):
        x = math.sqrt(abar) * action + math.sqrt(1 - abar) * noise
        expected += (0.3 * x + 0.2 - noise) ** 2 / 4
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_it_clones() -> None:
    """The action 0.6 s at s = -1 and 1, of which the same action everywhere would miss 0.6."""
    states = (torch.arange(400) % 2 * 2.0 - 1).unsqueeze(-1).numpy()
    zeros = 0 * states
    data = TransitionDataset.from_arrays(states, 0.6 * states, zeros[:, 0], zeros, terminations=zeros[:, 0] == 0)
    model = BCDiffusion(dataset=data, seed=0, device="cpu", learning_rate=3e-3, actor_hidden_dims=(32, 32))
    model.learn_offline(200)
    assert abs(model.predict(states)[0] - 0.6 * states).mean() < 0.05
