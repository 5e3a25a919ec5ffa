"""What the examples of the documentation name, in tiny sizes: datasets, environments, models, files.

`FLOWPOLICIES_EXAMPLE_STEPS` (2 unless it is set) is the largest number of training steps of an example.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import save_to_pkl
from tiny import pendulum_data

from flowpolicies import FQL, FlowPolicy, QFlow, TransitionDataset
from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core import Network
from flowpolicies.data import to_sb3_buffer
from flowpolicies.data.sources import SOURCES
from flowpolicies.diagnostics.scores import fitted_q_evaluation
from flowpolicies.networks import Critic, TanhNormal, VelocityField
from flowpolicies.samplers import Integrate
from flowpolicies.training import TrainSettings, train

STEPS = int(os.environ.get("FLOWPOLICIES_EXAMPLE_STEPS", "2"))
"""Largest number of training steps of an example."""
SIZES: dict[str, Any] = {
    "actor_hidden_dims": (16, 16),
    "value_hidden_dims": (16, 16),
    "energy_hidden_dims": (16, 16),
    "flow_steps": 3,
    "diffusion_steps": 3,
    "num_samples": 4,
    "next_samples": 2,
    "solver_steps": 3,
    "support_steps": 3,
    "ensemble": 2,
    "horizon": 4,
    "execute": 2,
    "n_steps": 3,
    "pretrain_steps": 1,
    "actor_warmup": 0,
}
"""Largest values of hyperparameters."""


class StandIn(gym.Env[Any, Any]):
    """An environment with episodes of eight steps: with images, or the spaces of pointmaze, if its name says so."""

    def __init__(self, name: str, frame_stack: int = 1) -> None:
        shape = (64, 64, 3 * frame_stack)
        visual = gym.spaces.Box(0, 255, shape, np.uint8)
        width, actions = (2, 2) if "pointmaze" in name else (5, 3)
        self.observation_space = visual if "visual" in name else gym.spaces.Box(-np.inf, np.inf, (width,))
        self.action_space = gym.spaces.Box(-1, 1, (actions,))
        self.steps = 0

    def _observation(self) -> Any:
        space = self.observation_space
        return np.full(space.shape, self.steps, space.dtype)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._observation(), -1.0, False, self.steps == 8, {"success": float(self.steps == 8)}

    def render(self) -> Any:
        return np.zeros((16, 16, 3), np.uint8)


def stand_in_dataset(name: str, **options: Any) -> TransitionDataset:
    """Two hundred steps of the stand-in environment, with rewards of -1 and 0."""
    rng, env = np.random.default_rng(0), StandIn(name)
    space, n = env.observation_space, 40 if "visual" in name else 200
    shape = (3, 64, 64) if "visual" in name else space.shape
    frames = rng.integers(0, 255, (n + 1, *shape)).astype(space.dtype)
    ends = np.arange(n) % 20 == 19
    return TransitionDataset.from_arrays(
        frames[:-1],
        rng.uniform(-1, 1, (n, *env.action_space.shape)).astype(np.float32),
        -(rng.random(n) < 0.9).astype(np.float32),
        frames[1:],
        terminations=ends & (np.arange(n) % 40 == 39),
        truncations=ends,
        action_space=env.action_space,
    )


def _instead(real: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function in the place of another, with its signature, by which options are checked.

    Datasets of Minari that an example has made are the real ones.
    """
    own = "flowpolicies_minari" in real.__module__

    @functools.wraps(real)
    def chosen(name: str, **options: Any) -> Any:
        return real(name, **options) if own and not name.startswith("D4RL/") else function(name, **options)

    return chosen


def _limited(config: type[Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options, with hyperparameters no larger than `SIZES`."""
    defaults = {name: config.__dataclass_fields__[name].default for name in known_names(config)}
    for name in known_names(config):
        asked, most = options.get(name, defaults[name]), SIZES[name]
        if name.endswith("_dims"):
            options[name] = most[:1] * len(asked)
        elif isinstance(asked, int) and asked > most:
            options[name] = most
    return options


def known_names(config: type[Any]) -> list[str]:
    """Names of the fields of a config that have a largest value."""
    return [name for name in SIZES if name in config.__dataclass_fields__]


def make_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits steps, batches and networks, and replaces the benchmarks' data and environments by small ones."""
    for kind, function in {"datasets": stand_in_dataset, "environments": _make_env}.items():
        for source in ("ogbench", "d4rl", "minari"):
            real = SOURCES[kind].find(source)
            monkeypatch.setitem(SOURCES[kind].declared, source, _instead(real, function))
    monkeypatch.setitem(SOURCES["datasets"].declared, "pendulum", lambda name: pendulum_data())
    monkeypatch.setitem(SOURCES["generators"].declared, "ogbench", lambda name, **options: Path("data.npz"))
    _limit(monkeypatch, OfflineAlgorithm, "learn_offline")
    _limit(monkeypatch, OffPolicyAlgorithm, "learn")
    _limit(monkeypatch, OfflineAlgorithm, "learn")
    monkeypatch.setitem(fitted_q_evaluation.__kwdefaults__, "updates", 20 * STEPS)
    _limit_models(monkeypatch)
    _limit_runs(monkeypatch)


def _make_env(name: str, frame_stack: int = 1, **options: Any) -> StandIn:
    return StandIn(name, frame_stack)


def _limit(monkeypatch: pytest.MonkeyPatch, cls: type[Any], method: str) -> None:
    """Limits the number of steps, the first argument of a method, which may be given by name."""
    original = getattr(cls, method)
    name = list(inspect.signature(original).parameters)[1]

    @functools.wraps(original)
    def limited(self: Any, *args: Any, **options: Any) -> Any:
        self.batch_size = min(self.batch_size, 16)
        steps, rest = (args[0], args[1:]) if args else (options.pop(name), ())
        return original(self, min(steps, STEPS), *rest, **options)

    monkeypatch.setattr(cls, method, limited)


def _limit_models(monkeypatch: pytest.MonkeyPatch) -> None:
    original = OfflineAlgorithm.__init__

    @functools.wraps(original)
    def limited(self: Any, *args: Any, **options: Any) -> None:
        options["batch_size"] = min(options.get("batch_size", 16), 16)
        config = type(self).Config
        sizes = {} if "policy_kwargs" in options else _limited(config, options)
        original(self, *args, **{**options, **sizes})

    monkeypatch.setattr(OfflineAlgorithm, "__init__", limited)


def _limit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TrainSettings.__post_init__

    def limited(self: Any, *args: Any) -> None:
        for name, most in {"steps": STEPS, "online_steps": STEPS, "eval_episodes": 2, "n_envs": 2}.items():
            object.__setattr__(self, name, min(getattr(self, name), most))
        object.__setattr__(self, "compile", False)
        original(self, *args)

    monkeypatch.setattr(TrainSettings, "__post_init__", limited)


def make_files(folder: Path) -> None:
    """The files that examples name: data, policy files and run folders."""
    data = pendulum_data()
    for name in ("data", "pendulum"):
        data.save(folder / f"{name}.npz")
    save_to_pkl(folder / "buffer.pkl", to_sb3_buffer(data, device="cpu"))
    with h5py.File(folder / "hopper.hdf5", "w") as file:
        rows = np.arange(40)
        file["observations"], file["actions"] = np.random.rand(40, 5), np.random.uniform(-1, 1, (40, 3))
        file["rewards"], file["terminals"] = np.zeros(40), rows % 20 == 19
    pendulum = FQL(dataset=data, seed=0, policy_kwargs={"net_arch": [16, 16]})
    pendulum.policy.save(folder / "policy.safetensors")
    settings = TrainSettings(dataset="ogbench:cube-single-play-singletask-v0", run_dir=folder / "runs" / "fql")
    train(FQL, FQL.Config(), settings)


def some_arrays() -> dict[str, Any]:
    """The arrays of the stand-in dataset, by the names that people give them."""
    data = stand_in_dataset("data")
    arrays = {"observations": data.observations, "actions": data.actions, "rewards": data.rewards}
    arrays |= {"next_observations": data.next_observations, "terminated": data.masks == 0}
    return arrays | {"truncated": (data.terminals == 1) & (data.masks == 1)}


def policy_with_all_networks() -> FlowPolicy:
    """A policy with every network that samplers name, loaded from a file."""
    small = {"hidden_dims": (16, 16)}
    networks = {
        "critic": Network(partial(Critic, **small)),
        "actor_flow": Network(partial(VelocityField, **small)),
        "actor_onestep": Network(partial(VelocityField, time_embedding="none", **small)),
        "edit_actor": Network(partial(TanhNormal, takes_action=True, **small)),
        "latent_actor": Network(partial(TanhNormal, **small)),
    }
    spaces = StandIn("any").observation_space, StandIn("any").action_space
    FlowPolicy(*spaces, networks=networks, sampler=Integrate()).save("all.safetensors")
    return FlowPolicy.load("all.safetensors", device="cpu")


NAMES: dict[str, Callable[[], Any]] = {
    "data": lambda: stand_in_dataset("data"),
    "dataset": lambda: stand_in_dataset("data"),
    "env": lambda: StandIn("env"),
    "model": lambda: FQL(dataset=stand_in_dataset("data"), seed=0),
    "policy": policy_with_all_networks,
    "observation": lambda: np.zeros(5, np.float32),
    "shards": lambda: lambda: iter([stand_in_dataset("one"), stand_in_dataset("two")]),
    **{name: lambda name=name: some_arrays()[name] for name in ("observations", "actions", "rewards")},
    **{name: lambda name=name: some_arrays()[name] for name in ("next_observations", "terminated", "truncated")},
    "QFlow": lambda: QFlow,
    "gym": lambda: gym,
    "Path": lambda: Path,
}
"""What a name stands for in blocks of a page that does not define it."""
