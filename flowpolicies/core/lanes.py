"""What vectorised seeds differ in besides weights, batches and draws: constants of networks, numbers of the config."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from flowpolicies.core.types import Tree
from flowpolicies.core.views import Config


class Lanes(NamedTuple):
    """What differs between vectorised seeds; every tensor has a leading seed axis."""

    buffers: Tree
    """Constants of the networks, such as random Fourier frequencies."""
    swept: dict[str, Tensor]
    """Fields of the config -> their values, `[S]`; the loss terms see a scalar tensor in place of the number."""

    def weights(self, weights: Tree) -> Tree:
        """The weights and the constants of the networks."""
        return {name: tree | self.buffers.get(name, {}) for name, tree in weights.items()}

    def config(self, cfg: Config) -> Config:
        """A copy of the config with the swept values, which are tensors and would not pass its checks."""
        twin = object.__new__(type(cfg))
        vars(twin).update({**vars(cfg), **self.swept})
        return twin


ALIKE = Lanes({}, {})
"""Seeds that differ in nothing else, and a single run."""
