"""The command lines that are run: tiny networks on a small dataset, offline and online, in several environments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tiny import known

from flowpolicies.algorithms import ALGORITHMS, get_algorithm

SIZES = {"actor_hidden_dims": (8, 8), "value_hidden_dims": (8, 8), "flow_steps": 2, "diffusion_steps": 2}
SIZES |= {"num_samples": 2, "next_samples": 2, "solver_steps": 2, "support_steps": 2, "energy_hidden_dims": (8, 8)}
SIZES |= {"pretrain_steps": 3, "critic_warmup": 2, "actor_warmup": 1, "critic_steps": 1}

SHORT = "Pendulum-v1,max_episode_steps=15"
MAZE = "ogbench:pointmaze-medium-navigate-singletask-v0,max_episode_steps=15"
MUJOCO = "InvertedPendulum-v5"
HOPPER = "Hopper-v5,max_episode_steps=25"


class Scenario(NamedTuple):
    """A training run."""

    name: str
    algorithm: str
    options: tuple[str, ...]
    uses_data: bool = True

    def words(self, folder: Path, data: Path) -> list[str]:
        """The command line without --resume."""
        sizes = known(get_algorithm(self.algorithm), SIZES)
        flags = [
            word
            for name, value in sizes.items()
            for word in (f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,)))
        ]
        dataset = ("--dataset", f"npz:{data}") if self.uses_data else ()
        common = ("--batch-size", "8", "--device", "cpu", "--log-every", "4", "--eval-episodes", "2")
        return ["train", self.algorithm, *dataset, *flags, *common, "--run-dir", str(folder), *self.options]


def offline(algorithm: str, *options: str) -> Scenario:
    chosen = ("--steps", "40", "--checkpoint-every", "7", "--eval-every", "15", "--env", SHORT, *options)
    return Scenario(f"{algorithm} offline {' '.join(options)}".strip(), algorithm, chosen)


def online(algorithm: str, env: str, n_envs: int, *options: str, data: bool = True) -> Scenario:
    steps = ("--steps", "8" if data else "0", "--online-steps", "90", "--learning-starts", "10", "--buffer-size", "60")
    every = ("--checkpoint-every", "17", "--eval-every", "30", "--n-envs", str(n_envs), "--env", env)
    name = f"{algorithm} online {env.partition(',')[0]} x{n_envs} {'' if data else 'no data '}{' '.join(options)}"
    return Scenario(name.strip(), algorithm, (*steps, *every, *options), uses_data=data)


OFFLINE: Sequence[Scenario] = (
    offline("fql"),
    offline("rql", "--horizon", "3"),
    *(offline(name) for name in ALGORITHMS if name != "fql"),
)
ONLINE: Sequence[Scenario] = (
    online("fql", SHORT, 1),
    online("fql", SHORT, 4),
    online("qflow", SHORT, 4, data=False),
    online("rql", SHORT, 1, "--horizon", "3"),
    online("rql", SHORT, 4, "--horizon", "3", data=False),
    online("fql", MAZE, 1, data=False),
    online("fql", MAZE, 4, data=False),
    online("fql", MUJOCO, 1, data=False),
    online("fql", HOPPER, 4, data=False),
)
