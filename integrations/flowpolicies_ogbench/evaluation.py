"""OGBench's protocol for goal-conditioned policies: evaluate each of the five tasks of a scene."""

from functools import partial
from typing import Any

from flowpolicies import Evaluation, evaluate
from flowpolicies_ogbench.environment import make_env
from flowpolicies_ogbench.names import parse_name


def evaluate_tasks(
    policy: Any, name: str, episodes: int = 50, *, seed: int = 0, deterministic: bool = False, **options: Any
) -> dict[int, Evaluation]:
    """Evaluate a goal-conditioned policy on each of the five tasks of a scene.

    OGBench's score is the mean of the five success rates. Policies that are evaluated with equal seeds get the same
    starts and goals.

    Args:
        policy: Any object with Stable-Baselines3's `predict`.
        name: Name of a goal-conditioned dataset, such as "antmaze-large-navigate-v0".
        episodes: Number of episodes of each task.
        seed: Seed of the episodes, and of the policy's generator if it has one.
        deterministic: Start flows at zero noise instead of sampling.
        **options: Options of `make_env`, such as `frame_stack`.

    Returns:
        The evaluation of each task, by its number (1 to 5).

    Raises:
        ValueError: if the name is not one of OGBench's, or belongs to a single task.
    """
    if parse_name(name).mode == "singletask":
        raise ValueError(f"'{name}' has a single task: use flowpolicies.evaluate(policy, make_env('{name}')).")
    found = {}
    for task_id in range(1, 6):
        make = partial(make_env, name, task_id=task_id, **options)
        found[task_id] = evaluate(policy, make, episodes, deterministic=deterministic, seed=seed)
    return found
