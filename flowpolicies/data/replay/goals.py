"""Hindsight: goals for transitions, drawn when they are sampled, among the states that the data reached."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from torch import Tensor

from flowpolicies.spaces.layout import flat_dtype, observation_layout

DESIRED, ACHIEVED, STATE = "desired_goal", "achieved_goal", "observation"


@final
@dataclass(frozen=True, kw_only=True)
class HindsightGoals:
    """Where the goal of a sampled transition comes from: its own state, a later one of its trajectory, or any state.

    The reward of a step from the goal itself is 0, of any other -1, and bootstrapping stops at the goal. What counts
    is that it is that very row of the data, as in OGBench's goal-conditioned benchmark, whose shares for values are
    the defaults here. (It draws goals for policies on their own, uniformly over the rest of the trajectory, for data of
    the kind "stitch" half of them from all states; here losses share one batch, and so one goal.)
    """

    p_current: float = 0.2
    """Share of goals that are the transition's own state."""
    p_future: float = 0.5
    """Share of goals that are later states of its trajectory."""
    p_random: float = 0.3
    """Share of goals that are states drawn uniformly from all data."""
    geometric: bool = True
    """How many steps later a future goal is: geometrically distributed, cut at the trajectory's end; else uniform."""
    discount: float | None = None
    """Of the geometric distribution, whose mean is 1 / (1 - discount) steps; None: the buffer's gamma."""

    def __post_init__(self) -> None:
        shares = (self.p_current, self.p_future, self.p_random)
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"p_current, p_future and p_random must be shares that sum to 1, got {shares}")
        if self.discount is not None and not 0 <= self.discount < 1:
            raise ValueError(f"discount of the geometric distribution must lie in [0, 1), got {self.discount}")

    def draw(self, rows: Tensor, ends: Tensor, discount: float, generator: torch.Generator) -> Tensor:
        """Rows `[B]` of the goals of transitions `rows` `[B]`.

        Args:
            ends: last row of each trajectory, ascending.
            discount: where this object says None.
        """
        kind, far = torch.rand(2, len(rows), generator=generator, dtype=torch.float64)
        anywhere = torch.randint(int(ends[-1]) + 1, (len(rows),), generator=generator)
        last = ends[torch.searchsorted(ends, rows.contiguous())]
        if self.geometric:
            rate = discount if self.discount is None else self.discount
            steps = torch.ones_like(rows) if rate == 0 else (torch.log1p(-far) / math.log(rate)).long() + 1
            future = torch.minimum(rows + steps, last)
        else:
            future = (torch.minimum(rows + 1, last) * far + last * (1 - far)).round().long()
        inside = torch.where(kind < self.p_current, rows, future)
        return torch.where(kind < self.p_current + self.p_future, inside, anywhere)


@final
class Hindsight:
    """The goals of one dataset in a buffer.

    Args:
        mix: where goals come from.
        space: of the observations, with `desired_goal`.
        ends: last row of each trajectory of the dataset.
        discount: where `mix` has none.

    Raises:
        ValueError: if the space has no such goals, or the discount is 1.
    """

    def __init__(self, mix: HindsightGoals, space: Space[Any], ends: np.ndarray, discount: float) -> None:
        self.mix, self.ends, self.discount = mix, torch.tensor(np.asarray(ends, np.int64)), discount
        if not isinstance(space, Dict) or not {DESIRED, STATE} <= set(space.spaces):
            raise ValueError(
                f"hindsight goals need observations with '{DESIRED}' and '{STATE}' (and perhaps '{ACHIEVED}'); "
                f"these are {space}. Pass goals=None."
            )
        self.pool = ACHIEVED if ACHIEVED in space.spaces else STATE
        if space[self.pool].shape != space[DESIRED].shape:
            raise ValueError(
                f"hindsight goals are states' '{self.pool}', of shape {space[self.pool].shape}, but '{DESIRED}' has "
                f"{space[DESIRED].shape}. Give '{ACHIEVED}' of that shape, or pass goals=None."
            )
        if mix.geometric and mix.discount is None and not 0 <= discount < 1:
            raise ValueError(
                f"gamma={discount} gives no geometric distribution of goals; set HindsightGoals(discount=...)."
            )
        keys = [entry.key for entry in observation_layout(space)]
        sizes = [math.prod(entry.shape) for entry in observation_layout(space)]
        self.start = sum(sizes[: keys.index(DESIRED)])
        self.rest = Dict(OrderedDict((str(key), space[str(key)]) for key in keys if key != DESIRED))  # In this order.
        self.dtype = flat_dtype(space)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Rows `[B]` of the goals of transitions `rows` `[B]`."""
        return self.mix.draw(rows, self.ends, self.discount, generator)

    def insert(self, rest: Tensor, goals: Tensor) -> Tensor:
        """Flat observations `[B, O]` from those without their goal, and goals `[B, G]`."""
        parts = (rest[:, : self.start], goals, rest[:, self.start :])
        return torch.cat([part.to(self.dtype) for part in parts], -1)
