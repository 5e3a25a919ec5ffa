"""Settings of the demo, which the help of the command line shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Settings of the demo; the README explains the choice of the numbers."""

    dataset: str = "pointmaze-medium-navigate"
    """OGBench dataset to generate with OGBench's scripted oracle."""
    episodes: int = 500
    """Number of training episodes to generate, of 1,001 steps each (OGBench's file has 1,000 episodes)."""
    tasks: tuple[int, ...] = (1, 2, 3, 5)
    """Numbers of the OGBench tasks, 1 to 5, each with its own start, goal and reward. Q-Flow trains once for each task,
    BC once for all of them."""
    steps: int = 8000
    """Offline gradient steps of Q-Flow."""
    bc_steps: int = 3000
    """Gradient steps of BC."""
    online_steps: int = 2000
    """Environment steps of online fine-tuning for each task."""
    eval_every: int = 2000
    """Number of steps between two evaluations."""
    eval_episodes: int = 20
    """Number of episodes of each evaluation of a task."""
    horizon: int = 20
    """Length of the action chunks in environment steps."""
    guidance_lambda: float = 2.0
    """Strength lambda with which Q-Flow stays close to the data; smaller values follow the value function more."""
    width: int = 128
    """Units in each of the two hidden layers of every network."""
    flow_steps: int = 5
    """Number of Euler steps that turn noise into an action."""
    batch_size: int = 128
    """Number of action chunks in each gradient step."""
    learning_rate: float = 1e-3
    """Learning rate of the Adam optimizer."""
    gamma: float = 0.995
    """Discount factor of one environment step."""
    tau: float = 0.02
    """Rate at which the target critics follow the critics, in (0, 1]."""
    seed: int = 0
    """Seed of the generated data and of every run."""
    workers: int = 2
    """Number of commands that run side by side, each on one thread."""
    data_dir: Path = Path("~/.cache/flowpolicies/demo")
    """Folder of the generated data, which later demos use again."""
    run_dir: Path = Path("runs/demo")
    """Folder of the runs and of the results."""
