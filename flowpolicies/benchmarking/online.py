"""Speed of online training beside SAC of Stable-Baselines3, with equal networks, in one process and interleaved.

Two things are measured: `learn` with one update per step, and collection alone, which is `learn` without updates. The
environment is also stepped without any algorithm, because its time is part of both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import gymnasium as gym
import stable_baselines3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm

REFERENCE = "sb3_sac"
"""Name of SAC of Stable-Baselines3 in the results."""

ENVIRONMENT = "environment"
"""Name of the environment alone in the results."""

EQUAL: dict[str, dict[str, Any]] = {
    "sac": {"q_agg": "min", "entropy_backup": 1.0, "target_entropy_multiplier": 1.0},
}
"""Hyperparameters with which an algorithm computes what the reference computes: the paper's soft value in TD targets,
the minimum of two critics, and minus the dimension of the action as the target entropy."""


def measure_online(
    algorithms: Sequence[str] = ("sac", "qflow"),
    *,
    env_id: str = "Pendulum-v1",
    hidden_dims: Sequence[int] = (128, 128),
    batch_size: int = 256,
    n_envs: int = 1,
    rounds: int = 10,
    steps: int = 100,
    device: str = "cpu",
) -> dict[str, Any]:
    """Time per environment step of algorithms and of Stable-Baselines3's SAC.

    All have networks of the same widths, ReLU, no LayerNorm, two critics, and one update of `batch_size` rows per step
    of the environments.

    Args:
        algorithms: names of algorithms of this package.
        env_id: name of the environment.
        hidden_dims: hidden widths of all networks.
        batch_size: rows of an update.
        n_envs: number of environments, which are stepped in this process.
        rounds: number of measurements of each model; the models take turns.
        steps: environment steps of one measurement with updates; without updates there are four times as many. Each
            model takes twice as many steps before it is measured, and the first half of them without updates.
        device: device of the networks.

    Returns:
        Plain data: `settings`, and for `learning` and `collecting` by name the least and the median time per
        environment step in microseconds, the steps per second at the least time, and the ratio of the least time to
        that of the reference. `collecting` also has `overhead_ratio`, the ratio of the times without that of the
        environment.

    Raises:
        ValueError: for an unknown algorithm.
    """
    settings = {
        "algorithms": list(algorithms),
        "env_id": env_id,
        "hidden_dims": list(hidden_dims),
        "batch_size": batch_size,
        "n_envs": n_envs,
        "rounds": rounds,
        "steps": steps,
        "device": device,
    }
    classes = {name: get_algorithm(name) for name in algorithms}
    common: dict[str, Any] = {"batch_size": batch_size, "device": device, "seed": 0}
    results: dict[str, Any] = {}
    for name, gradient_steps, length in (("learning", 1, steps), ("collecting", 0, 4 * steps)):
        # Without updates no model would leave the random actions of the start by itself.
        online = {**common, "gradient_steps": gradient_steps, "learning_starts": steps * gradient_steps}
        runs = {REFERENCE: _running(_reference(env_id, n_envs, hidden_dims, online), length)}
        for algorithm, cls in classes.items():
            runs[algorithm] = _running(_model(cls, env_id, n_envs, hidden_dims, online), length)
        if gradient_steps == 0:
            runs[ENVIRONMENT] = _stepping(make_vec_env(env_id, n_envs, seed=0), length)
        results[name] = _compared(interleaved(runs, rounds))
    return {"settings": settings, **results}


def describe(results: Mapping[str, Any]) -> list[str]:
    """Lines for a terminal about what `measure_online` returned."""
    lines = []
    for kind in ("learning", "collecting"):
        lines.append(f"{kind}: least and median us per step, steps per second, least time relative to {REFERENCE}")
        for name, each in results[kind].items():
            numbers = f"{each['min_us']:8.0f} {each['median_us']:8.0f} {each['steps_per_second']:8.0f}"
            without = f"; {each['overhead_ratio']:.2f} without the environment" if "overhead_ratio" in each else ""
            lines.append(f"  {name:12s} {numbers} {each['ratio']:6.2f}{without}")
    return lines


def interleaved(runs: Mapping[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Microseconds per step of each run, one number for each round; the runs take turns.

    Args:
        runs: functions by name that take some steps and return their number.
        rounds: number of calls of each function.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            count = run()
            times[name].append(1e6 * (time.perf_counter() - start) / count)
    return times


def _compared(times: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    least, reference = {name: min(each) for name, each in times.items()}, min(times[REFERENCE])
    found = {
        name: {
            "min_us": least[name],
            "median_us": statistics.median(each),
            "steps_per_second": 1e6 / least[name],
            "ratio": least[name] / reference,
        }
        for name, each in times.items()
    }
    if ENVIRONMENT in least:
        for name in least.keys() - {ENVIRONMENT}:
            own, theirs = (least[model] - least[ENVIRONMENT] for model in (name, REFERENCE))
            found[name]["overhead_ratio"] = own / theirs
    return found


def _reference(env_id: str, n_envs: int, hidden_dims: Sequence[int], common: Mapping[str, Any]) -> OffPolicyAlgorithm:
    env = make_vec_env(env_id, n_envs, seed=0)
    return stable_baselines3.SAC("MlpPolicy", env, policy_kwargs={"net_arch": list(hidden_dims)}, **common)


def _model(
    cls: type[OfflineAlgorithm], env_id: str, n_envs: int, hidden_dims: Sequence[int], common: Mapping[str, Any]
) -> OfflineAlgorithm:
    widths = tuple(hidden_dims)
    wanted = {
        "actor_hidden_dims": widths,
        "value_hidden_dims": widths,
        "actor_layer_norm": False,
        "value_layer_norm": False,
        **EQUAL.get(cls.name, {}),
    }
    known = {field.name for field in fields(cls.Config)}
    hyperparameters = {name: value for name, value in wanted.items() if name in known}
    env, relu = make_vec_env(env_id, n_envs, seed=0), {"activation_fn": nn.ReLU}
    return cls("MlpPolicy", env, policy_kwargs=relu, **common, **hyperparameters)


def _running(model: OffPolicyAlgorithm, steps: int) -> Callable[[], int]:
    """A function that lets a model, which has begun, take further steps."""
    model.learn(2 * steps)

    def run() -> int:
        before = model.num_timesteps
        model.learn(steps, reset_num_timesteps=False)
        return model.num_timesteps - before

    return run


def _stepping(env: VecEnv, steps: int) -> Callable[[], int]:
    """A function that steps an environment with the same actions again and again."""
    env.reset()
    box = env.action_space
    assert isinstance(box, gym.spaces.Box)
    box.seed(0)
    actions = [box.sample() for _ in range(env.num_envs)]

    def run() -> int:
        count = -(-steps // env.num_envs)
        for _ in range(count):
            env.step(actions)  # type: ignore[arg-type]  # A list is what VecEnv needs, an array of equal rows.
        return count * env.num_envs

    return run
