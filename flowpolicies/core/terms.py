"""Loss terms: an equation, and the names of the networks that it trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, final

from flowpolicies.core.noise import Noise
from flowpolicies.core.types import Batch, Loss
from flowpolicies.core.views import Config, Networks

LossFn = Callable[[Networks, Batch, Noise, Config], Loss]


@final
@dataclass(frozen=True)
class LossTerm:
    """A loss whose `nets.online` holds only what it trains, so that a leak is refused at the first call."""

    fn: LossFn
    trains: tuple[str, ...]
    redraws: str | None = None
    """A term of an earlier stage, whose draws this term's stage sees again."""

    @property
    def name(self) -> str:
        """The function's name without `_loss`; the prefix of its metrics."""
        return self.fn.__name__.removesuffix("_loss")

    def __call__(self, nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
        hint = f"{self.fn.__name__} trains only {self.trains}; use frozen.<name> to stop gradients."
        return self.fn(nets.restricted(self.trains, hint), batch, noise, cfg)


def loss_term(*, trains: str | Sequence[str], redraws: str | None = None) -> Callable[[LossFn], LossTerm]:
    """Declares a function as a loss term that trains the named networks.

    Args:
        redraws: a term of an earlier stage, whose draws this term's stage sees again ("the same samples after the
            step"); it must then ask for the same draws, in the same order.
    """
    names = (trains,) if isinstance(trains, str) else tuple(trains)
    return lambda fn: LossTerm(fn, names, redraws)


class Step(NamedTuple):
    """What one update does. Static: each distinct value (apart from `copies`) compiles once."""

    stages: tuple[tuple[str, ...], ...]
    """Names of loss terms. Those of one stage are summed and differentiated together; stages run in order, each at the
    weights that the one before it left."""
    moves: tuple[str, ...] | None = None
    """Networks whose target copies move; None: all that have one. A copy moves in the last stage that trains its
    network, or in the last stage if none does."""
    lagged: bool = True
    """Whether target copies move towards the weights before Adam's step of their stage, as in the JAX references, or
    towards those after it."""
    copies: tuple[tuple[str, str], ...] = ()
    """(to, from): before the update, the weights and the target copy of `to` become the target copy of `from`, or its
    weights if it has none. For the beginning of a phase."""
