"""The arithmetic of an update: its matrix products, counted by running one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from flowpolicies.algorithms import OfflineAlgorithm

LONGEST_PERIOD = 16
"""Number of updates that is searched for a period."""


@final
class ProductCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no annotations here.
    """Counts the floating-point operations of matrix products and convolutions within the block.

    torch's own `FlopCounterMode` counts the same, but also follows modules, which fails for gradients within a loss.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        count: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=answer)
        return answer


def gflop_of_update(model: OfflineAlgorithm) -> float:
    """Floating-point operations of the matrix products and convolutions of one update, in units of 1e9.

    It is the mean over a period of updates, see `period_of`. Elementwise operations, the optimiser and random numbers
    are not counted. The model makes two periods of updates: before the first ones, the losses are evaluated once more
    to find out what they draw.
    """
    period = period_of(model)
    model.train(period, model.batch_size)
    with ProductCounter() as counter:
        model.train(period, model.batch_size)
    return float(counter.total / 1e9 / period)


def period_of(model: OfflineAlgorithm) -> int:
    """Number of updates after which the trained losses recur: more than 1 for delayed updates, as of an actor that is
    trained in every second one."""
    stages = [model.cfg.update_spec(step).stages for step in range(LONGEST_PERIOD, 3 * LONGEST_PERIOD)]
    return next((n for n in range(1, LONGEST_PERIOD) if stages[n:] == stages[:-n]), 1)


def share_of_peak(gflop: float, milliseconds: float, gflops: float) -> float:
    """Fraction of the time that the products alone would take at `gflops` GFLOP/s."""
    return gflop / (milliseconds * 1e-3) / gflops
