"""Acting in several episodes at once, in each of them as if it were the only one.

The actions of an episode depend on the seed and on its number alone, not on how many episodes are played beside it.
Each has a generator of its own. And since the last bits of a matrix product depend on the number of rows and on the
place of a row among them, the networks always get batches of one size, in which the number of an episode decides its
place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from flowpolicies.core import Draw, Network, Noise, ZeroNoise
from flowpolicies.policies.building import is_own_encoder
from flowpolicies.policies.declared import is_built_in
from flowpolicies.policies.intervals import ROWS
from flowpolicies.samplers import SAMPLERS, RobustGuided, Sampler, candidates
from flowpolicies.spaces.layout import observation_layout
from flowpolicies.tree import leaves, take


@final
class EpisodeNoise(Noise):
    """Draws whose first axis is that of the episodes: each row comes from the generator of its episode.

    Args:
        action_dim: width of an action (chunk).
        generators: generators on the CPU, so that the draws are the same on every device; a row without one is 0.
        device: device of the draws.
    """

    def __init__(
        self, action_dim: int, generators: Sequence[torch.Generator | None], device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(action_dim)
        self.generators, self.device = generators, device
        self._empty = ZeroNoise(action_dim)

    def draw(self, draw: Draw) -> Tensor:
        if draw.shape[:1] != (len(self.generators),):
            raise ValueError(
                f"a sampler draws {draw.kind} of shape {list(draw.shape)} for {len(self.generators)} observations; the "
                "first axis of a draw must be that of the observations."
            )
        row = draw._replace(shape=draw.shape[1:])
        rows = [self._empty.draw(row) if one is None else row.sample(one) for one in self.generators]
        return torch.stack(rows).to(self.device)


@final
class EpisodeRows:
    """The episodes that a policy acts in, one in each row of its observations.

    Args:
        seed: seed of the noise of all episodes.
        n: number of rows.
        batch_size: number of rows that the networks get at once.
    """

    def __init__(self, seed: int, n: int, batch_size: int = ROWS) -> None:
        self.seed, self.batch_size = seed, batch_size
        self._numbers = [0] * n
        self._generators = [torch.Generator() for _ in range(n)]

    def __len__(self) -> int:
        return len(self._numbers)

    def begin(self, rows: Sequence[int], numbers: Sequence[int]) -> None:
        """Says which episodes begin in which rows.

        Args:
            rows: the rows.
            numbers: the number of the episode of each; episodes with equal seed and number get equal noise.
        """
        for row, number in zip(rows, numbers, strict=True):
            self._numbers[row] = number
            entropy = np.random.SeedSequence([self.seed % 2**63, number])
            self._generators[row].manual_seed(int(entropy.generate_state(1)[0]))

    def plan(
        self,
        plan: Callable[[Any, Noise], Tensor],
        observations: Any,
        rows: Sequence[int],
        action_dim: int,
        deterministic: bool = False,
    ) -> Tensor:
        """Plans for some of the episodes, `[R, ...]`.

        Args:
            plan: function from `batch_size` observations and their noise to plans `[batch_size, ...]`.
            observations: tensor `[N, ...]`, or a dict of them, of all rows.
            rows: the R rows to plan for.
            action_dim: width of an action chunk.
            deterministic: whether all noise is zero.
        """
        plans: dict[int, Tensor] = {}
        for places in self._batches(rows):
            some = next(iter(places.values()))  # A place without an episode gets any valid observation.
            order = [places.get(place, some) for place in range(self.batch_size)]
            device = leaves(observations)[0].device
            noise: Noise = ZeroNoise(action_dim, device)
            if not deterministic:
                owners = [self._generators[places[i]] if i in places else None for i in range(self.batch_size)]
                noise = EpisodeNoise(action_dim, owners, device)
            planned = plan(take(observations, torch.as_tensor(order, device=device)), noise)
            plans |= {row: planned[place] for place, row in places.items()}
        return torch.stack([plans[row] for row in rows])

    def _batches(self, rows: Sequence[int]) -> Iterator[dict[int, int]]:
        """Batches of place -> row. Rows whose episodes have the same place are in different batches."""
        batches: list[dict[int, int]] = []
        for row in rows:
            place = self._numbers[row] % self.batch_size
            free = next((batch for batch in batches if place not in batch), None)
            if free is None:
                batches.append(free := {})
            free[place] = row
        yield from batches


def batch_size(
    networks: Mapping[str, Network], sampler: Sampler, encoder: str, observation_space: spaces.Space[Any]
) -> int:
    """Number of episodes that share a call of the networks, at most `ROWS`.

    It is 1 for images, which a processor does not encode faster together, and for samplers and networks in which a row
    may depend on the others: `RobustGuided`, feature extractors, and those of other packages, which nobody here knows.
    """
    known = is_own_encoder(encoder) and all(map(is_built_in, networks.values())) and _keeps_rows_apart(sampler)
    if not known or any(entry.image for entry in observation_layout(observation_space)):
        return 1
    return max(1, ROWS // candidates(sampler))


def _keeps_rows_apart(sampler: Any) -> bool:
    name = SAMPLERS.name_of(type(sampler))
    if name is None or not SAMPLERS.is_built_in(name) or isinstance(sampler, RobustGuided):
        return False
    inner = getattr(sampler, "inner", None)
    return inner is None or _keeps_rows_apart(inner)


def starts_of(episode_start: Any, n: int) -> np.ndarray:
    """Where new episodes begin, `[N]`; nowhere if `episode_start` is None."""
    if episode_start is None:
        return np.zeros(n, bool)
    starts = np.asarray(episode_start, bool).reshape(-1)
    if len(starts) != n:
        raise ValueError(f"episode_start has {len(starts)} flags for {n} observations: pass one for each.")
    return starts
