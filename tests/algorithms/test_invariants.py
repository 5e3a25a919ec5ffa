"""Properties that the losses of every algorithm have, whatever their equations."""

from __future__ import annotations

import torch
from term_values import evaluate, small
from torch import Tensor
from toy_learner import make_batch

ROWS = 14
"""Even, for RQL; no other size is 14 or 7."""


def twice(tensor: Tensor) -> Tensor:
    """Each row twice, in place; draws may have the rows, or half of them, along another axis than the first."""
    axis = next((i for i, size in enumerate(tensor.shape) if size in (ROWS, ROWS // 2)), None)
    return tensor if axis is None else tensor.repeat_interleave(2, axis)


def test_losses_and_metrics_do_not_depend_on_the_size_of_the_batch(algorithm) -> None:
    cfg, batch = small(algorithm), make_batch(0, ROWS)
    batch = batch._replace(valid=(torch.arange(ROWS) % 3 > 0).float())
    once = evaluate(algorithm, cfg, batch)
    again = evaluate(algorithm, cfg, batch, twice)
    torch.testing.assert_close(again, once, rtol=1e-3, atol=1e-6)
