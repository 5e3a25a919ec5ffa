"""Settings of the demo, which the help of the command line shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from flowpolicies.shell.fields import NonNegativeInt, check_fields


@final
@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings of the demo; the README explains the choice of the numbers."""

    dataset: str = "pointmaze-medium-navigate"
    """OGBench dataset to generate with OGBench's scripted oracle; it must be one of a maze."""
    episodes: int = 500
    """Number of training episodes to generate, of 1,001 steps each (OGBench's file has 1,000 episodes)."""
    tasks: tuple[int, ...] = (1, 2, 3, 4, 5)
    """Numbers of the OGBench tasks, 1 to 5, each with its own start, goal and reward. Q-Flow trains once for each task,
    BC once for all of them."""
    steps: int = 8000
    """Offline gradient steps of Q-Flow for each task, and of BC."""
    online_steps: NonNegativeInt = 2000
    """Environment steps of online fine-tuning for each task. 0: no fine-tuning."""
    unseen_task: int = 3
    """Task that Q-Flow also learns from data in which no episode enters the cells `unseen`."""
    unseen: tuple[str, ...] = ("5-3", "5-4", "4-4", "6-3")
    """Cells of the maze that are taken out of these data, each as ROW-COLUMN from 0; the task starts in one of them.
    Without cells this part of the demo is left out."""
    unseen_online_steps: NonNegativeInt = 4000
    """Environment steps of online fine-tuning from the unseen start."""
    eval_every: int = 2000
    """Number of gradient steps between two evaluations."""
    eval_episodes: int = 20
    """Number of episodes of each evaluation of a task."""

    # The hyperparameters of all runs. Change them here; further ones go into `qflow_options`.
    horizon: int = 5
    """Length of the action chunks in environment steps."""
    execute: int = 5
    """Number of actions of a chunk that are executed before the policy plans again, or all of a shorter chunk."""
    guidance_lambda: float = 20.0
    """Strength lambda with which Q-Flow stays close to the data; smaller values follow the value function more."""
    width: int = 128
    """Units in each hidden layer of every network."""
    layers: int = 2
    """Number of hidden layers of every network."""
    flow_steps: int = 5
    """Number of Euler steps that turn noise into an action."""
    batch_size: int = 128
    """Number of action chunks in each gradient step."""
    learning_rate: float = 1e-3
    """Learning rate of the Adam optimizer."""
    gamma: float = 0.99
    """Discount factor of one environment step."""
    tau: float = 0.02
    """Rate at which the target critics follow the critics, in (0, 1]."""
    qflow_options: tuple[str, ...] = ("rho=0.5", "best_of_n=4", "observation_scaling=min_max", "observation_gain=20")
    """Further options of `flowpolicies train qflow`, each as NAME=VALUE, such as rho=0.5 ensemble=4."""

    compile: bool | Literal["auto"] = "auto"
    """Compile the losses. auto: if it repays in these short runs, as it does where earlier runs left compiled code."""
    seed: NonNegativeInt = 0
    """Seed of the generated data and of every run."""
    workers: int = 2
    """Number of commands that run side by side, each on one thread."""
    data_dir: Path = Path("~/.cache/flowpolicies/demo")
    """Folder of the generated data, which later demos use again."""
    run_dir: Path = Path("runs/demo")
    """Folder of the runs and of the results."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.tasks:
            raise ValueError("the demo needs at least one task. Pass --tasks with numbers from 1 to 5.")
        if wrong := [option for option in self.qflow_options if "=" not in option]:
            raise ValueError(f"an entry of --qflow-options is NAME=VALUE, such as rho=0.5, got {wrong[0]!r}")

    def hyperparameters(self, algorithm: Literal["bc", "qflow"]) -> dict[str, Any]:
        """Hyperparameters of the runs of an algorithm, by the names of its flags."""
        hidden = (self.width,) * self.layers
        shared = ("batch_size", "learning_rate", "horizon", "flow_steps")
        values = {name: getattr(self, name) for name in shared} | {"actor_hidden_dims": hidden}
        values["execute"] = min(self.execute, self.horizon)
        if algorithm == "bc":
            return values
        values |= {name: getattr(self, name) for name in ("gamma", "tau", "guidance_lambda")}
        values |= {"value_hidden_dims": hidden}
        return values | dict(option.split("=", 1) for option in self.qflow_options)
