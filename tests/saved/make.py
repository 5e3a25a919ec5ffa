"""Writes the saved models of this folder; run at commit 7a9d93c, before the layout of the package changed.

    PYTHONPATH=.:integrations:tests/support python tests/saved/make.py tests/saved

Three small models, each as a policy file and as a model zip, with observations and the actions they had at that commit.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from tiny import pendulum_data

from flowpolicies import FQL, RQL, QFlow, TransitionDataset

SIZES: dict[str, Any] = {"actor_hidden_dims": (8, 8), "value_hidden_dims": (8, 8), "flow_steps": 3}
OPTIONS: dict[str, Any] = {**SIZES, "seed": 0, "device": "cpu", "batch_size": 16, "buffer_size": 100}


def dict_data() -> TransitionDataset:
    """Random transitions with a dictionary of observations whose keys are sorted."""
    rng, rows = np.random.default_rng(1), 60
    space = gym.spaces.Dict({"goal": gym.spaces.Box(-1, 1, (2,)), "position": gym.spaces.Box(-1, 1, (3,))})
    observations, following = (
        {key: rng.uniform(-1, 1, (rows, *box.shape)).astype(np.float32) for key, box in space.items()} for _ in range(2)
    )
    return TransitionDataset.from_arrays(
        observations,
        rng.uniform(-1, 1, (rows, 2)),
        rng.normal(size=rows),
        following,
        terminations=np.arange(rows) % 20 == 19,
        observation_space=space,
        action_space=gym.spaces.Box(-1, 1, (2,)),
    )


def main(folder: Path) -> None:
    """Trains each model for three updates and saves it."""
    models = {
        "flow": QFlow(dataset=pendulum_data(), **OPTIONS),
        "chunked": RQL(dataset=pendulum_data(), horizon=3, **OPTIONS),
        "dict": FQL(dataset=dict_data(), **OPTIONS),
    }
    recorded: dict[str, np.ndarray[Any, Any]] = {}
    for name, model in models.items():
        model.learn_offline(3)
        model.save(folder / f"{name}.zip")
        model.policy.save(folder / f"{name}.safetensors")
        space = model.observation_space
        space.seed(0)
        samples = [space.sample() for _ in range(4)]
        if isinstance(space, gym.spaces.Dict):
            observations: Any = {key: np.stack([sample[key] for sample in samples]) for key in space}
            recorded |= {f"{name}/observations/{key}": value for key, value in observations.items()}
        else:
            observations = np.stack(samples)
            recorded[f"{name}/observations"] = observations
        recorded[f"{name}/actions"] = model.predict(observations, deterministic=True)[0]
    np.savez(folder / "actions.npz", **recorded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
