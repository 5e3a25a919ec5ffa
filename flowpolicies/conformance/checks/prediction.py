"""Prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from flowpolicies.conformance.case import Case, best_actions, raises, some_observations
from flowpolicies.conformance.promises import over
from flowpolicies.conformance.toys import KINDS, ObservationKind, WithActions

_ERRORS = (ValueError, AssertionError, TypeError, RuntimeError, IndexError)


@over(**{kind: kind for kind in KINDS})
def predicts_for_one_observation(case: Case, kind: ObservationKind) -> None:
    """`predict` takes a single observation of any kind and gives a single action within the action space, and no
    state."""
    model, env = case.model(case.env(kind)), case.env(kind)
    action, state = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert action.shape == (2,), f"the action's shape is {action.shape}"
    assert env.action_space.contains(action), f"the action {action} of type {action.dtype} is not in the action space"
    assert state is None, "a policy without memory returned a state"


@over(**{kind: kind for kind in KINDS})
def predicts_for_a_vec_env(case: Case, kind: ObservationKind) -> None:
    """`predict` takes the observations of a VecEnv and gives one action for each environment."""
    model = case.model(case.vec(3, kind))
    env = model.get_env()
    assert env is not None
    observations: Any = env.reset()
    assert model.predict(observations)[0].shape == (3, 2), "three environments did not get three actions"


def a_batch_is_predicted_like_its_rows(case: Case) -> None:
    """The deterministic action for an observation does not depend on the batch that it is in."""
    model = case.trained()
    rows = some_observations(model.observation_space)
    single = np.stack([model.predict(row, deterministic=True)[0] for row in rows])
    np.testing.assert_allclose(single, best_actions(model, rows), atol=1e-5)


def channels_last_images_are_predicted(case: Case) -> None:
    """A model that was trained on transposed images takes channels-last images too, as the plain environment gives
    them."""
    model = case.model(case.env("image"))
    last = case.env("image").reset(seed=0)[0]
    first = last.transpose(2, 0, 1)
    ours, theirs = (model.predict(image, deterministic=True)[0] for image in (last, first))
    np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg="the layouts give different actions")


@over(float64=np.float64, float32=np.float32)
def predicts_for_other_dtypes(case: Case, dtype: type) -> None:
    """Observations of another floating-point type give the same action."""
    model = case.trained()
    rows = some_observations(model.observation_space)
    np.testing.assert_allclose(best_actions(model, rows.astype(dtype)), best_actions(model, rows), atol=1e-5)


def predicts_with_another_default_dtype(case: Case) -> None:
    """A model acts as before where the program has since called `torch.set_default_dtype(torch.float64)`."""
    model = case.trained()
    before, usual = best_actions(model), torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        after = best_actions(model)
    finally:
        torch.set_default_dtype(usual)
    np.testing.assert_allclose(after, before, atol=1e-5)


def predicted_actions_have_the_units_of_the_space(case: Case) -> None:
    """Actions are in the units and the dtype of the action space; they are neither scaled to [-1, 1] nor all at a
    bound."""
    space = spaces.Box(5, 6, (2,), np.float32)
    model = case.model(WithActions(case.env(), space))
    actions = model.predict(np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32))[0]
    assert actions.dtype == np.float32, f"the dtype is {actions.dtype}"
    assert all(space.contains(action) for action in actions), f"actions lie in [{actions.min()}, {actions.max()}]"
    assert 5.05 < actions.mean() < 5.95, f"the mean action is {actions.mean()} in a space from 5 to 6"


def predict_takes_states(case: Case) -> None:
    """`predict(observation, state, episode_start, deterministic)` takes the arguments of recurrent policies, as
    `evaluate_policy` passes them."""
    model = case.model()
    rows = some_observations(model.observation_space, 2)
    actions, _ = model.predict(rows, state=None, episode_start=np.ones(2, bool), deterministic=True)
    np.testing.assert_allclose(actions, best_actions(model, rows), atol=1e-6)


def predict_takes_lists(case: Case) -> None:
    """An observation may be a list of numbers."""
    model, row = case.model(), [0.1, -0.2, 0.3]
    found = model.predict(row, deterministic=True)[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(found, model.predict(np.array(row, np.float32), deterministic=True)[0], atol=1e-6)


@over(narrow=np.zeros(2, np.float32), wide=np.zeros(4, np.float32), deep=np.zeros((2, 2, 3), np.float32))
def predict_refuses_other_shapes(case: Case, observation: np.ndarray) -> None:
    """An observation of another shape raises an error instead of being broadcast."""
    model = case.model()
    raises(_ERRORS, lambda: model.predict(observation))


def predict_refuses_what_reset_gives(case: Case) -> None:
    """The pair that Gymnasium's `reset` returns raises a ValueError that explains the mistake."""
    model = case.model()
    pair: Any = case.env().reset()
    raises((ValueError,), lambda: model.predict(pair))


def predict_refuses_missing_keys(case: Case) -> None:
    """A dictionary that lacks a key raises an error."""
    model = case.model(case.env("dict"))
    raises((*_ERRORS, KeyError), lambda: model.predict({"position": np.zeros(2, np.float32)}))


def predict_refuses_vectors_for_dictionaries(case: Case) -> None:
    """An array raises an error where dictionaries are observed."""
    model = case.model(case.env("dict"))
    raises(_ERRORS, lambda: model.predict(np.zeros(3, np.float32)))


def the_order_of_keys_does_not_matter(case: Case) -> None:
    """Dictionaries with the same entries in another order give the same action."""
    model = case.trained(case.env("dict"))
    rows = some_observations(model.observation_space)
    turned = dict(reversed(list(rows.items())))
    np.testing.assert_allclose(best_actions(model, turned), best_actions(model, rows), atol=1e-6)


def predictions_do_not_change_observations(case: Case) -> None:
    """`predict` does not write to the observation that it is given."""
    model = case.model()
    rows = some_observations(model.observation_space)
    kept = rows.copy()
    model.predict(rows)
    np.testing.assert_array_equal(rows, kept)


def predictions_are_arrays(case: Case) -> None:
    """Actions are numpy arrays without a gradient, which the caller may change."""
    model = case.model()
    action = model.predict(np.zeros(3, np.float32), deterministic=True)[0]
    assert isinstance(action, np.ndarray), f"the action is a {type(action).__name__}"
    action += 1
    again = model.predict(np.zeros(3, np.float32), deterministic=True)[0]
    np.testing.assert_allclose(action - 1, again, atol=1e-6, err_msg="changing an action changed the next one")


def actions_depend_on_observations(case: Case) -> None:
    """Different observations give different actions."""
    actions = best_actions(case.trained())
    assert np.ptp(actions, axis=0).max() > 0, "five observations gave one action"


def one_hot_observations_are_told_apart(case: Case) -> None:
    """Each value of a Discrete observation is an input of its own, so that values can get any actions."""
    model = case.model(case.env("discrete"))
    assert isinstance(model.observation_space, spaces.Discrete), f"the space is {model.observation_space}"
    actions = model.predict(np.arange(4), deterministic=True)[0]
    assert len(np.unique(np.round(actions, 6), axis=0)) == 4, "two values of the observation gave the same action"
    steps = np.diff(actions, axis=0)
    assert np.ptp(steps, axis=0).max() > 1e-6, "actions are linear in the value: it is not one-hot"
