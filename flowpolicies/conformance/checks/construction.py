"""Construction: policies, environments and attributes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.type_aliases import TrainFreq
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecTransposeImage

from flowpolicies.conformance.case import STEPS, Case, raises, same_weights, some_observations, without
from flowpolicies.conformance.promises import over
from flowpolicies.conformance.toys import KINDS, ObservationKind, WithActions, WithObservations

_ERRORS = (AssertionError, ValueError, TypeError, NotImplementedError)


@over(**{kind: kind for kind in KINDS})
def trains_acts_and_loads(case: Case, kind: ObservationKind) -> None:
    """A model learns from every kind of observation, acts on it within the action space, and acts the same after it was
    saved and loaded."""
    model = case.model(case.env(kind)).learn(STEPS)
    observations = some_observations(model.observation_space, 2)
    actions, _ = model.predict(observations, deterministic=True)
    assert actions.shape == (2, 2), f"two observations gave actions of shape {actions.shape}"
    assert all(model.action_space.contains(a) for a in actions), "an action is outside the action space"
    model.save(case.folder / "model")
    again, _ = case.load(case.folder / "model").predict(observations, deterministic=True)
    np.testing.assert_allclose(again, actions, atol=1e-6, err_msg="the loaded model acts differently")


@over(plain="Pendulum-v1", with_module="gymnasium.envs.classic_control:Pendulum-v1")
def accepts_an_environment_id(case: Case, env_id: str) -> None:
    """The environment may be the id of a registered one, also with the module that registers it."""
    env = case.model(env_id).get_env()
    assert env is not None, "get_env() is None"
    assert env.observation_space.shape == (3,), "the environment is not Pendulum-v1"


def wraps_an_environment_with_a_monitor(case: Case) -> None:
    """A plain environment is wrapped in a Monitor and a DummyVecEnv."""
    env = case.model().get_env()
    assert isinstance(env, DummyVecEnv), f"get_env() is a {type(env).__name__}"
    assert env.env_is_wrapped(Monitor) == [True], "the environment has no Monitor"


def keeps_a_vec_env(case: Case) -> None:
    """A VecEnv is used as it is."""
    env = case.vec(2)
    model = case.model(env)
    assert model.get_env() is env, "get_env() is another object"
    assert model.n_envs == 2, f"n_envs is {model.n_envs}"


def transposes_images(case: Case) -> None:
    """Channels-last images are wrapped in VecTransposeImage, and the model's observation space has channels first."""
    model = case.model(case.env("image"))
    assert isinstance(model.get_env(), VecTransposeImage), "the environment is not wrapped in VecTransposeImage"
    assert model.observation_space.shape == (1, 36, 36), f"the observation space is {model.observation_space.shape}"


def takes_positional_arguments(case: Case) -> None:
    """Policy, environment and learning rate are the first three positional arguments."""
    model = case.cls("MlpPolicy", case.env(), 2e-3, **case.options())
    assert model.learning_rate == 2e-3, f"learning_rate is {model.learning_rate}"


def keeps_its_arguments(case: Case) -> None:
    """The constructor's arguments are attributes of the model."""
    given: dict[str, Any] = {
        "gamma": 0.9,
        "tau": 0.1,
        "batch_size": 6,
        "buffer_size": 123,
        "learning_starts": 5,
        "gradient_steps": 2,
    }
    given |= {"seed": 3, "verbose": 0, "learning_rate": 2e-3, "tensorboard_log": None, "optimize_memory_usage": False}
    model = case.model(**given)
    wrong = {name: getattr(model, name) for name, value in given.items() if getattr(model, name) != value}
    assert not wrong, f"{wrong} are not what was given"


def has_the_public_attributes(case: Case) -> None:
    """A new model has the attributes that callbacks, the logger and RL Zoo read."""
    names = "policy policy_class policy_kwargs observation_space action_space n_envs env device verbose num_timesteps"
    names += " replay_buffer replay_buffer_class replay_buffer_kwargs action_noise train_freq lr_schedule use_sde seed"
    names += " ep_info_buffer ep_success_buffer optimize_memory_usage start_time tensorboard_log n_steps"
    model = case.model()
    missing = without(names.split(), [name for name in names.split() if hasattr(model, name)])
    assert not missing, f"missing: {missing}"
    assert model.num_timesteps == 0, f"num_timesteps is {model.num_timesteps}"


def converts_train_freq(case: Case) -> None:
    """`train_freq` becomes a TrainFreq of a number and a unit."""
    model = case.model(train_freq=3)
    assert isinstance(model.train_freq, TrainFreq), f"train_freq is a {type(model.train_freq).__name__}"
    assert (model.train_freq.frequency, model.train_freq.unit.value) == (3, "step"), f"it is {model.train_freq}"


def takes_a_policy_class(case: Case) -> None:
    """The policy may be a class, such as the one that "MlpPolicy" stands for; both build the same model."""
    named, given = case.model(), case.model(policy=case.cls.policy_aliases["MlpPolicy"])
    assert given.policy_class is named.policy_class, "policy_class differs"
    assert same_weights(named, given), "the same seed gave other weights"


def takes_a_subclass_of_its_policy(case: Case) -> None:
    """A user's subclass of the policy class is used."""
    mine = type("MyPolicy", (case.cls.policy_aliases["MlpPolicy"],), {})
    model = case.model(policy=mine).learn(STEPS)
    assert isinstance(model.policy, mine), f"the policy is a {type(model.policy).__name__}"


def refuses_an_unknown_policy(case: Case) -> None:
    """An unknown name of a policy raises a ValueError."""
    raises((ValueError,), lambda: case.model(policy="NoSuchPolicy"))


def refuses_an_unknown_argument(case: Case) -> None:
    """An unknown keyword argument raises a TypeError that names it."""
    text = raises((TypeError,), lambda: case.model(no_such_argument=1))
    assert "no_such_argument" in text, f"the error does not name the argument: {text}"


@over(mlp="MlpPolicy", cnn="CnnPolicy")
def refuses_dict_observations_without_multi_input(case: Case, policy: str) -> None:
    """MlpPolicy and CnnPolicy refuse dictionaries and name MultiInputPolicy."""
    text = raises((ValueError,), lambda: case.model(case.env("dict"), policy=policy))
    assert "MultiInputPolicy" in text, f"the error does not name MultiInputPolicy: {text}"


def refuses_cnn_policy_on_vectors(case: Case) -> None:
    """CnnPolicy refuses observations that are vectors."""
    case.policy_for(spaces.Box(0, 255, (36, 36, 1), np.uint8))
    raises(_ERRORS, lambda: case.model(case.env("box"), policy="CnnPolicy"))


def refuses_cnn_policy_on_float_images(case: Case) -> None:
    """CnnPolicy refuses images of real numbers, which would be taken for bytes."""
    env = WithObservations(case.env("image"), spaces.Box(0, 1, (36, 36, 1), np.float32))
    raises(_ERRORS, lambda: case.model(env, policy="CnnPolicy"))


def refuses_discrete_actions(case: Case) -> None:
    """An algorithm for continuous actions refuses a Discrete action space."""
    raises(_ERRORS, lambda: case.model(WithActions(case.env(), spaces.Discrete(3))))


def refuses_unbounded_actions(case: Case) -> None:
    """Continuous actions must have finite bounds."""
    raises(_ERRORS, lambda: case.model(WithActions(case.env(), spaces.Box(-np.inf, np.inf, (2,), np.float32))))


def refuses_nested_dictionaries(case: Case) -> None:
    """Dictionaries of observations must not be nested."""
    nested = spaces.Dict({"outer": spaces.Dict({"inner": spaces.Box(-1, 1, (2,), np.float32)})})
    raises((NotImplementedError, ValueError), lambda: case.model(WithObservations(case.env("dict"), nested)))


@over(name="cpu", object=torch.device("cpu"), auto="auto")
def takes_a_device(case: Case, device: str | torch.device) -> None:
    """The device may be a name, "auto" or a torch.device; the policy's parameters are on it."""
    model = case.model(device=device)
    assert isinstance(model.device, torch.device), f"device is a {type(model.device).__name__}"
    kinds = {parameter.device.type for parameter in model.policy.parameters()}
    assert kinds == {model.device.type}, f"parameters are on {kinds}, the model on {model.device}"


def can_be_subclassed(case: Case) -> None:
    """A user's subclass that overrides `train` works without further declarations, and is saved and loaded."""
    calls: list[int] = []

    def train(self: Any, gradient_steps: int, batch_size: int = 8) -> Any:
        calls.append(gradient_steps)
        return case.cls.train(self, gradient_steps, batch_size)

    mine: Any = type("MyAlgorithm", (case.cls,), {"train": train})
    model = mine("MlpPolicy", case.env(), **case.options()).learn(STEPS)
    assert len(calls) == STEPS - 8, f"train was called {len(calls)} times in {STEPS - 8} updates"
    model.save(case.folder / "mine")
    assert isinstance(mine.load(case.folder / "mine", device="cpu"), mine), "load gave another class"


def can_be_constructed_without_setup(case: Case) -> None:
    """`_init_setup_model=False` leaves the networks to a later call of `_setup_model`."""
    model = case.model(_init_setup_model=False)
    assert getattr(model, "policy", None) is None, "the policy was built"
    model._setup_model()
    assert model.learn(STEPS).num_timesteps == STEPS, "the model does not learn after _setup_model"


def prints_only_if_verbose(case: Case) -> None:
    """Nothing is printed by default; `verbose=1` names the device and the wrappers."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as quiet:
        case.trained()
    assert quiet.getvalue() == "", f"printed without verbose: {quiet.getvalue()[:100]!r}"
    with contextlib.redirect_stdout(io.StringIO()) as loud:
        case.model(verbose=1)
    for word in ("cpu device", "Monitor", "DummyVecEnv"):
        assert word in loud.getvalue(), f"{word!r} is not in the output of verbose=1"


def get_env_gives_a_vec_env(case: Case) -> None:
    """`get_env()` is the VecEnv that the model trains in, ready for `reset` and `step`."""
    model = case.model()
    env = model.get_env()
    assert isinstance(env, VecEnv), f"get_env() is a {type(env).__name__}"
    observations = env.reset()
    actions, _ = model.predict(observations)  # type: ignore[arg-type]
    assert env.step(actions)[1].shape == (1,), "step does not take the model's actions"
