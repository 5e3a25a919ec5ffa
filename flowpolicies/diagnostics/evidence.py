"""What diagnostics look at: batches, actions, values, starts and returns of a model, each computed once when asked for.

Nothing here changes the model, its buffer or its random generators.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from flowpolicies.core import Batch, GeneratorNoise, Networks, Noise, View
from flowpolicies.data.replay.store import Store
from flowpolicies.diagnostics.rollouts import Rollouts, roll_out
from flowpolicies.networks import Critic
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.spaces.layout import observation_layout

STARTS = 32
"""Number of states in which episodes begin."""
NEIGHBORS = 64
"""Number of states of the data that are taken as the neighbors of each start."""
WAYS, POINTS = 64, 9
"""Largest number of ways from a start to success, and number of points on each of them."""
DETOUR = 1.5
"""Largest length of a way from the starts of an environment, in units of the shortest one."""
NEAR = 0.5
"""Largest distance of a neighbor, in standard deviations of the data per dimension."""


class NotMeasurable(Exception):  # Not an error.
    """The model, its data or the caller has not got what a diagnostic measures; the message says what."""


class Ways(NamedTuple):
    """Ways through the data, from states near a start to success."""

    observations: Tensor
    """States at equal fractions of each way, `[W, P, O]`."""
    steps: float
    """Mean number of environment steps of a way."""
    best: float
    """Largest discounted return of a way."""


@final
class Evidence:
    """What diagnostics look at.

    Args:
        model: a model with its dataset, or with transitions that it has collected.
        env: environments for the states where episodes begin, and for returns; None: the beginnings of the dataset's
            episodes are the starts, and diagnostics that need returns do not apply.
        samples: number of transitions that are looked at.
        seed: seed of all random numbers.
    """

    def __init__(
        self, model: OfflineAlgorithm, env: VecEnv | None = None, *, samples: int = 1024, seed: int = 0
    ) -> None:
        self.model, self.env, self.samples, self.seed = model, env, samples, seed
        self.policy = model.policy
        self.policy.set_training_mode(False)
        self.sampler = copy.deepcopy(self.policy.sampler)  # A call may change the statistics of a sampler.

    def generator(self, stream: int) -> torch.Generator:
        """A generator of its own for each use, so that no reading depends on which others are taken."""
        return torch.Generator(device=self.policy.device).manual_seed(self.seed * 1000 + stream)

    def noise(self, stream: int) -> Noise:
        """Noise from a generator of its own."""
        return GeneratorNoise(self.policy.chunk_dim, self.generator(stream))

    @cached_property
    def windows(self) -> Batch:
        """Transitions as training sees them."""
        return self.sample(self.samples + self.samples % 2, self.seed)  # RQL divides batches in halves.

    def sample(self, size: int, seed: int) -> Batch:
        """A batch of its own seed."""
        with self.model.transitions.apart(seed):
            return self.model.transitions.sample(size, env=self.model._vec_normalize_env)

    @cached_property
    def batch(self) -> Batch:
        """Those of `windows` whose chunk lies inside its episode."""
        whole = self.windows.valid > 0
        if not whole.any():
            raise NotMeasurable("no sampled chunk of the data lies inside its episode")
        return Batch(*(column[whole] for column in self.windows))

    @cached_property
    def actions(self) -> Tensor:
        """Actions of the policy at the batch, `[B, A]`."""
        return self.act(self.batch.observations, 1)

    def act(self, observations: Tensor, stream: int) -> Tensor:
        """Actions of the policy, `[N, A]`."""
        with torch.no_grad():
            return self.sampler(self.policy.view(), observations, self.noise(stream))

    @cached_property
    def nets(self) -> Networks:
        """The networks as losses see them."""
        networks, targets = self.policy.networks, self.policy.targets
        trained = View.of(dict(networks.items()))
        return Networks(trained, trained, View.of(dict(targets.items())))

    @cached_property
    def q(self) -> Callable[[Tensor, Tensor], Tensor]:
        """(observations `[N, O]`, actions `[N, A]`) -> values of all critics `[E, N]`, in units of unscaled rewards."""
        for name in ("critic", "value"):
            if name in self.policy.networks:
                module = self.policy.networks[name]
                head = getattr(module, "head", module)
                if name == "critic" or isinstance(head, Critic):
                    timed = getattr(head, "time_embedding", "none") != "none"
                    unit = self.policy.reward_factor
                    return lambda s, a: module(s, a, *([torch.ones_like(a[..., :1])] if timed else [])) / unit
        raise NotMeasurable(f"{type(self.model).__name__} learns no values of actions")

    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Values of all critics, `[E, N]`, in units of unscaled rewards, without gradient."""
        with torch.no_grad():
            return self.q(observations, actions).float()

    @cached_property
    def batch_values(self) -> Tensor:
        """Values of the policy's actions at the batch, `[E, B]`."""
        return self.values(self.batch.observations, self.actions)

    @cached_property
    def spread(self) -> float:
        """Difference between high and low values at the batch (95 and 5 % quantiles), the unit of errors of values."""
        low, high = np.quantile(self.batch_values.mean(0).cpu().numpy(), (0.05, 0.95))
        return max(float(high - low), 1e-6)

    @cached_property
    def store(self) -> Store:
        """The transitions of the dataset."""
        buffer = self.model.transitions
        if buffer.offline is None:
            raise NotMeasurable("the model has no dataset attached")
        if buffer.hindsight is not None:
            raise NotMeasurable("goals are drawn at random for each batch, so the data have no starts and no successes")
        if self.model._vec_normalize_env is not None:
            raise NotMeasurable("VecNormalize normalises the observations, and the data are stored without it")
        return buffer.offline

    @cached_property
    def starts(self) -> Tensor:
        """States in which episodes begin, `[S, O]`."""
        if self.env is not None:
            return self.rollouts.starts
        firsts = self.store.episodes.table()[1]
        chosen = np.unique(np.linspace(0, len(firsts) - 1, STARTS).round().astype(int))
        return self.store.take("observations", firsts[torch.from_numpy(chosen)]).to(self.policy.device)

    @cached_property
    def rollouts(self) -> Rollouts:
        """An episode of the policy in each environment."""
        if self.env is None:
            raise NotMeasurable("there is no environment to measure returns in; pass --env or env=")
        self.env.seed(self.seed)
        return roll_out(self.policy, self.sampler, self.env, self.model.gamma, self.noise(2), self.q_or_none())

    def q_or_none(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """`q`, or None if there is none."""
        try:
            return self.q
        except NotMeasurable:
            return None

    @cached_property
    def ways(self) -> Ways:
        """Ways through the data from near the starts to success."""
        rows = self.store
        successes = _successes(rows)
        near = self._neighbors(successes)
        episode = np.searchsorted(np.flatnonzero(rows.columns["terminals"].numpy()), near)
        first = near[np.unique(episode, return_index=True)[1]]  # The nearest row of each episode.
        to_go = successes[np.searchsorted(successes, first)] - first
        each = np.argsort(to_go, kind="stable")
        if self.env is not None:  # Otherwise the starts are all over the data, and ways have all lengths.
            each = each[to_go[each] <= DETOUR * to_go[each[0]]]
        each = each[np.unique(np.linspace(0, len(each) - 1, WAYS).round().astype(int))]
        fractions = np.linspace(0, 1, POINTS)
        points = first[each, None] + (to_go[each, None] * fractions).round().astype(int)
        observations = rows.take("observations", torch.from_numpy(points)).to(self.policy.device)
        returns = [self._discounted(int(row), int(steps)) for row, steps in zip(first[each], to_go[each], strict=True)]
        return Ways(observations, float(to_go[each].mean()), max(returns))

    def _discounted(self, row: int, steps: int) -> float:
        """Discounted return of the data from a row on to the success that is so many steps later."""
        rewards = self.store.columns["rewards"][row : row + steps + 1].double()
        return float((rewards * self.model.gamma ** torch.arange(steps + 1)).sum())

    def _neighbors(self, successes: np.ndarray) -> np.ndarray:
        """Rows near the starts from which an episode goes on to success, at least `POINTS` steps before it; the nearest
        ones first."""
        rows = self.store
        following = np.searchsorted(successes, np.arange(rows.size))
        last = np.flatnonzero(rows.columns["terminals"].numpy())
        goal = np.append(successes, rows.size)[following]
        same = np.searchsorted(last, goal) == np.searchsorted(last, np.arange(rows.size))
        onward = np.flatnonzero(same & (goal - np.arange(rows.size) >= POINTS))
        if any(entry.image for entry in observation_layout(self.policy.observation_space)):
            firsts = rows.episodes.table()[1].numpy()
            onward = np.intersect1d(onward, firsts)
            if not len(onward):
                raise NotMeasurable("observations are images, and no episode of the data begins and then succeeds")
            return onward
        if not len(onward):
            raise NotMeasurable(f"no episode of the data has {POINTS} steps before a success")
        return self._nearest(onward)

    def _nearest(self, candidates: np.ndarray) -> np.ndarray:
        """The rows among `candidates` that are nearest to the starts, in the order of their distance."""
        states = self.store.take("observations", torch.from_numpy(candidates))
        scale = states.std(0).clamp(min=1e-6)
        distances = torch.cdist(self.starts.cpu() / scale, states / scale)
        nearest = distances.topk(min(NEIGHBORS, len(candidates)), largest=False)
        close = nearest.values <= NEAR * states.shape[-1] ** 0.5
        if not close.any():
            raise NotMeasurable("the data have no states near those in which episodes begin, and on the way to success")
        order = nearest.values[close].argsort(stable=True)
        found = nearest.indices[close][order].numpy()
        chosen: np.ndarray = candidates[found[np.sort(np.unique(found, return_index=True)[1])]]
        return chosen


def _successes(rows: Store) -> np.ndarray:
    """Rows in which an episode reaches success: a mask of 0, if rewards are higher there than elsewhere."""
    rewards, masked = rows.columns["rewards"].numpy(), rows.columns["masks"].numpy() == 0
    if not masked.any() or masked.all():
        raise NotMeasurable("no row of the data ends in success (a mask of 0)")
    span = float(rewards.max() - rewards.min())
    if not rewards[masked].mean() - rewards[~masked].mean() > span / 2:
        raise NotMeasurable("masks of 0 do not mark success in these data: rewards are not higher there")
    return np.flatnonzero(masked)
