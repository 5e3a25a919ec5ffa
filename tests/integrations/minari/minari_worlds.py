"""Small environments with observations of every structure, a wrapper that records them, and a change of metadata."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple


class World(gym.Env[Any, Any]):
    """A walk in the plane. The reward is the distance from the origin, and a distance beyond 1.2 terminates."""

    observation_space: Any = Box(-np.inf, np.inf, (2,), np.float64)
    action_space: Any = Box(np.array([-1.0, -2.0], np.float32), np.array([1.0, 1.0], np.float32))

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place = self.np_random.normal(size=2) * 0.1
        return self.observe(), {"success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + self.scale * 0.3 * np.asarray(action)
        distance = float(np.linalg.norm(self.place))
        return self.observe(), distance, distance > 1.2, False, {"success": distance > 1.2}

    def observe(self) -> Any:
        return self.place.copy()


class DictWorld(World):
    observation_space = Dict(
        {
            "goal": Dict({"position": Box(-9, 9, (2,), np.float64), "near": MultiBinary(2)}),
            "place": Box(-np.inf, np.inf, (2,), np.float32),
            "phase": Discrete(3, start=1),
        }
    )

    def observe(self) -> Any:
        near = (np.abs(self.place) < 0.5).astype(np.int8)
        goal = {"position": -self.place, "near": near}
        return {"goal": goal, "place": self.place.astype(np.float32), "phase": np.int64(1 + near.sum())}


class TupleWorld(World):
    observation_space = Tuple((Box(-np.inf, np.inf, (2,), np.float64), Box(0, 255, (4, 5, 3), np.uint8)))

    def observe(self) -> Any:
        return self.place.copy(), np.full((4, 5, 3), 128 + np.clip(self.place.sum() * 20, -99, 99), np.uint8)


class ImageWorld(World):
    observation_space = Box(0, 255, (40, 33, 3), np.uint8)

    def observe(self) -> Any:
        bits = np.frombuffer(self.place.tobytes() * 248, np.uint8)  # Noise, which JPEG would change.
        return bits[: 40 * 33 * 3].reshape(40, 33, 3).copy()


class GoalWorld(World):
    """The reward at the goal is 1 and the episode continues there, as in Minari's antmaze."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        observation, distance, *_ = super().step(action)
        return observation, float(distance > 0.6), False, False, {"success": distance > 0.6}


class Forgetful(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that cannot be rebuilt, because its arguments are not recorded."""


class Halved(gym.RewardWrapper[Any, Any], gym.utils.RecordConstructorArgs):
    """A wrapper that can be rebuilt."""

    def __init__(self, env: gym.Env[Any, Any], divisor: float) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, divisor=divisor)
        super().__init__(env)
        self.divisor = divisor

    def reward(self, reward: Any) -> float:
        return float(reward) / self.divisor


for kind in (World, DictWorld, TupleWorld, ImageWorld, GoalWorld):
    gym.register(f"Minari{kind.__name__}-v0", f"{__name__}:{kind.__name__}", max_episode_steps=9)


class Witness(gym.Wrapper[Any, Any, Any, Any]):
    """A wrapper that stores every episode as it happened."""

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self.episodes: list[dict[str, list[Any]]] = []

    @property
    def spec(self) -> Any:
        return self.env.spec

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(**options)
        self.episodes.append({"observations": [copy.deepcopy(observation)], "actions": [], "outcomes": []})
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        outcome = self.env.step(action)
        episode = self.episodes[-1]
        episode["observations"].append(copy.deepcopy(outcome[0]))
        episode["actions"].append(copy.deepcopy(action))
        episode["outcomes"].append(outcome[1:4])
        return outcome


def change_metadata(folder: Path, **values: Any) -> None:
    """Change values of a dataset's metadata; None removes a key."""
    path = folder / "data" / "metadata.json"
    metadata = json.loads(path.read_text()) | values
    path.write_text(json.dumps({key: value for key, value in metadata.items() if value is not None}))
