"""Writes a stored policy of a schema version; run with the version of flowpolicies that wrote it, see README.md.

    PYTHONPATH=CHECKOUT python tests/saved/pretrained/make.py tests/saved/pretrained/NAME

Keys of the observations are not in alphabetical order, and the policy plans chunks, because versions differ in these.
"""

from __future__ import annotations

import inspect
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from flowpolicies import FlowPolicy
from flowpolicies.core import Network
from flowpolicies.networks import VelocityField
from flowpolicies.samplers import Integrate


def make() -> FlowPolicy:
    """A small policy with weights of its own."""
    torch.manual_seed(0)
    box = gym.spaces.Box
    observations = gym.spaces.Dict([("position", box(-1, 1, (3,))), ("goal", box(-np.inf, np.inf, (2,)))])
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=(8, 8)), target_rate=0.005)}
    options: dict[str, Any] = {"sampler": Integrate(steps=3), "act_with": ["actor_flow"], "horizon": 2, "execute": 1}
    if hasattr(FlowPolicy, "set_scaling"):
        options["scaled"] = True
    if "reward_factor" in inspect.signature(FlowPolicy).parameters:
        options["reward_factor"] = 0.25
    policy = FlowPolicy(observations, box(-2.0, 1.0, (2,)), networks=networks, **options)
    if "scaled" in options:
        policy.set_scaling([0.1, 0.2, 0.3, -1.0, 1.0], [2.0, 3.0, 4.0, 0.5, 0.7])
    for parameter in policy.targets.parameters():  # So that it matters that the slow copy acts.
        parameter.data.mul_(0.5)
    return policy


def main(folder: Path) -> None:
    """Saves the policy and what it does."""
    folder.mkdir(parents=True)
    policy = make()
    rng = np.random.default_rng(0)
    observations = {"position": rng.uniform(-1, 1, (4, 3)), "goal": rng.normal(size=(4, 2))}
    observations = {key: values.astype(np.float32) for key, values in observations.items()}
    actions = policy.predict(observations, deterministic=True)[0]
    if hasattr(policy, "save_pretrained"):
        policy.save_pretrained(folder / "policy", name=folder.name, license="mit")
    else:
        policy.save(folder / "policy")
    np.savez(folder / "actions.npz", actions=actions, **observations)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
