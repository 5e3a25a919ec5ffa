"""QC: how candidates are ranked, and which steps the behaviour flow clones."""

from __future__ import annotations

import pytest
import torch
from batches import batch, column
from stubs import view
from torch import Tensor

from flowpolicies.algorithms import FQL, QC
from flowpolicies.algorithms.fql import FQLConfig
from flowpolicies.algorithms.qc import QCConfig, critic_loss
from flowpolicies.core import Networks, ReplayedNoise
from flowpolicies.shell.config import restore_config

CANDIDATES = torch.tensor([[[0.5], [0.0]]])


def quarrelling(s: Tensor, a: Tensor) -> Tensor:
    """Critics 4 a and -2 a: their mean is largest for large actions, their minimum at 0."""
    return torch.stack([4 * a[..., 0], -2 * a[..., 0]])


@pytest.mark.parametrize(("q_agg", "chosen"), [("mean", 0.5), ("min", 0.0)])
def test_candidates_are_ranked_as_the_critics_are_aggregated(q_agg, chosen: float) -> None:
    cfg = QCConfig(q_agg=q_agg, num_samples=2)
    still = lambda s, x, t: torch.zeros_like(x)
    nets = view(actor_flow=still, critic=quarrelling)
    action = cfg.sampler()(nets, torch.zeros(1, 1), ReplayedNoise(1, [CANDIDATES]))
    assert action.tolist() == [[chosen]]

    target = view(critic=lambda s, a: torch.stack([10 + a[:, 0], 20 + a[:, 0]]))
    data = batch(column(0.0))
    _, metrics = critic_loss(Networks(nets, nets, target), data, ReplayedNoise(1, [CANDIDATES]), cfg)
    assert float(metrics["target_mean"]) == (10 + chosen if q_agg == "min" else 15 + chosen)


@pytest.mark.parametrize(("algorithm", "config"), [(QC, QCConfig), (FQL, FQLConfig)])
@pytest.mark.parametrize("cloned_steps", ["inside", "whole_chunks"])
def test_the_flow_clones_the_steps_that_are_asked_for(algorithm, config, cloned_steps) -> None:
    (term,) = [term for term in algorithm.losses if term.name == "flow_matching"]
    nets = view(actor_flow=lambda s, x, t: torch.zeros_like(x))
    data = batch(torch.tensor([[1.0, 3.0], [2.0, 9.0]]), valid=torch.tensor([1.0, 0.0]))
    data = data._replace(action_mask=torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    noise = ReplayedNoise(2, [torch.zeros(2, 2), torch.zeros(2, 1)])
    loss, _ = term(Networks(nets, nets, nets), data, noise, config(cloned_steps=cloned_steps))
    assert float(loss) == pytest.approx({"inside": (1 + 9 + 4) / 4, "whole_chunks": (1 + 9) / 4}[cloned_steps])


def test_without_chunks_every_row_is_cloned() -> None:
    (term,) = [term for term in QC.losses if term.name == "flow_matching"]
    nets = view(actor_flow=lambda s, x, t: torch.zeros_like(x))
    data = batch(column(1.0, 3.0), valid=torch.tensor([1.0, 0.0]))
    noise = ReplayedNoise(1, [torch.zeros(2, 1), torch.zeros(2, 1)])
    loss, _ = term(Networks(nets, nets, nets), data, noise, QCConfig())
    assert float(loss) == pytest.approx((1 + 9) / 2)


@pytest.mark.parametrize(("config", "default"), [(QCConfig, "inside"), (FQLConfig, "whole_chunks")])
def test_the_default_is_each_code_s_own_and_old_models_stay_as_they_were(config, default: str) -> None:
    assert config().cloned_steps == default
    old = {name: value for name, value in vars(config()).items() if name != "cloned_steps"}
    assert restore_config(config.__module__, config.__name__, old).cloned_steps == "whole_chunks"
