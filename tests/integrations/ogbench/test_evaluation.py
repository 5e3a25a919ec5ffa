"""Goal-conditioned datasets: load, draw hindsight goals, train, and evaluate each task."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny

from flowpolicies.algorithms import FQL
from flowpolicies.data import load_dataset, make_env
from flowpolicies_ogbench import evaluate_tasks

NAME = "pointmaze-medium-navigate-v0"


@pytest.mark.parametrize("storage", ["ram", "memmap"])
def test_training_for_goals(pointmaze_data: Path, tmp_path: Path, storage: Any) -> None:
    dataset = load_dataset(f"ogbench:{NAME}", storage=storage, data_dir=pointmaze_data, cache_dir=tmp_path)
    env = make_env(f"ogbench:{NAME}", max_episode_steps=10)
    model = tiny(FQL, env=env, dataset=dataset, horizon=2, batch_size=64, learning_starts=5)
    model.learn_offline(3)
    model.learn(20)
    batch = model.replay_buffer.offline and model.transitions.sample(500)
    assert batch is not None
    assert batch.observations.shape == (500, 4)
    assert {0.0, -1.0 - model.gamma} < {round(float(reward), 6) for reward in batch.rewards} | {0.0}
    found = evaluate_tasks(model, NAME, 2, seed=1, max_episode_steps=3)
    assert list(found) == [1, 2, 3, 4, 5]
    assert all(evaluation.lengths.tolist() == [3, 3] for evaluation in found.values())


def test_every_task_has_its_own_goal() -> None:
    seen: list[Any] = []

    class Policy:
        def predict(self, observation: Any, *_: Any) -> tuple[Any, None]:
            seen.append(observation["desired_goal"][0])
            return np.zeros((1, 2)), None

    evaluate_tasks(Policy(), NAME, 1, max_episode_steps=1)
    goals = [info["goal_xy"] for info in make_env(f"ogbench:{NAME}").unwrapped.env.unwrapped.task_infos]
    np.testing.assert_allclose(
        np.stack(seen), np.array(goals), atol=1.01
    )  # OGBench moves goals by up to a quarter cell.
    with pytest.raises(
        ValueError, match=r"has a single task: use flowpolicies\.evaluate\(policy, make_env\('cube-single-play"
    ):
        evaluate_tasks(Policy(), "cube-single-play-singletask-v0")
