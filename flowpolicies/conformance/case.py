"""What a check is given, and the small tools that checks share."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, final

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from flowpolicies.conformance.toys import ObservationKind, ToyEnv

SMALL: Mapping[str, Any] = {"learning_starts": 8, "batch_size": 8, "buffer_size": 200, "seed": 0, "device": "cpu"}
"""Constructor arguments of every model of the checks, unless the caller or the check gives others."""
STEPS = 16
"""Environment steps of a short run: 8 of them are followed by an update."""


class NotApplicable(Exception):
    """Raised by a check that has nothing to ask of this class; the text is the reason."""


@final
class Case:
    """The class that a check examines, and what the check needs to build models of it.

    Args:
        cls: the class.
        arguments: constructor arguments that the caller wants for every model, such as small networks.
        folder: an empty folder that the check may write to.
    """

    def __init__(self, cls: type[OffPolicyAlgorithm], arguments: Mapping[str, Any], folder: Path) -> None:
        self.cls, self.arguments, self.folder = cls, dict(arguments), folder

    def env(self, kind: ObservationKind = "box", length: int = 10, **options: Any) -> ToyEnv:
        """One environment."""
        return ToyEnv(kind, length, **options)

    def vec(self, count: int = 2, kind: ObservationKind = "box", length: int = 10, **options: Any) -> DummyVecEnv:
        """Several environments in this process."""
        return DummyVecEnv([lambda: ToyEnv(kind, length, **options) for _ in range(count)])

    def policy_for(self, space: spaces.Space[Any]) -> str:
        """Stable-Baselines3's name of the policy for an observation space.

        Raises:
            NotApplicable: if the class lists no policy of that name in `policy_aliases`.
        """
        name = "MlpPolicy"
        if isinstance(space, spaces.Dict):
            name = "MultiInputPolicy"
        elif isinstance(space, spaces.Box) and len(space.shape) == 3:
            name = "CnnPolicy"
        if name not in self.cls.policy_aliases:
            raise NotApplicable(f"{self.cls.__name__} has no {name}.")
        return name

    def options(self, **overrides: Any) -> dict[str, Any]:
        """Constructor arguments of a small model; `policy_kwargs` are merged, everything else is replaced."""
        policy_kwargs = {**self.arguments.get("policy_kwargs", {}), **overrides.pop("policy_kwargs", {})}
        merged = {**SMALL, **self.arguments, **overrides}
        # Classes keep and extend the dictionary, so that each model is given its own.
        return {**merged, "policy_kwargs": copy.deepcopy(policy_kwargs)} if policy_kwargs else merged

    def model(self, env: gym.Env[Any, Any] | VecEnv | str | None = None, **overrides: Any) -> OffPolicyAlgorithm:
        """A small model; without an environment it gets one of its own."""
        given = self.env() if env is None else env
        space = observations_of(given)
        policy = overrides.pop("policy", None) or self.policy_for(space)
        return self.cls(policy, given, **self.options(**overrides))

    def trained(self, env: gym.Env[Any, Any] | VecEnv | None = None, **overrides: Any) -> OffPolicyAlgorithm:
        """A small model after a short run."""
        return self.model(env, **overrides).learn(STEPS)

    def saved(self, **overrides: Any) -> Path:
        """The file of a small trained model."""
        path = self.folder / "saved.zip"
        self.trained(**overrides).save(path)
        return path

    def load(self, path: Any, env: gym.Env[Any, Any] | VecEnv | None = None, **overrides: Any) -> OffPolicyAlgorithm:
        """A model from a file, on the CPU."""
        return self.cls.load(path, env=env, **{"device": "cpu", **overrides})


def observations_of(env: gym.Env[Any, Any] | VecEnv | str) -> spaces.Space[Any]:
    """The observation space of an environment or of an environment id."""
    return gym.make(env).observation_space if isinstance(env, str) else env.observation_space


def weights(model: OffPolicyAlgorithm) -> dict[str, torch.Tensor]:
    """A copy of everything in the policy's state dict."""
    return {name: value.detach().clone() for name, value in model.policy.state_dict().items()}


def differing(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], tolerance: float = 0.0) -> list[str]:
    """Names of the tensors of two state dicts that differ."""
    assert a.keys() == b.keys(), f"the state dicts have different keys: {sorted(a.keys() ^ b.keys())}"
    return [n for n in a if not torch.allclose(a[n].double(), b[n].double(), rtol=tolerance, atol=tolerance)]


def same_weights(a: OffPolicyAlgorithm, b: OffPolicyAlgorithm, tolerance: float = 0.0) -> bool:
    """Whether two models have the same policy."""
    return not differing(weights(a), weights(b), tolerance)


def targets(model: OffPolicyAlgorithm) -> dict[str, torch.Tensor]:
    """The target networks' part of the policy's state dict.

    Raises:
        NotApplicable: if the policy has no target networks.
    """
    found = {name: value for name, value in weights(model).items() if "target" in name}
    if not found:
        raise NotApplicable("The policy's state dict names no target networks.")
    return found


def some_observations(space: spaces.Space[Any], count: int = 5) -> Any:
    """A batch of observations, the same in each call."""
    space = copy.deepcopy(space)
    space.seed(7)
    drawn = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([row[key] for row in drawn]) for key in space.spaces}
    return np.stack(drawn)


def best_actions(model: OffPolicyAlgorithm, observations: Any = None) -> np.ndarray:
    """Deterministic actions for a batch of observations."""
    chosen = some_observations(model.observation_space) if observations is None else observations
    return model.predict(chosen, deterministic=True)[0]


def optimizers(model: OffPolicyAlgorithm) -> list[torch.optim.Optimizer]:
    """The optimisers that the class saves under its own or its policy's attributes."""
    names = [name for name in model._get_torch_save_params()[0] if "optimizer" in name]
    return [recursive_getattr(model, name) for name in names]


def actions_of(model: OffPolicyAlgorithm, steps: int = STEPS) -> np.ndarray:
    """The actions that a model takes in its environment in a run, scaled to [-1, 1]."""
    trace = Trace(look=lambda c: c.locals["buffer_actions"].copy())
    model.learn(steps, callback=trace)
    return np.array(trace.seen)


def stored(model: OffPolicyAlgorithm, name: str) -> np.ndarray:
    """The filled rows of an array of the replay buffer."""
    buffer = model.replay_buffer
    assert buffer is not None
    return np.asarray(getattr(buffer, name))[: buffer.size()]


def raises(kinds: tuple[type[Exception], ...], call: Callable[[], Any]) -> str:
    """Text of the error that a call must raise."""
    try:
        call()
    except kinds as error:
        return str(error)
    names = " or ".join(kind.__name__ for kind in kinds)
    raise AssertionError(f"no {names} was raised")


def uses(case: Case, name: str, value: float) -> bool:
    """Whether what a class learns depends on `gamma` or `tau`; it must depend on every other hyperparameter.

    A class without a critic has no use for a discount, and one without target networks none for their rate.
    """
    if name == "gamma":
        return not same_weights(case.trained(), case.trained(gamma=value))
    return name != "tau" or any("target" in key for key in weights(case.model()))


def has_argument(case: Case, name: str) -> bool:
    """Whether the constructor names an argument, or passes others on to a base that names it."""
    for base in case.cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        if name in parameters:
            return True
        if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
            return False
    return False


def need_argument(case: Case, name: str) -> None:
    """Raises NotApplicable unless the constructor has an argument."""
    if not has_argument(case, name):
        raise NotApplicable(f"The constructor has no argument {name!r}.")


def need_package(name: str) -> None:
    """Raises NotApplicable unless a package is installed."""
    if importlib.util.find_spec(name) is None:
        raise NotApplicable(f"The package {name!r} is not installed.")


@final
class Trace(BaseCallback):
    """Writes down what a callback sees, and may stop the training.

    Args:
        stop_at: number of the call of `_on_step` that returns False; None: never.
        look: what to write down at each step.
    """

    def __init__(self, stop_at: int | None = None, look: Callable[[Trace], Any] | None = None) -> None:
        super().__init__()
        self.stop_at, self.look = stop_at, look
        self.events: list[str] = []
        self.seen: list[Any] = []
        self.first_locals: dict[str, Any] = {}

    def _on_training_start(self) -> None:
        self.events.append("training_start")
        self.first_locals = dict(self.locals)

    def _on_rollout_start(self) -> None:
        self.events.append("rollout_start")

    def _on_step(self) -> bool:
        self.events.append("step")
        if self.look is not None:
            self.seen.append(self.look(self))
        return self.stop_at is None or self.n_calls < self.stop_at

    def _on_rollout_end(self) -> None:
        self.events.append("rollout_end")

    def _on_training_end(self) -> None:
        self.events.append("training_end")


def without(names: Iterable[str], present: Iterable[str]) -> list[str]:
    """The names that are not present, sorted."""
    return sorted(set(names) - set(present))
