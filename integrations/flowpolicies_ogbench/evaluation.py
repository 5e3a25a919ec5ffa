"""OGBench's protocol for policies that pursue goals: the five tasks of a scene, one after the other."""

from contextlib import closing
from typing import Any

from flowpolicies import evaluate
from flowpolicies.policies import Evaluation
from flowpolicies_ogbench.environment import make_env
from flowpolicies_ogbench.names import parse_name


def evaluate_tasks(
    policy: Any, name: str, episodes: int = 50, *, seed: int = 0, deterministic: bool = False, **options: Any
) -> dict[int, Evaluation]:
    """Evaluations by task, 1 to 5; OGBench's score is the mean of their success rates.

    With equal seeds every policy gets the same starts and goals.

    Args:
        policy: anything with Stable-Baselines3's `predict`.
        name: of a dataset with goals, such as "antmaze-large-navigate-v0".
        episodes: per task.
        seed: of the episodes, and of the policy's generator if it has one.
        deterministic: start flows at zero noise, instead of sampling.
        **options: for `make_env`, such as `frame_stack`.

    Raises:
        ValueError: if it is no name, or one of a single task.
    """
    if parse_name(name).mode == "singletask":
        raise ValueError(f"'{name}' has one task: use flowpolicies.evaluate(policy, make_env('{name}')).")
    found = {}
    for task_id in range(1, 6):
        with closing(make_env(name, task_id=task_id, **options)) as env:
            found[task_id] = evaluate(policy, env, episodes, deterministic=deterministic, seed=seed)
    return found
