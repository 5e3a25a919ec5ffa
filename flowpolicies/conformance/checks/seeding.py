"""Seeds and reproducibility."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    NotApplicable,
    Trace,
    actions_of,
    best_actions,
    same_weights,
    some_observations,
)
from flowpolicies.conformance.promises import over


def _disturb() -> None:
    """Moves the global generators on."""
    random.random()
    np.random.rand(5)  # noqa: NPY002
    torch.rand(7)


def _twins(case: Case, first: int | None, second: int | None) -> tuple[OffPolicyAlgorithm, OffPolicyAlgorithm]:
    a = case.trained(seed=first)
    _disturb()
    return a, case.trained(seed=second)


def _actions(case: Case, **options: Any) -> list[np.ndarray]:
    """The actions of two models with one seed and of a model with another."""
    found = []
    for seed in (1, 1, 2):
        found.append(actions_of(case.model(seed=seed, **options)))
        _disturb()
    return found


def the_same_seed_gives_the_same_run(case: Case) -> None:
    """Two models with the same seed learn alike, and models with different seeds do not."""
    assert same_weights(*_twins(case, 3, 3)), "one seed gave two runs"
    assert not same_weights(*_twins(case, 3, 4)), "two seeds gave the same run"


@over(random={"learning_starts": 100}, policy={"learning_starts": 0, "gradient_steps": 0})
def the_seed_determines_exploration(case: Case, options: dict[str, Any]) -> None:
    """The seed determines the actions of a run, those before `learning_starts` and those of the policy."""
    a, b, c = _actions(case, **options)
    np.testing.assert_array_equal(a, b, err_msg="one seed gave two runs")
    assert not np.array_equal(a, c), "two seeds gave the same actions"


def no_seed_gives_another_run(case: Case) -> None:
    """Without a seed, two models differ."""
    assert not same_weights(*_twins(case, None, None)), "the weights are the same"


def the_same_seed_gives_the_same_weights(case: Case) -> None:
    """The seed determines the weights before training."""
    a, b, c = case.model(seed=1), case.model(seed=1), case.model(seed=2)
    assert same_weights(a, b), "one seed gave two models"
    assert not same_weights(a, c), "two seeds gave one model"


def the_seed_reaches_the_environment(case: Case) -> None:
    """The seed of the model seeds the environment's resets."""
    first = []
    for seed in (1, 1, 2):
        trace = Trace(look=lambda c: c.locals["self"]._last_obs.copy())
        case.model(seed=seed, learning_starts=100).learn(2, callback=trace)
        first.append(trace.seen[0])
    np.testing.assert_array_equal(first[0], first[1], err_msg="one seed gave two first observations")
    assert not np.array_equal(first[0], first[2]), "two seeds gave the same first observation"


def _after(case: Case, seed: int) -> OffPolicyAlgorithm:
    """A trained model that was seeded anew, and has learned on."""
    model = case.trained()
    model.set_random_seed(seed)
    return model.learn(STEPS)


def set_random_seed_changes_the_future(case: Case) -> None:
    """`model.set_random_seed(seed)` determines what is collected and learned afterwards."""
    a, b, c = _after(case, 1), _after(case, 1), _after(case, 2)
    assert same_weights(a, b), "one seed gave two futures"
    assert not same_weights(a, c), "two seeds gave the same future"


def set_random_seed_changes_updates(case: Case) -> None:
    """`model.set_random_seed(seed)` determines the batches and the noise of updates on the same buffer."""
    found = []
    for seed in (1, 1, 2):
        model = case.model(learning_starts=100).learn(STEPS)
        model.set_random_seed(seed)
        model.train(gradient_steps=2, batch_size=4)
        found.append(model)
    assert same_weights(found[0], found[1]), "one seed gave two updates"
    assert not same_weights(found[0], found[2]), "two seeds gave the same updates"


def set_random_seed_changes_random_actions(case: Case) -> None:
    """`model.set_random_seed(seed)` determines the random actions before `learning_starts`."""
    found = []
    for seed in (1, 1, 2):
        model = case.model(learning_starts=100)
        model.set_random_seed(seed)
        found.append(actions_of(model, 5))
    np.testing.assert_array_equal(found[0], found[1], err_msg="one seed gave two sequences")
    assert not np.array_equal(found[0], found[2]), "two seeds gave the same actions"


def load_takes_a_seed_for_updates(case: Case) -> None:
    """`load(path, seed=...)` determines the batches and the noise of updates on the same buffer."""
    path, found = case.saved(), []
    case.trained().save_replay_buffer(case.folder / "buffer")
    for seed in (1, 1, 2):
        model = case.load(path, case.env(), seed=seed)
        model.set_logger(Logger(folder=None, output_formats=[]))
        model.load_replay_buffer(case.folder / "buffer")
        model.train(gradient_steps=2, batch_size=4)
        found.append(model)
        _disturb()
    assert same_weights(found[0], found[1]), "one seed gave two futures"
    assert not same_weights(found[0], found[2]), "two seeds gave bit-identical weights"


def load_takes_a_seed(case: Case) -> None:
    """`load(path, env, seed=...)` determines the training that follows: two seeds fine-tune one file differently."""
    path = case.saved()
    a, b, c = (case.load(path, case.env(), seed=seed).learn(STEPS) for seed in (1, 1, 2))
    assert same_weights(a, b), "one seed gave two futures"
    assert not same_weights(a, c), "two seeds gave bit-identical weights"


def deterministic_actions_repeat(case: Case) -> None:
    """`predict(..., deterministic=True)` gives the same action for the same observation, whatever was drawn before."""
    model = case.trained()
    before = best_actions(model)
    _disturb()
    model.predict(some_observations(model.observation_space))
    np.testing.assert_array_equal(best_actions(model), before)


@over(global_seed=True, model_seed=False)
def stochastic_actions_can_be_seeded(case: Case, globally: bool) -> None:
    """The same seed gives the same stochastic actions, by `set_random_seed` of the model or of
    `stable_baselines3.common.utils`."""
    model, found = case.trained(), []
    for _ in range(2):
        if globally:
            set_random_seed(4)
        else:
            model.set_random_seed(4)
        found.append(model.predict(some_observations(model.observation_space))[0])
    np.testing.assert_array_equal(found[0], found[1])


def the_seed_changes_stochastic_actions(case: Case) -> None:
    """Two seeds of `model.set_random_seed` give different stochastic actions."""
    model, found = case.trained(), []
    rows = some_observations(model.observation_space)
    if np.array_equal(model.predict(rows)[0], model.predict(rows)[0]):
        raise NotApplicable("The policy of this class is deterministic.")
    for seed in (1, 2):
        model.set_random_seed(seed)
        found.append(model.predict(rows)[0])
    assert not np.array_equal(found[0], found[1]), "two seeds gave the same actions"


def prediction_does_not_learn(case: Case) -> None:
    """`predict` changes neither weights nor counters."""
    model, twin = case.trained(), case.trained()
    model.predict(some_observations(model.observation_space), deterministic=True)
    assert same_weights(model, twin), "weights changed"
    assert model.num_timesteps == twin.num_timesteps, "num_timesteps changed"
