"""Datasets without faults of many kinds, made by real environments, and the environments to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict

from flowpolicies.data import TransitionDataset

Array = np.ndarray[Any, Any]
Columns = dict[str, Any]
Policy = Callable[[Array, int], Array]


class CleanSet(NamedTuple):
    """How to make a dataset, and what to compare it with."""

    make: Callable[[], tuple[TransitionDataset, Any, Any]]
    """The dataset, its environment or None, and its re-simulation or None."""
    is_slow: bool = True
    """Whether it is left out of the everyday suite."""


def random_policy(space: Box, seed: int) -> Policy:
    rng = np.random.default_rng(seed)
    return lambda _, __: rng.uniform(space.low, space.high).astype(np.float32)


def smooth_policy(space: Box, seed: int) -> Policy:
    rng, state = np.random.default_rng(seed), np.zeros(space.shape)

    def act(_: Array, step: int) -> Array:
        state[:] = np.clip((0.9 * state if step else 0) + 0.4 * rng.normal(size=space.shape), -1, 1)
        return (state * space.high).astype(np.float32)

    return act


def feedback_policy(space: Box, seed: int, noise: float = 0.0) -> Policy:
    """A fixed random linear controller of the state, with noise."""
    rng, weights = np.random.default_rng(seed), {}

    def act(observation: Array, _: int) -> Array:
        flat = np.asarray(observation, np.float64).reshape(-1)
        if "w" not in weights:
            weights["w"] = np.random.default_rng(5).normal(size=(*space.shape, flat.size)) / np.sqrt(flat.size)
        action = np.tanh(weights["w"] @ np.clip(flat, -10, 10)) + noise * rng.normal(size=space.shape)
        return (np.clip(action, -1, 1) * space.high).astype(np.float32)

    return act


def bang_bang(space: Box, seed: int) -> Policy:
    """Actions of a few levels."""
    rng = np.random.default_rng(seed)
    return lambda _, __: (space.high * rng.choice([-0.5, 0.0, 0.5], space.shape)).astype(np.float32)


def network_policy(space: Box, seed: int, noise: float = 0.0) -> Policy:
    """A squashed random network of the state, with noise before the tanh, as SAC's policies are."""
    rng, weights = np.random.default_rng(seed), np.random.default_rng(3)
    layers: list[Array] = []

    def act(observation: Array, _: int) -> Array:
        flat = np.clip(np.asarray(observation, np.float64).reshape(-1), -10, 10)
        if not layers:
            layers.append(weights.normal(size=(32, flat.size)) / np.sqrt(flat.size))
            layers.append(3 * weights.normal(size=(*space.shape, 32)) / np.sqrt(32))
        u = layers[1] @ np.tanh(layers[0] @ flat) + noise * rng.normal(size=space.shape)
        return (space.high * np.tanh(u)).astype(np.float32)

    return act


def along_the_speed(space: Box, seed: int) -> Policy:
    """Pushes a car the way it moves, so that it often runs against the wall."""
    rng = np.random.default_rng(seed)

    def act(observation: Array, _: int) -> Array:
        push = np.sign(observation[1] or 1) * 0.9 + 0.1 * rng.normal(size=space.shape)
        return (np.clip(push, -1, 1) * space.high).astype(np.float32)

    return act


POLICIES: dict[str, Callable[..., Policy]] = {
    "random": random_policy,
    "smooth": smooth_policy,
    "feedback": feedback_policy,
    "noisy": lambda space, seed: feedback_policy(space, seed, 0.3),
    "levels": bang_bang,
}
"""Policies that all environments are tried with."""
OTHERS: dict[str, Callable[..., Policy]] = {
    "network": network_policy,
    "sampled network": lambda space, seed: network_policy(space, seed, 0.5),
    "along the speed": along_the_speed,
}
"""Policies that found a false alarm somewhere: clipped speeds, smooth rewards, silent contacts, a wall."""


@cache
def _rolled_out(name: str, policy: str, episodes: int, steps: int) -> tuple[Columns, Any]:
    env = gym.make(name, max_episode_steps=steps)
    act, rows = (POLICIES | OTHERS)[policy](env.action_space, 0), []
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        for step in range(steps):
            action = act(observation, step)
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, following, terminated, terminated or truncated))
            observation = following
            if terminated or truncated:
                break
    names = ("observations", "actions", "rewards", "next_observations", "terminations", "ends")
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True)), env


def roll_out(name: str, policy: str = "random", episodes: int = 20, steps: int = 100) -> Columns:
    """Columns of episodes of an environment: those of `from_arrays`, with `masks` and `terminals`; a new copy."""
    columns = {key: column.copy() for key, column in _rolled_out(name, policy, episodes, steps)[0].items()}
    ends = columns.pop("ends")
    masks = 1 - columns.pop("terminations").astype(np.float32)
    return {**columns, "masks": masks, "terminals": ends.astype(np.float32)}


def as_dataset(columns: Columns, name: str, **options: Any) -> TransitionDataset:
    """A dataset of columns of an environment."""
    return TransitionDataset.from_arrays(**columns, **{"action_space": environment(name).action_space, **options})


@cache
def environment(name: str) -> Any:
    return gym.make(name)


Change = Callable[[Columns], None]


def gymnasium_set(
    name: str, policy: str, episodes: int, steps: int, change: Change | None = None, **options: Any
) -> Any:
    """A clean set of a Gymnasium environment, compared with it unless `env` is false."""
    with_env = options.pop("env", True)

    def make() -> tuple[TransitionDataset, Any, Any]:
        columns = roll_out(name, policy, episodes, steps)
        if change is not None:
            change(columns)
        return as_dataset(columns, name, **options), environment(name) if with_env else None, None

    return make


def normalise(columns: Columns) -> None:
    mean, scale = columns["observations"].mean(axis=0), columns["observations"].std(axis=0) + 1e-3
    for key in ("observations", "next_observations"):
        columns[key] = (columns[key] - mean) / scale


def sparse(columns: Columns) -> None:
    columns["rewards"] = (columns["rewards"] > np.quantile(columns["rewards"], 0.97)).astype(np.float32)


def constant_rewards(columns: Columns) -> None:
    columns["rewards"][:] = -1.0


def scaled_rewards(columns: Columns) -> None:
    columns["rewards"] *= 100


def single(columns: Columns) -> None:
    columns["observations"] = columns["observations"].astype(np.float32)
    columns["next_observations"] = columns["next_observations"].astype(np.float32)


def one_step(columns: Columns) -> None:
    """Transitions without an order, as of a bandit."""
    columns["terminals"][:] = 1
    order = np.random.default_rng(0).permutation(len(columns["rewards"]))
    for key in columns:
        columns[key] = columns[key][order]


def by_shift(columns: Columns) -> None:
    """Arrays as D4RL has them: the next observation of an inner row is the next row's, and last rows are dropped."""
    keep = columns["terminals"] == 0
    keep[:-1] |= columns["masks"][:-1] == 0
    last = np.flatnonzero(keep & np.append(~keep[1:], True))
    columns["terminals"][last] = 1
    for key in columns:
        columns[key] = columns[key][keep]


def cut(columns: Columns) -> None:
    """Pieces of trajectories."""
    columns["terminals"][9::10] = 1


def with_images(columns: Columns) -> None:
    """The state as the brightness of small images, without vectors."""
    for key in ("observations", "next_observations"):
        level = (127 + 100 * np.tanh(columns[key][:, :3])).astype(np.uint8)
        columns[key] = np.broadcast_to(level[:, :, None, None], (len(level), 3, 8, 8)).copy()


def with_goals(columns: Columns) -> None:
    """Goal-conditioned: the last state of each trajectory is its goal."""
    ends = np.flatnonzero(columns["terminals"])
    last = ends[np.searchsorted(ends, np.arange(len(columns["rewards"])))]
    goals = columns["next_observations"][last, :2]
    for key in ("observations", "next_observations"):
        states = columns[key]
        columns[key] = {"observation": states, "achieved_goal": states[:, :2], "desired_goal": goals}


def ogbench_set(name: str, episodes: int, steps: int, *, resimulated: bool = True, seed: int = 0) -> Any:
    """A clean set that is generated, with OGBench's environment and re-simulation."""

    def make() -> tuple[TransitionDataset, Any, Any]:
        from flowpolicies_ogbench import load
        from flowpolicies_ogbench.environment import make_env
        from flowpolicies_ogbench.resimulation import open_resimulator

        folder = generated(name, episodes, steps, seed)
        dataset = load(name, data_dir=folder)
        if not resimulated:
            return dataset, None, None
        return dataset, make_env(name, seed=0), open_resimulator(name, dataset, data_dir=folder)

    return make


@cache
def generated(name: str, episodes: int, steps: int, seed: int = 0) -> Path:
    """Folder of a dataset of OGBench that is generated once per process."""
    from flowpolicies_ogbench import generate

    folder = Path(mkdtemp(prefix="clean-sets-"))
    generate(name, data_dir=folder, num_episodes=episodes, max_episode_steps=steps, seed=seed, progress=False)
    return folder


def dict_space(dataset_space: Box) -> Dict:
    return Dict({"observation": dataset_space})


def _gymnasium() -> Iterator[tuple[str, CleanSet]]:
    classic = {"Pendulum-v1": (20, 100), "MountainCarContinuous-v0": (12, 200)}
    mujoco = {
        "HalfCheetah-v5": (12, 200),
        "Hopper-v5": (40, 200),
        "Walker2d-v5": (40, 200),
        "Reacher-v5": (30, 50),
        "Swimmer-v5": (8, 200),
        "Ant-v5": (10, 200),
        "InvertedPendulum-v5": (60, 200),
        "InvertedDoublePendulum-v5": (80, 200),
        "Pusher-v5": (15, 100),
        "Humanoid-v5": (30, 100),
    }
    daily = {("Pendulum-v1", "noisy"), ("HalfCheetah-v5", "random"), ("MountainCarContinuous-v0", "smooth")}
    for name, (episodes, steps) in (classic | mujoco).items():
        for policy in POLICIES:
            make = gymnasium_set(name, policy, episodes, steps)
            yield f"{name} {policy}", CleanSet(make, (name, policy) not in daily)
        yield f"{name} alone", CleanSet(gymnasium_set(name, "noisy", episodes, steps, env=False))
    for name in ("Walker2d-v5", "HumanoidStandup-v5", "Swimmer-v5"):
        for policy in ("network", "sampled network"):
            yield f"{name} {policy}", CleanSet(gymnasium_set(name, policy, 12, 200))
    yield (
        "MountainCar along the speed",
        CleanSet(gymnasium_set("MountainCarContinuous-v0", "along the speed", 12, 200), False),
    )
    for name in ("Pendulum-v1", "HalfCheetah-v5", "Hopper-v5"):
        episodes, steps = (classic | mujoco)[name]
        for change in (normalise, sparse, constant_rewards, scaled_rewards, single, one_step, by_shift, cut):
            make = gymnasium_set(name, "noisy", episodes, steps, change, env=change is not normalise)
            is_daily = (name, change) in {("Pendulum-v1", normalise), ("Pendulum-v1", sparse), ("Hopper-v5", by_shift)}
            yield f"{name} {change.__name__}", CleanSet(make, not is_daily)
        make = gymnasium_set(name, "noisy", episodes, steps, with_images, env=False)
        yield f"{name} images", CleanSet(make, name != "Pendulum-v1")
        make = gymnasium_set(name, "noisy", episodes, steps, with_goals, env=False)
        yield f"{name} goals", CleanSet(make, name != "Pendulum-v1")
    for episodes, steps in ((1, 50), (3, 20), (2, 1000), (200, 7), (5, 317)):
        make = gymnasium_set("Pendulum-v1", "noisy", episodes, steps)
        yield f"Pendulum-v1 {episodes} of {steps}", CleanSet(make, steps != 7)


def _ogbench() -> Iterator[tuple[str, CleanSet]]:
    sizes = {
        "pointmaze-medium-navigate": (8, 501),
        "pointmaze-medium-stitch": (6, 201),
        "pointmaze-large-stitch": (30, 201),
        "pointmaze-large-navigate": (6, 501),
        "pointmaze-giant-stitch": (10, 201),
        "pointmaze-teleport-navigate": (8, 501),
        "pointmaze-teleport-stitch": (20, 201),
        "cube-single-play": (4, 151),
        "cube-single-noisy": (4, 151),
        "cube-double-play": (4, 151),
        "scene-play": (3, 151),
        "puzzle-3x3-play": (3, 151),
    }
    for scene, (episodes, steps) in sizes.items():
        for kind in ("alone", "simulated"):
            name = f"{scene}-singletask-v0"
            make = ogbench_set(name, episodes, steps, resimulated=kind == "simulated")
            daily = scene == "pointmaze-medium-stitch" or (scene, kind) == ("pointmaze-medium-navigate", "simulated")
            yield f"{scene} {kind}", CleanSet(make, not daily)


CLEAN_SETS: dict[str, CleanSet] = dict([*_gymnasium(), *_ogbench()])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of Gymnasium about steps after an end."""
    level = gym.logger.min_level
    gym.logger.min_level = gym.logger.ERROR
    yield
    gym.logger.min_level = level
