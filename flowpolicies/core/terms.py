"""Loss terms, and what one update does with them."""

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
    """A loss function, and the networks that it trains. Its `nets.online` holds only these, so a gradient leak raises
    an error."""

    fn: LossFn
    trains: tuple[str, ...]
    """Names of the networks that receive the gradient of the loss."""
    same_draws_as: str | None = None
    """Name of a term of an earlier stage whose draws the stage of this term uses again; None: fresh draws."""

    @property
    def name(self) -> str:
        """The function's name without `_loss`; the prefix of its metrics."""
        return self.fn.__name__.removesuffix("_loss")

    def __call__(self, nets: Networks, batch: Batch, noise: Noise, cfg: Config) -> Loss:
        hint = f"{self.fn.__name__} trains only {self.trains}; use frozen.<name> to stop gradients."
        return self.fn(nets.restricted(self.trains, hint), batch, noise, cfg)


def loss_term(*, trains: str | Sequence[str], same_draws_as: str | None = None) -> Callable[[LossFn], LossTerm]:
    """Declares a function as a loss term that trains the named networks.

    Args:
        trains: name or names of the networks that receive its gradient.
        same_draws_as: a term of an earlier stage whose draws the stage of this term uses again, for a quantity that is
            computed once more on the same samples after an optimiser step; it must ask for the same draws in the same
            order.
    """
    names = (trains,) if isinstance(trains, str) else tuple(trains)
    return lambda fn: LossTerm(fn, names, same_draws_as)


class UpdateSpec(NamedTuple):
    """What one update does. It is static: each distinct value (apart from `copy_weights`) is compiled once."""

    stages: tuple[tuple[str, ...], ...] | None = None
    """Names of loss terms per stage. The terms of one stage are summed and differentiated together; stages run in
    order, each at the weights that the stage before it left. None: one stage with all terms."""
    target_updates: tuple[str, ...] | None = None
    """Names of the networks whose target copies are updated; None: all that have one. A target copy is updated in the
    last stage that trains its network, or in the last stage of all if none does."""
    targets_first: bool = True
    """Whether target copies move before the optimiser's step of their stage, and so towards the weights before it, as
    in the authors' JAX code; otherwise they move after the step."""
    copy_weights: tuple[tuple[str, str], ...] = ()
    """Pairs (destination, source) of networks: before the update, the weights and the target copy of the destination
    are set to the target copy of the source, or to its weights if it has no target copy. An algorithm uses it where a
    new phase of training begins."""
