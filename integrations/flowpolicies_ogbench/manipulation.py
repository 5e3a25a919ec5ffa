"""Collection of OGBench's cube, scene and puzzle data by scripted policies that pursue random targets.

Follows data_gen_scripts/generate_manipspace.py and commands.sh in https://github.com/seohongpark/ogbench.
"""

from typing import Any, final

import gymnasium
import numpy as np
from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

from flowpolicies.tree import Array
from flowpolicies_ogbench.names import TaskName
from flowpolicies_ogbench.randomness import global_draws_from

PLAN_NOISE = {"noise": 0.1, "noise_smoothing": 0.5}
"""Noise of the policies of "play" data."""

MIN_NORM = 0.4
"""Smallest norm of the relative position in the policies of "noisy" data."""

MAX_ACTION_NOISE = 0.1
"""Largest standard deviation of the noise of "noisy" actions; each episode draws its own uniformly."""

ACTION_NOISE_RATIOS = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
"""Standard deviation of the noise of each action dimension, relative to that of the episode."""

RANDOM_ACTION_PROBABILITY = {"cube": 0.1, "scene": 0.1, "puzzle": 0.2}
"""Probability that a step of "noisy" data has a random action."""

STACK_PROBABILITIES = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
    "cube-octuple": (0.0, 0.35),
}
"""Range of the probability that the target of a cube is on top of another cube, which each episode draws uniformly.

It is 0.5 in all other scenes.
"""


@final
class ManipulationCollector:
    """Collects episodes of one dataset.

    "play" data come from policies that follow a plan with smooth noise. "noisy" data come from closed-loop policies
    with noise added to their actions.

    Args:
        task: Parsed name of the dataset.
        num_steps: Number of rows of an episode.
    """

    def __init__(self, task: TaskName, num_steps: int) -> None:
        made = gymnasium.make(
            task.collecting_environment, terminate_at_goal=False, mode="data_collection", disable_env_checker=True
        )
        self._env: Any = made.unwrapped
        # The first reset compiles the model (ogbench/manipspace/envs/env.py), and its episode differs slightly from
        # what a later reset with the same seed gives.
        self._env.reset(seed=0)
        self._num_steps = num_steps
        self._family = task.scene.partition("-")[0]
        self._is_noisy = task.kind == "noisy"
        self._stack_probabilities = STACK_PROBABILITIES.get(task.scene, (0.5, 0.5))
        self._oracles = _make_oracles(self._env, is_noisy=self._is_noisy, is_puzzle=self._family == "puzzle")

    def __call__(self, seed: list[int]) -> list[dict[str, Array]]:
        """The rows of one episode, which depend only on `seed`."""
        generator = np.random.default_rng(seed)
        with global_draws_from(np.random.RandomState(generator.integers(2**32, dtype=np.uint32))):
            rows = self._episode(generator)
            while self._family == "scene" and not _cube_stays_visible(rows):
                rows = self._episode(generator)
        return rows

    def _episode(self, generator: np.random.Generator) -> list[dict[str, Array]]:
        env = self._env
        observation, info = env.reset(seed=int(generator.integers(2**31)))
        stack_probability = generator.uniform(*self._stack_probabilities)
        noise_scales = generator.uniform(0, MAX_ACTION_NOISE) * ACTION_NOISE_RATIOS
        oracle = self._start_oracle(observation, info)
        rows = []
        for _ in range(self._num_steps):
            action = self._choose_action(oracle, observation, info, noise_scales, generator)
            next_observation, _, _, _, info = env.step(action)
            row = {"observations": observation, "actions": action, "qpos": info["prev_qpos"], "qvel": info["prev_qvel"]}
            if "prev_button_states" in info:
                row["button_states"] = info["prev_button_states"]
            rows.append(row)
            observation = next_observation
            if oracle.done:
                # As in generate_manipspace.py, the next action is still chosen from the `info` of the step, which has
                # the old target. Only the reset of the oracle gets the `info` with the new target.
                oracle = self._start_oracle(*env.set_new_target(p_stack=stack_probability))
        return rows

    def _start_oracle(self, observation: Array, info: dict[str, Any]) -> Any:
        oracle = self._oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        return oracle

    def _choose_action(
        self, oracle: Any, observation: Array, info: dict[str, Any], noise_scales: Array, generator: np.random.Generator
    ) -> Array:
        if self._is_noisy and generator.random() < RANDOM_ACTION_PROBABILITY[self._family]:
            return generator.uniform(-1, 1, 5).astype(np.float32)
        action = np.asarray(oracle.select_action(observation, info))
        if self._is_noisy:
            action = action + generator.normal(0, noise_scales)
        clipped: Array = np.clip(action, -1, 1).astype(np.float32)
        return clipped


def _make_oracles(env: Any, *, is_noisy: bool, is_puzzle: bool) -> dict[str, Any]:
    """OGBench's scripted policies by the name of their task; in a puzzle the gripper stays closed."""
    if is_noisy:
        # For scenes generate_manipspace.py also passes max_step=100 to CubeMarkovOracle. That has no effect, because
        # its `__init__` always sets 200 (ogbench/manipspace/oracles/markov/cube_markov.py).
        return {
            "cube": CubeMarkovOracle(env=env, min_norm=MIN_NORM),
            "button": ButtonMarkovOracle(env=env, min_norm=MIN_NORM, gripper_always_closed=is_puzzle),
            "drawer": DrawerMarkovOracle(env=env, min_norm=MIN_NORM),
            "window": WindowMarkovOracle(env=env, min_norm=MIN_NORM),
        }
    return {
        "cube": CubePlanOracle(env=env, **PLAN_NOISE),
        "button": ButtonPlanOracle(env=env, gripper_always_closed=is_puzzle, **PLAN_NOISE),
        "drawer": DrawerPlanOracle(env=env, **PLAN_NOISE),
        "window": WindowPlanOracle(env=env, **PLAN_NOISE),
    }


def _cube_stays_visible(rows: list[dict[str, Array]]) -> bool:
    """Whether the cube of a scene is never hidden: not off the table, and at the left end only inside the drawer."""
    # The bounds are those of the "health check" in generate_manipspace.py.
    _, y, z = np.array([row["qpos"][14:17] for row in rows]).T
    return not np.any((y >= 0.29) | ((y <= -0.3) & ((z < 0.06) | (z > 0.08))))
