"""Hindsight goals: states of the dataset that become the goals of transitions when these are sampled."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from gymnasium.spaces import Dict, Space
from torch import Tensor

from flowpolicies.data.replay.store import Store
from flowpolicies.spaces.layout import flat_dtype, observation_layout

DESIRED, ACHIEVED, STATE = "desired_goal", "achieved_goal", "observation"


@final
@dataclass(frozen=True, kw_only=True)
class HindsightGoals:
    """Distribution of the goal of a sampled transition: its own state, a later state of its trajectory, or any state.

    This follows `GCDataset.sample_goals` in `impls/utils/datasets.py` of https://github.com/seohongpark/ogbench, and
    the defaults are OGBench's probabilities for value functions. Only the row that was drawn counts as the goal, not
    another row with the same state: in that row the reward is 0 and bootstrapping stops, in every other row the reward
    is -1. OGBench draws other goals for the policy's loss; here all losses share one batch, and so one goal.

    Examples:
        >>> from flowpolicies.data import HindsightGoals
        >>> goals = HindsightGoals(p_current=0.2, p_future=0.8, p_random=0.0)
        >>> options = {"replay_buffer_kwargs": {"goals": goals}}  # for the constructor of an algorithm
    """

    p_current: float = 0.2
    """Probability that the goal is the transition's own state."""
    p_future: float = 0.5
    """Probability that the goal is a later state of the same trajectory."""
    p_random: float = 0.3
    """Probability that the goal is drawn uniformly from all states of the dataset."""
    geometric: bool = True
    """Whether a future goal lies geometrically many steps ahead, at most at the trajectory's end; False: uniformly."""
    discount: float | None = None
    """Discount of the geometric distribution, whose mean is 1 / (1 - discount) steps; None: the buffer's gamma."""

    def __post_init__(self) -> None:
        shares = (self.p_current, self.p_future, self.p_random)
        if min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"p_current, p_future and p_random must be probabilities that sum to 1, got {shares}")
        if self.discount is not None and not 0 <= self.discount < 1:
            raise ValueError(f"discount must be at least 0 and less than 1, or None, got {self.discount}")

    def draw(self, rows: Tensor, ends: Tensor, discount: float, generator: torch.Generator) -> Tensor:
        """Draws goals, and returns their rows `[B]`.

        Args:
            rows: the sampled transitions, `[B]`.
            ends: last row of each trajectory, ascending.
            discount: discount of the geometric distribution if the field `discount` is None.
            generator: source of the random numbers.
        """
        kind, far = torch.rand(2, len(rows), generator=generator, dtype=torch.float64)
        anywhere = torch.randint(int(ends[-1]) + 1, (len(rows),), generator=generator)
        last = ends[torch.searchsorted(ends, rows.contiguous())]
        if self.geometric:
            rate = discount if self.discount is None else self.discount
            steps = torch.ones_like(rows) if rate == 0 else (torch.log1p(-far) / math.log(rate)).long() + 1
            future = torch.minimum(rows + steps, last)
        else:
            # OGBench rounds a uniform number, so the first and the last candidate have half the probability of others.
            future = (torch.minimum(rows + 1, last) * far + last * (1 - far)).round().long()
        inside = torch.where(kind < self.p_current, rows, future)
        return torch.where(kind < self.p_current + self.p_future, inside, anywhere)


@final
class Hindsight:
    """Draws goals for the transitions of one dataset, and puts them into flat observations without goals.

    Args:
        mix: distribution of the goals.
        space: Dict space of the observations, with the key `desired_goal`.
        ends: last row of each trajectory of the dataset.
        discount: discount of the geometric distribution if `mix.discount` is None.

    Raises:
        ValueError: if the space has no such goals, or the discount is 1.
    """

    def __init__(self, mix: HindsightGoals, space: Space[Any], ends: np.ndarray, discount: float) -> None:
        self.mix, self.space, self.discount = mix, space, discount
        self.ends = torch.tensor(np.asarray(ends, np.int64))
        if not isinstance(space, Dict) or not {DESIRED, STATE} <= set(space.spaces):
            raise ValueError(
                f"hindsight goals need observations with the keys '{DESIRED}' and '{STATE}' (and optionally "
                f"'{ACHIEVED}'), but the space is {space}. Pass goals=None to keep the stored goals."
            )
        self.pool = ACHIEVED if ACHIEVED in space.spaces else STATE
        if space[self.pool].shape != space[DESIRED].shape:
            raise ValueError(
                f"hindsight goals are taken from '{self.pool}', of shape {space[self.pool].shape}, but '{DESIRED}' has "
                f"the shape {space[DESIRED].shape}. Add '{ACHIEVED}' of that shape to the data, or pass goals=None."
            )
        if mix.geometric and mix.discount is None and not 0 <= discount < 1:
            raise ValueError(
                f"goals cannot be geometrically distributed with gamma={discount}; set HindsightGoals(discount=...) "
                "to a number less than 1."
            )
        keys = [entry.key for entry in observation_layout(space)]
        sizes = [math.prod(entry.shape) for entry in observation_layout(space)]
        self.start = sum(sizes[: keys.index(DESIRED)])
        self.rest = Dict(OrderedDict((str(key), space[str(key)]) for key in keys if key != DESIRED))
        self.dtype = flat_dtype(space)

    def with_discount(self, discount: float) -> Hindsight:
        """The same goals for another discount."""
        return Hindsight(self.mix, self.space, self.ends.numpy(), discount)

    def draw(self, store: Store, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Draws goals for the transitions `rows` `[B]`, and returns the rows `[B]` of the goals."""
        return self.mix.draw(rows, self.ends, self.discount, generator)

    def rewards(self, store: Store, rows: Tensor, goals: Tensor) -> tuple[Tensor, Tensor]:
        """Rewards and masks of the steps `rows` `[B, H]` for the goals in the rows `goals` `[B]`."""
        reached = (rows == goals.unsqueeze(-1)).float()
        return reached - 1, 1 - reached

    def place(self, store: Store, flat: Tensor, goals: Tensor) -> Tensor:
        """Flat observations `[B, O]`, composed of observations without goals `[B, O - G]` and of drawn goals."""
        parts = (flat[:, : self.start], store.take("goals", goals), flat[:, self.start :])
        return torch.cat([part.to(self.dtype) for part in parts], -1)
