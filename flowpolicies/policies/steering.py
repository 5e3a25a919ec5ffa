"""Steering a trained policy from outside: its noise becomes the action of an environment (DSRL-SAC).

Wagenmaker et al., "Steering Your Diffusion Policy with Latent Space Reinforcement Learning",
https://arxiv.org/abs/2506.15799
"""

from __future__ import annotations

import copy
import math
from typing import Any, final

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces

from flowpolicies.core import Draw, RecordingNoise, ZeroNoise
from flowpolicies.policies.flow_policy import FlowPolicy
from flowpolicies.spaces.layout import flat_dtype, observation_dim, observation_layout


@final
class SteeredEnv(gym.Wrapper[Any, np.ndarray, Any, np.ndarray]):
    """An environment whose action is the noise that a policy's flow starts from; any agent can learn to choose it.

    A step runs the sampler once and executes `policy.execute` actions of the chunk, or fewer if the episode ends. Its
    reward is the plain sum of their rewards, so the agent's gamma discounts per chunk; `info["primitive_steps"]` is the
    number of executed actions. The policy is never changed.

    Deviation: a time limit stays `truncated`, so that agents bootstrap there; the authors' code returns it as
    `terminated`, and continues to step after the end of an episode (docs/algorithms/dsrl.md).

    Args:
        env: the environment that the policy acts in.
        policy: a policy whose sampler draws one noise, such as `Integrate` or `OneStep`.
        magnitude: bound of each coordinate of the noise (the authors use 1 to 2.5).

    Raises:
        ValueError: if the policy's spaces are not the environment's, or its sampler draws anything but one noise.

    Examples:
        >>> import gymnasium as gym
        >>> from stable_baselines3 import SAC
        >>> from flowpolicies import BC, SteeredEnv
        >>> policy = BC(env="Pendulum-v1", horizon=4).policy
        >>> env = SteeredEnv(gym.make("Pendulum-v1"), policy)
        >>> SAC("MlpPolicy", env).action_space.shape
        (4,)
    """

    def __init__(self, env: gym.Env[Any, Any], policy: FlowPolicy, magnitude: float = 1.0) -> None:
        super().__init__(env)
        _check_spaces(env, policy)
        _check_sampler(policy)
        if not 0 < magnitude < math.inf:
            raise ValueError(f"magnitude bounds the noise and must be positive and finite, got {magnitude}")
        self.policy = policy
        self.action_space = spaces.Box(-magnitude, magnitude, (policy.chunk_dim,), np.float32)
        self._observation: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Resets the environment."""
        self._observation, info = self.env.reset(seed=seed, options=options)
        return self._observation, info

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Executes the chunk that the policy makes from the noise `action` `[H * A]` at the current observation."""
        if self._observation is None:
            raise gym.error.ResetNeeded("call reset() before step(): the policy needs an observation to act on")
        noise = np.asarray(action, np.float32)
        if noise.shape != self.action_space.shape:
            raise ValueError(f"the action is a noise of shape {self.action_space.shape}, got {noise.shape}")
        total, steps, terminated, truncated = 0.0, 0, False, False
        info: dict[str, Any] = {}
        for primitive in self.policy.plan_from(self._observation, noise[None])[0, : self.policy.execute]:
            self._observation, reward, terminated, truncated, info = self.env.step(primitive)
            total, steps = total + float(reward), steps + 1
            if terminated or truncated:
                break
        return self._observation, total, terminated, truncated, {**info, "primitive_steps": steps}


def _check_spaces(env: gym.Env[Any, Any], policy: FlowPolicy) -> None:
    own, theirs = policy.action_space, env.action_space
    same_shape = isinstance(theirs, spaces.Box) and own.shape == theirs.shape
    if not (same_shape and np.allclose(own.low, theirs.low) and np.allclose(own.high, theirs.high)):  # type: ignore[attr-defined]
        raise ValueError(f"the policy acts in {own}, the environment takes {theirs}. Wrap it so that both agree.")
    sizes = [
        {entry.key: (math.prod(entry.shape), entry.categories) for entry in observation_layout(space)}
        for space in (policy.observation_space, env.observation_space)
    ]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"the policy observes {policy.observation_space}, the environment shows {env.observation_space}. "
            "Wrap it so that both agree."
        )


def _check_sampler(policy: FlowPolicy) -> None:
    noise, space = RecordingNoise(ZeroNoise(policy.chunk_dim, policy.device)), policy.observation_space
    observation = torch.zeros(1, observation_dim(space), dtype=flat_dtype(space), device=policy.device)
    sampler = copy.deepcopy(policy.sampler)  # A call may change the statistics of a sampler.
    with torch.no_grad():
        sampler(policy.view(), observation, noise)
    if noise.draws != [Draw("normal", (1, policy.chunk_dim))]:
        drawn = ", ".join(f"{draw.kind} {list(draw.shape)}" for draw in noise.draws) or "nothing"
        raise ValueError(
            f"SteeredEnv chooses one noise [1, {policy.chunk_dim}] per plan, but {policy.sampler} draws {drawn}. "
            "Set policy.sampler to one that starts a single flow, for example Integrate()."
        )
