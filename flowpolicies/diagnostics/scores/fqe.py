"""Fitted Q evaluation: the value of a policy, learnt from a dataset without its environment.

Le et al., "Batch Policy Learning under Constraints", https://arxiv.org/abs/1903.08738, with target copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from stable_baselines3.common.utils import get_device
from torch import Tensor, nn

from flowpolicies.choices import require_device
from flowpolicies.core import Batch, Learner, Loss, Network, Networks, Noise, UpdateSpec, loss_term
from flowpolicies.core.adam import initial_moments
from flowpolicies.core.learner import LearnerState
from flowpolicies.data import TransitionDataset
from flowpolicies.diagnostics.scores.rows import PolicyRows, as_inputs, policy_rows
from flowpolicies.losses import td_loss
from flowpolicies.networks import Critic
from flowpolicies.policies.building import build_network
from flowpolicies.policies.evaluation import Predicts
from flowpolicies.spaces.layout import Observations

SLACK = 0.5
"""How far values may be beyond what returns can be, as a share of that range, before they count as diverged."""
GROWTH = 4.0
"""Growth of the TD error from the second quarter of the updates to the last one from which it counts as diverged."""


@loss_term(trains="critic")
def evaluation_loss(nets: Networks, batch: Batch, noise: Noise, cfg: Any) -> Loss:
    """(Q(s, a) - r - gamma Qbar(s', a'))^2, a' the evaluated policy's action at s'."""
    return td_loss(nets, batch, batch.next_actions)


@final
@dataclass(frozen=True)
class FittedQ:
    """The result of a fitted Q evaluation."""

    initial_value: float
    """Mean value of the policy's actions in the states where episodes of the data begin: its estimated return."""
    disagreement: float
    """Standard deviation of the critics there, the mean over the states."""
    td_error: float
    """Mean squared error of Q(s, a) against r + gamma Q(s', a') at all transitions."""
    problem: str
    """Why the values have diverged and do not count; "" if nothing speaks against them."""
    updates: int
    """Number of updates of the critics."""
    dataset: TransitionDataset
    """The dataset, whose spaces the critics take."""
    critic: nn.Module
    """The critics: (flat observations, actions in [-1, 1]) -> `[E, N]`."""

    @property
    def diverged(self) -> bool:
        """Whether the values have diverged."""
        return self.problem != ""

    def __call__(self, observations: Observations, actions: np.ndarray) -> np.ndarray:
        """Values of all critics `[E, N]`, of observations and actions in the units of the dataset."""
        device = next(self.critic.parameters()).device
        with torch.no_grad():
            inputs = (part.to(device) for part in as_inputs(self.dataset, observations, actions))
            found: np.ndarray = self.critic(*inputs).cpu().numpy()
            return found


def fitted_q_evaluation(
    policy: Predicts,
    dataset: TransitionDataset,
    *,
    gamma: float = 0.99,
    updates: int = 10_000,
    rows: int = 100_000,
    batch_size: int = 256,
    hidden_dims: tuple[int, ...] = (256, 256),
    ensemble: int = 2,
    learning_rate: float = 3e-4,
    tau: float = 0.005,
    deterministic: bool = False,
    seed: int = 0,
    device: torch.device | str = "auto",
) -> FittedQ:
    """Learns the value of a policy from a dataset.

    The policy plans anew in each state: of an action chunk only the first action counts.

    Args:
        policy: anything with Stable-Baselines3's `predict`, such as a model or policy of this package, or SB3's SAC. It
            is left as it was, with its random generators.
        dataset: the transitions.
        gamma: discount per step.
        updates: number of updates.
        rows: largest number of transitions that are used; the policy is asked once for each.
        batch_size: number of transitions in an update.
        hidden_dims: hidden widths of the critics.
        ensemble: number of critics.
        learning_rate: learning rate of Adam.
        tau: Polyak rate of the target copies.
        deterministic: passed to `predict`.
        seed: seed of everything that is drawn.
        device: device of the critics.

    Raises:
        TypeError: if the policy cannot predict.
    """
    found = policy_rows(policy, dataset, rows, deterministic=deterministic, seed=seed)
    data = _as_batch(found, dataset, gamma, get_device(require_device(device)))
    fit = _Fit(dataset, data, hidden_dims, ensemble, learning_rate, tau, seed)
    errors = fit.train(updates, batch_size)
    observations, actions = as_inputs(dataset, found.starts, found.start_actions)
    with torch.no_grad():
        start = fit.critic(observations.to(fit.device), actions.to(fit.device))
        values, td_error = fit.values()
    return FittedQ(
        float(start.mean()),
        float(start.std(0, correction=0).mean()),
        td_error,
        _problem(values, errors, data, gamma),
        updates,
        dataset,
        fit.critic,
    )


def _as_batch(found: PolicyRows, dataset: TransitionDataset, gamma: float, device: torch.device) -> Batch:
    """All rows as one batch on the device."""
    observations, actions = as_inputs(dataset, found.observations, found.actions)
    next_observations, next_actions = as_inputs(dataset, found.next_observations, found.next_actions)
    rewards, masks = (torch.as_tensor(column, dtype=torch.float32) for column in (found.rewards, found.masks))
    columns = (observations, actions, next_observations, next_actions, rewards, gamma * masks)
    ones = (torch.ones_like(rewards), torch.ones_like(actions))
    return Batch(*(column.to(device) for column in (*columns, *ones)))


@final
class _Fit:
    """Critics that learn the value of given next actions."""

    def __init__(
        self,
        dataset: TransitionDataset,
        data: Batch,
        hidden_dims: tuple[int, ...],
        ensemble: int,
        learning_rate: float,
        tau: float,
        seed: int,
    ) -> None:
        self.data, self.device = data, data.rewards.device
        self.generator = torch.Generator(device=self.device).manual_seed(seed)
        network = Network(partial(Critic, hidden_dims=hidden_dims, ensemble=ensemble), target_rate=tau)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            made = build_network(network, dataset.observation_space, "impala_small", data.actions.shape[-1])
        self.critic = made.to(self.device)
        weights = {key: parameter.detach() for key, parameter in self.critic.named_parameters()}
        params, targets = {"critic": weights}, {"critic": {key: value.clone() for key, value in weights.items()}}
        self.state = LearnerState(params, targets, initial_moments(params))
        width = data.actions.shape[-1]
        self.learner = Learner({"critic": self.critic}, {"critic": network}, [evaluation_loss], None, action_dim=width)
        self.rate = torch.full((), learning_rate, dtype=torch.float32, device=self.device)

    def train(self, updates: int, batch_size: int) -> Tensor:
        """Updates the critics, and returns the TD error of each update, `[updates]`."""
        errors = []
        for _ in range(updates):
            rows = torch.randint(len(self.data.rewards), (batch_size,), generator=self.generator, device=self.device)
            batch = Batch(*(column[rows] for column in self.data))
            metrics = self.learner.update(self.state, batch, [[]], UpdateSpec(), self.rate)
            errors.append(metrics["evaluation/loss"])
        return torch.stack(errors) if errors else torch.zeros(0)

    def values(self) -> tuple[Tensor, float]:
        """Mean values of all transitions `[N]`, and their mean squared TD error."""
        values, squares = [], 0.0
        for begin in range(0, len(self.data.rewards), 65536):
            part = Batch(*(column[begin : begin + 65536] for column in self.data))
            q = self.critic(part.observations, part.actions).mean(0)
            following = self.critic(part.next_observations, part.next_actions).mean(0)
            squares += float((q - part.rewards - part.discounts * following).square().sum())
            values.append(q)
        return torch.cat(values), squares / len(self.data.rewards)


def _problem(values: Tensor, errors: Tensor, data: Batch, gamma: float) -> str:
    """Why values have diverged; "" if nothing speaks against them."""
    if not (values.isfinite().all() and errors.isfinite().all()):
        return "values are not finite"
    bounds = [float(reward) / max(1 - gamma, 1e-4) for reward in (data.rewards.min(), data.rewards.max())]
    least, most = min(bounds[0], float(data.rewards.min())), max(bounds[1], float(data.rewards.max()))
    slack = SLACK * max(most - least, 1e-6)
    lowest, highest = float(values.min()), float(values.max())
    if lowest < least - slack or highest > most + slack:
        return f"values go from {lowest:.4g} to {highest:.4g}, and returns can be between {least:.4g} and {most:.4g}"
    quarter = len(errors) // 4
    if quarter == 0:
        return ""
    before, after = float(errors[quarter : 2 * quarter].mean()), float(errors[-quarter:].mean())
    if after > GROWTH * before:
        return f"the TD error grows: {before:.4g} in the second quarter of the updates, {after:.4g} in the last one"
    return ""
