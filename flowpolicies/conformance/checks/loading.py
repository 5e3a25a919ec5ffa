"""Loading."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.utils import FloatSchedule
from stable_baselines3.common.vec_env import VecNormalize

from flowpolicies.conformance.case import (
    STEPS,
    Case,
    NotApplicable,
    best_actions,
    optimizers,
    raises,
    same_weights,
    uses,
    weights,
)
from flowpolicies.conformance.promises import over
from flowpolicies.conformance.toys import WithActions, WithObservations


def load_restores_the_hyperparameters(case: Case) -> None:
    """A loaded model has the hyperparameters, counters and spaces of the saved one."""
    model = case.trained(gamma=0.9, tau=0.1, batch_size=6, learning_starts=5, learning_rate=2e-3)
    model.save(case.folder / "model")
    loaded = case.load(case.folder / "model")
    names = "gamma tau batch_size learning_starts learning_rate buffer_size gradient_steps num_timesteps seed"
    wrong = {name: getattr(loaded, name) for name in names.split() if getattr(loaded, name) != getattr(model, name)}
    assert not wrong, f"{wrong} differ"
    assert loaded.observation_space == model.observation_space, "the observation space differs"
    assert loaded.train_freq == model.train_freq, "train_freq differs"


def load_restores_the_optimisers(case: Case) -> None:
    """A loaded model has the saved optimisers' state, such as the moments of Adam."""
    model = case.trained()
    model.save(case.folder / "model")
    assert optimizers(model), "no optimiser is among get_parameters()"
    for ours, theirs in zip(optimizers(model), optimizers(case.load(case.folder / "model")), strict=True):
        a, b = ours.state_dict()["state"], theirs.state_dict()["state"]
        assert a, "the optimiser has no state after updates"
        assert a.keys() == b.keys(), "the loaded optimiser has a state for other parameters"
        for key, state in a.items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(b[key][n])) for n, v in state.items()), (
                "it differs"
            )


def a_loaded_model_acts_without_an_environment(case: Case) -> None:
    """A model that is loaded without an environment predicts, and `get_env()` is None."""
    loaded = case.load(case.saved())
    assert best_actions(loaded).shape == (5, 2), "it does not act"
    assert loaded.get_env() is None, f"get_env() is a {type(loaded.get_env()).__name__}"


def a_loaded_model_needs_an_environment_to_learn(case: Case) -> None:
    """`learn` of a model without an environment raises an error."""
    loaded = case.load(case.saved())
    raises((AssertionError, ValueError), lambda: loaded.learn(5))


def a_loaded_model_continues_with_set_env(case: Case) -> None:
    """A model loaded without an environment learns after `set_env`."""
    loaded = case.load(case.saved())
    loaded.set_env(case.env())
    before = weights(loaded)
    loaded.learn(STEPS, reset_num_timesteps=False)
    assert loaded.num_timesteps == 2 * STEPS, f"num_timesteps is {loaded.num_timesteps}"
    assert not all(torch.equal(before[name], value) for name, value in weights(loaded).items()), "nothing was learned"


def load_takes_an_environment(case: Case) -> None:
    """`load(path, env=env)` gives a model that continues to learn in it."""
    loaded = case.load(case.saved(), case.env())
    loaded.learn(5, reset_num_timesteps=False)
    assert loaded.num_timesteps == STEPS + 5, f"num_timesteps is {loaded.num_timesteps}"


def load_takes_another_number_of_environments(case: Case) -> None:
    """The environment of `load` may be a VecEnv of another size than the saved model's."""
    loaded = case.load(case.saved(), case.vec(3))
    assert loaded.n_envs == 3, f"n_envs is {loaded.n_envs}"
    loaded.learn(12)
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.n_envs == 3, f"the buffer has n_envs={loaded.replay_buffer.n_envs}"


def load_takes_a_normalised_environment(case: Case) -> None:
    """`load(path, env=VecNormalize(...))` learns with normalised observations, and knows the wrapper."""
    env = VecNormalize(case.vec(1))
    loaded = case.load(case.saved(), env).learn(STEPS)
    assert loaded.get_vec_normalize_env() is env, "get_vec_normalize_env() is another object"


def load_refuses_other_spaces(case: Case) -> None:
    """An environment with other spaces than the saved model's raises a ValueError."""
    path = case.saved()
    narrow = WithObservations(case.env(), spaces.Box(-1, 1, (4,), np.float32))
    raises((ValueError,), lambda: case.load(path, narrow))
    raises((ValueError,), lambda: case.load(path, WithActions(case.env(), spaces.Box(-1, 1, (2,), np.float32))))


def load_takes_a_device(case: Case) -> None:
    """`load(path, device=...)` puts the model on the device."""
    loaded = case.cls.load(case.saved(), device=torch.device("cpu"))
    assert loaded.device == torch.device("cpu"), f"the device is {loaded.device}"
    assert {p.device.type for p in loaded.policy.parameters()} == {"cpu"}, "parameters are elsewhere"


_NEW: dict[str, Any] = {"gamma": 0.5, "tau": 0.5, "batch_size": 4, "gradient_steps": 3, "learning_starts": 12}
_PLAIN: dict[str, Any] = {"buffer_size": 50, "verbose": 1, "tensorboard_log": None, "learning_rate": 0.01, "seed": 5}


@over(**{name: (name, value) for name, value in {**_NEW, **_PLAIN}.items()})
def load_takes_hyperparameters(case: Case, given: tuple[str, Any]) -> None:
    """`load(path, env, name=value)` changes the attribute, and the model learns."""
    name, value = given
    loaded = case.load(case.saved(), case.env(), **{name: value}).learn(STEPS)
    assert getattr(loaded, name) == value, f"{name} is {getattr(loaded, name)} after load(..., {name}={value})"


@over(**{name: (name, value) for name, value in _NEW.items()})
def load_applies_hyperparameters(case: Case, given: tuple[str, Any]) -> None:
    """A hyperparameter that is given to `load` takes effect in the training that follows."""
    name, value = given
    if not uses(case, name, value):
        raise NotApplicable(f"The class does not use {name}.")
    path = case.saved()
    plain, changed = (case.load(path, case.env(), seed=1, **extra).learn(STEPS) for extra in ({}, {name: value}))
    assert not same_weights(plain, changed), f"load(..., {name}={value}) has no effect on later training"


@over(keyword=False, custom_objects=True)
def load_changes_the_learning_rate(case: Case, custom: bool) -> None:
    """`load(path, env, learning_rate=...)`, or the same in `custom_objects`, is the rate of the next updates."""
    new: dict[str, Any] = {"learning_rate": 0.0123, "lr_schedule": FloatSchedule(0.0123)}
    given = {"custom_objects": new} if custom else {"learning_rate": 0.0123}
    loaded = case.load(case.saved(), case.env(), **given).learn(STEPS)
    rates = {round(float(group["lr"]), 6) for optimizer in optimizers(loaded) for group in optimizer.param_groups}
    assert 0.0123 in rates, f"the optimisers' learning rates are {rates}"


def load_refuses_other_policy_kwargs(case: Case) -> None:
    """`policy_kwargs` that differ from the saved ones raise a ValueError."""
    path = case.saved()
    raises((ValueError,), lambda: case.load(path, policy_kwargs={"net_arch": [5, 5, 5]}))


def load_prints_system_info(case: Case) -> None:
    """`load(path, print_system_info=True)` prints the versions now and at the time of saving."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        case.load(case.saved(), print_system_info=True)
    for title in ("CURRENT SYSTEM INFO", "SAVED MODEL SYSTEM INFO"):
        assert title in printed.getvalue(), f"{title} is not printed"


def load_forces_a_reset(case: Case) -> None:
    """`load(path, env)` forgets the last observation, so that training begins with a reset; `force_reset=False` keeps
    it."""
    path = case.saved()
    assert case.load(path, case.env())._last_obs is None, "the last observation was kept"
    assert case.load(path, case.env(), force_reset=False)._last_obs is not None, "it was not kept"


def load_replaces_custom_objects(case: Case) -> None:
    """`custom_objects` replace what is in the file, for models that were saved by other versions."""
    loaded = case.load(case.saved(), custom_objects={"gamma": 0.5, "action_noise": None})
    assert loaded.gamma == 0.5, f"gamma is {loaded.gamma}"


def load_as_rl_zoo_does(case: Case) -> None:
    """RL Zoo's way to load a model for `enjoy` works: `buffer_size=1`, a learning rate of zero, a seed."""
    model = case.trained()
    model.save(case.folder / "model")
    custom = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    loaded = case.load(case.folder / "model", case.env(), custom_objects=custom, seed=0, buffer_size=1)
    np.testing.assert_allclose(best_actions(loaded), best_actions(model), atol=1e-6)


def load_refuses_missing_files(case: Case) -> None:
    """A path without a file raises an error that names it."""
    text = raises((FileNotFoundError, ValueError), lambda: case.load(case.folder / "missing"))
    assert "missing" in text, f"the error does not name the file: {text}"


def set_env_replaces_the_environment(case: Case) -> None:
    """`set_env` replaces the environment by another of the same spaces, and training begins with a reset."""
    model, env = case.trained(), case.vec(1)
    model.set_env(env)
    assert model.get_env() is env, "get_env() is another object"
    assert model._last_obs is None, "the last observation was kept"
    model.learn(5)


def set_env_refuses_other_spaces(case: Case) -> None:
    """`set_env` with other spaces raises a ValueError."""
    model = case.model()
    narrow = WithObservations(case.env(), spaces.Box(-1, 1, (4,), np.float32))
    raises((ValueError,), lambda: model.set_env(narrow))


def set_env_knows_the_normaliser(case: Case) -> None:
    """After `set_env(VecNormalize(...))`, `get_vec_normalize_env()` gives the wrapper."""
    model, env = case.model(case.vec(1)), VecNormalize(case.vec(1))
    assert model.get_vec_normalize_env() is None, "there is a wrapper before"
    model.set_env(env)
    assert model.get_vec_normalize_env() is env, "get_vec_normalize_env() is another object"
    model.learn(STEPS)


def a_loaded_model_learns_what_the_original_learns(case: Case) -> None:
    """With the same buffer and seed, the loaded model's next updates are those of the original."""
    model = case.trained()
    model.save(case.folder / "model")
    model.save_replay_buffer(case.folder / "buffer")
    loaded = case.load(case.folder / "model")
    loaded.load_replay_buffer(case.folder / "buffer")
    loaded.set_logger(model.logger)
    for one in (model, loaded):
        one.set_random_seed(3)
        one.train(gradient_steps=2, batch_size=8)
    assert same_weights(model, loaded, 1e-6), "the weights differ after the same updates"
