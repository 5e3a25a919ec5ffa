"""The state of vectorised environments: simulators, wrappers' counters, generators, statistics."""

from __future__ import annotations

import inspect
from typing import Any, final

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from flowpolicies.shell.state import global_generators, set_global_generators
from flowpolicies.training.exact.files import difference
from flowpolicies.training.exact.values import (
    Capture,
    NotCapturedError,
    class_name,
    is_known,
    restore,
    restore_attributes,
)

ADVICE = "Give it the methods get_state() and set_state(state), see docs/guides/checkpoints.md"


@final
class Resumable(gym.Wrapper[Any, Any, Any, Any]):
    """The outermost wrapper of an environment in a process of its own, which captures the state there.

    `make_vec_env` adds it. Add it yourself to the environments of a `SubprocVecEnv` that are to be resumed exactly.

    Examples:
        >>> import gymnasium as gym
        >>> from flowpolicies.training import Resumable
        >>> makers = [lambda: Resumable(gym.make("Pendulum-v1")) for _ in range(4)]  # for SubprocVecEnv(makers)
    """

    def capture_state(self) -> dict[str, Any]:
        """The state of the environment and of this process's global generators; or why there is none, in `obstacle`."""
        try:
            return {"layers": capture_environment(self.env), "random": global_generators()}
        except NotCapturedError as obstacle:
            return {"obstacle": str(obstacle)}

    def restore_state(self, state: dict[str, Any]) -> str | None:
        """Restores what `capture_state` returned; returns what stands against it, or None."""
        try:
            restore_environment(self.env, state["layers"])
            set_global_generators(state["random"])
        except NotCapturedError as obstacle:
            return str(obstacle)
        return None


def capture_vec_env(venv: VecEnv) -> dict[str, Any]:
    """The state of a VecEnv, its wrappers and its environments, as plain data.

    Raises:
        NotCapturedError: if a part of it is of a class whose state cannot be captured.
    """
    chain = _chain(venv)
    base, capture = chain[-1], Capture()
    state: dict[str, Any] = {
        "classes": [class_name(part) for part in chain],
        "wrappers": [_capture_layer(wrapper, capture) for wrapper in chain[:-1]],
        "environments": [],
        "base": None,
    }
    if isinstance(base, DummyVecEnv):
        state["environments"] = [{"layers": capture_environment(env)} for env in base.envs]
    elif describes_itself(base):
        state["base"] = _capture_layer(base, capture)
    elif base.has_attr("capture_state"):
        state["environments"] = base.env_method("capture_state")
        for found in state["environments"]:
            if "obstacle" in found:
                raise NotCapturedError(found["obstacle"])
    else:
        raise NotCapturedError(
            f"the environments of {class_name(base)} are in other processes. Wrap each of them in "
            "flowpolicies.training.Resumable, as make_vec_env does"
        )
    return state


def restore_vec_env(venv: VecEnv, state: dict[str, Any]) -> None:
    """Brings a VecEnv into the state that `capture_vec_env` returned. Its environments are reset before.

    Raises:
        NotCapturedError: if it is another stack of environments, or its state afterwards is not the one wanted.
    """
    chain, number = _chain(venv), len(state["environments"])
    base = chain[-1]
    if (classes := [class_name(part) for part in chain]) != state["classes"]:
        raise NotCapturedError(f"the checkpoint has the state of {state['classes']}, and the environment is {classes}")
    if number and number != base.num_envs:
        raise NotCapturedError(f"the checkpoint has the state of {number} environments, and there are {base.num_envs}")
    venv.reset()  # Simulators that are built at the first reset exist from now on, with all of their attributes.
    for wrapper, described in zip(chain, state["wrappers"], strict=False):
        _restore_layer(wrapper, described)
    if state["base"] is not None:
        _restore_layer(base, state["base"])
    for i, wanted in enumerate(state["environments"]):
        if isinstance(base, DummyVecEnv):
            restore_environment(base.envs[i], wanted["layers"])
        else:
            (obstacle,) = base.env_method("restore_state", wanted, indices=i)
            if obstacle is not None:
                raise NotCapturedError(obstacle)
    if (where := difference(capture_vec_env(venv), state)) is not None:
        raise NotCapturedError(f"the environments did not take over {where}")


def capture_environment(env: gym.Env[Any, Any]) -> list[Any]:
    """The state of an environment and its wrappers, the outermost first, as plain data.

    Raises:
        NotCapturedError: if a layer is of an unknown class and does not describe its own state.
    """
    capture = Capture()
    return [{"class": class_name(layer), **_capture_layer(layer, capture)} for layer in _layers(env)]


def restore_environment(env: gym.Env[Any, Any], state: list[Any]) -> None:
    """Brings an environment into the state that `capture_environment` returned.

    Raises:
        NotCapturedError: if it consists of other layers, or a layer does not take its state.
    """
    layers = _layers(env)
    if [class_name(layer) for layer in layers] != [described["class"] for described in state]:
        names = ", ".join(described["class"] for described in state)
        raise NotCapturedError(f"the checkpoint has the state of {names}, and the environment consists of other layers")
    for layer, described in zip(layers, state, strict=True):
        _restore_layer(layer, described)


def describes_itself(layer: object) -> bool:
    """Whether an object has `get_state()` and `set_state(state)`; `set_state(qpos, qvel)` is another method."""
    for name, arguments in {"get_state": (), "set_state": (None,)}.items():
        if not callable(getattr(type(layer), name, None)):  # Of the instance, it may be that of an environment inside.
            return False
        try:
            inspect.signature(getattr(layer, name)).bind(*arguments)
        except (TypeError, ValueError):
            return False
    return True


def _capture_layer(layer: Any, capture: Capture) -> dict[str, Any]:
    name = class_name(layer)
    if describes_itself(layer):
        try:
            own = Capture().value(layer.get_state(), f"{name}.get_state()")
        except NotCapturedError as error:
            raise NotCapturedError(f"{error}, and get_state() must return plain data") from error
        return {"attributes": _randomness(layer, capture), "own": own}
    if is_known(layer):
        return {"attributes": capture.attributes(layer)}
    if isinstance(layer, gym.Wrapper) and vars(layer).keys() <= _WRAPPER:
        return {"attributes": _randomness(layer, capture)}
    raise NotCapturedError(_unknown(layer))


def _restore_layer(layer: Any, described: dict[str, Any]) -> None:
    try:
        restore_attributes(layer, described["attributes"])
        if "own" in described:
            layer.set_state(restore(None, described["own"], class_name(layer)))
    except NotCapturedError:
        raise
    except Exception as error:  # Environments of others fail as they like.
        raise NotCapturedError(f"{class_name(layer)}: {type(error).__name__}: {error}") from error


_WRAPPER = vars(gym.Wrapper(gym.Env())).keys()
"""Attributes of every wrapper. One without others has no state."""

_RANDOM = ("_np_random", "_np_random_seed", "action_space", "observation_space", "_action_space", "_observation_space")
"""Attributes with random generators, which need not be part of what `get_state` returns."""


def _randomness(layer: object, capture: Capture) -> dict[str, Any]:
    held = vars(layer)
    return {name: capture.value(held[name], f"{class_name(layer)}.{name}") for name in _RANDOM if name in held}


def _unknown(layer: object) -> str:
    return f"the state of {class_name(layer)} is not known. {ADVICE}"


def _layers(env: gym.Env[Any, Any]) -> list[Any]:
    layers: list[Any] = [env]
    while isinstance(layers[-1], gym.Wrapper):
        layers.append(layers[-1].env)
    return layers


def _chain(venv: VecEnv) -> list[Any]:
    chain: list[Any] = [venv]
    while isinstance(chain[-1], VecEnvWrapper):
        chain.append(chain[-1].venv)
    return chain
