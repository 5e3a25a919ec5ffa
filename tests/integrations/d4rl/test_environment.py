from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.spaces import Box
from stable_baselines3.common.env_checker import check_env

from flowpolicies.cli import main
from flowpolicies.data import load_dataset, make_env
from flowpolicies.inspection import inspect_dataset, open_resimulator
from flowpolicies.training import make_vec_env
from flowpolicies_d4rl.antmaze import MAZES, AntMaze, model, position
from flowpolicies_d4rl.environment import Hand


@pytest.mark.parametrize(
    ("name", "sizes", "steps"),
    [
        ("antmaze-umaze-diverse-v2", (29, 8), 700),
        ("antmaze-medium-play-v2", (29, 8), 1000),
        ("antmaze-large-play-v0", (29, 8), 1000),
        ("pen-human-v1", (45, 24), 100),
        ("door-cloned-v1", (39, 28), 200),
        ("hammer-expert-v1", (46, 26), 200),
        ("relocate-human-v0", (39, 30), 200),
        ("halfcheetah-medium-v2", (17, 6), 1000),
        ("hopper-medium-replay-v2", (11, 3), 1000),
        ("walker2d-expert-v1", (17, 6), 1000),
    ],
)
def test_spaces_seeds_and_time_limits(name: str, sizes: tuple[int, int], steps: int, put: Any) -> None:
    env = make_env(f"d4rl:{name}")
    check_env(env, warn=False)
    assert env.observation_space == Box(-np.inf, np.inf, sizes[:1], np.float32)
    assert env.action_space.shape == sizes[1:]
    put(name, sizes)
    assert load_dataset(f"d4rl:{name}").observation_space == env.observation_space
    assert env.get_wrapper_attr("_max_episode_steps") == steps
    action = env.action_space.sample()
    runs = []
    for _ in range(2):
        observation, _ = env.reset(seed=3)
        runs.append([observation, *(env.step(action)[:2] for _ in range(3))])
        env.reset()
    np.testing.assert_equal(*runs)
    for other in (copy.deepcopy(env), pickle.loads(pickle.dumps(env))):
        np.testing.assert_array_equal(other.reset(seed=3)[0], runs[0][0])
    env.close()


@pytest.mark.parametrize("maze", list(MAZES))
def test_the_ant_is_d4rls(maze: str) -> None:
    """A model compiled from D4RL's own XML has all of these numbers, except for the scale of its actions."""
    made = mujoco.MjModel.from_xml_string(model(MAZES[maze]))
    assert made.opt.timestep == 0.02
    np.testing.assert_array_equal(made.actuator_gear[:, 0], 30)
    np.testing.assert_array_equal(made.actuator_ctrlrange, [[-1, 1]] * 8)
    np.testing.assert_allclose(made.geom_solimp[:, :3], [[0.8, 0.8, 0.01]] * made.ngeom)
    walls = sum(row.count("#") for row in MAZES[maze])
    boxes = made.geom_type == mujoco.mjtGeom.mjGEOM_BOX
    assert boxes.sum() == walls
    np.testing.assert_array_equal(made.geom_size[boxes], [[2, 2, 1]] * walls)
    np.testing.assert_array_equal(made.geom_pos[boxes][0], [-4, -4, 1])  # The corner, one cell from the start.


def test_goals_rewards_and_terminations_of_the_ant() -> None:
    env = AntMaze("large")
    goals = np.array([env.reset(seed=seed) and env.goal for seed in range(200)])
    offsets = goals - position(MAZES["large"], "G")
    np.testing.assert_array_equal(position(MAZES["large"], "G"), [32, 24])
    assert offsets.min() >= 0
    assert offsets.max() <= 1.5
    np.testing.assert_allclose(offsets.mean(0), 0.75, atol=0.1)
    observation, info = env.reset(seed=0)
    assert np.abs(observation[:2]).max() <= 0.1
    assert info == {}
    simulator: Any = env.unwrapped
    assert simulator.dt == pytest.approx(0.1)
    for distance, reached in ((0.8, False), (0.3, True)):
        qpos, qvel = simulator.init_qpos.copy(), np.zeros(simulator.model.nv)
        qpos[:2] = env.goal + np.array([distance, 0])
        simulator.set_state(qpos, qvel)
        observation, reward, terminated, truncated, info = env.step(np.zeros(8))
        assert np.linalg.norm(observation[:2] - qpos[:2]) < 0.1
        assert (reward, terminated, truncated, info) == (float(reached), reached, False, {"is_success": reached})
    before = env.goal.copy()
    env.reset()
    assert not np.array_equal(before, env.goal)


def test_the_ant_cannot_walk_through_walls() -> None:
    env = AntMaze("umaze")
    env.reset(seed=0)
    simulator: Any = env.unwrapped
    qpos, qvel = simulator.init_qpos.copy(), np.zeros(simulator.model.nv)
    qvel[1] = 20.0  # Towards the wall between start and goal, at distance 2.
    simulator.set_state(qpos, qvel)
    reached = [env.step(np.zeros(8))[0][1] for _ in range(20)]
    assert 0.5 < max(reached) < 2.2


def d4rl_reward(body: str, hand: Any) -> float:
    """D4RL's reward, computed from positions in the simulator."""
    sites, bodies = hand.data.site_xpos, hand.data.xpos
    norm = lambda a, b: float(np.linalg.norm(a - b))
    if body == "door":
        palm, handle = sites[hand.grasp_site_id], sites[hand.handle_site_id]
        hinge = float(hand.data.qpos[hand.door_hinge_addrs])
        bonus = sum(size for limit, size in ((0.2, 2), (1.0, 8), (1.35, 10)) if hinge > limit)
        speed = float((hand.data.qvel**2).sum())
        return -0.1 * norm(palm, handle) - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * speed + bonus
    palm, there = sites[hand.S_grasp_site_id], bodies[hand.obj_body_id]
    if body == "pen":
        left = norm(there, sites[hand.eps_ball_site_id])
        pen = sites[hand.obj_t_site_id] - sites[hand.obj_b_site_id]
        target = sites[hand.tar_t_site_id] - sites[hand.tar_b_site_id]
        similarity = float(pen @ target) / hand.pen_length / hand.tar_length
        bonus = (left < 0.075) * (10 * (similarity > 0.9) + 50 * (similarity > 0.95))
        return -left + similarity + bonus - 5 * (there[2] < 0.075)
    if body == "hammer":
        head, nail, goal = (sites[n] for n in (hand.tool_site_id, hand.target_obj_site_id, hand.goal_site_id))
        left = norm(nail, goal)
        bonus = 2 * (there[2] > 0.04 and head[2] > 0.04) + 25 * (left < 0.02) + 75 * (left < 0.01)
        speed = float(np.linalg.norm(hand.data.qvel))
        return -0.1 * norm(palm, there) - norm(head, nail) - 10 * left - 1e-2 * speed + bonus
    target = sites[hand.target_obj_site_id]
    lifted = 1 - 0.5 * norm(palm, target) - 0.5 * norm(there, target) if there[2] > 0.04 else 0.0
    left = norm(there, target)
    return -0.1 * norm(palm, there) + lifted + 10 * (left < 0.1) + 20 * (left < 0.05)


@pytest.mark.parametrize("body", ["door", "hammer", "pen", "relocate"])
def test_rewards_of_hands_are_d4rls(body: str) -> None:
    env = make_env(f"d4rl:{body}-human-v1")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(20):
        _, reward, terminated, _, info = env.step(env.action_space.sample())
        assert reward == pytest.approx(d4rl_reward(body, env.unwrapped), abs=1e-6)
        assert not terminated
        assert info["is_success"] is False


def test_rewards_of_hands_that_are_right_are_left_alone() -> None:
    env = make_env("d4rl:door-human-v1")
    while not isinstance(env, Hand):
        env = env.env
    right = Hand(env.env, "door", reaches_wrong_way=False)
    rewards = []
    for one in (env, right, env.env):
        one.reset(seed=0)
        rewards.append(one.step(np.zeros(28))[1])
    assert rewards[1] == rewards[2] != rewards[0]


def test_misuse_of_the_ant_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"unknown render_mode 'rgb' \(known: human, rgb_array"):
        make_env("d4rl:antmaze-umaze-v2", render_mode="rgb")
    with pytest.raises(gymnasium.error.ResetNeeded):
        make_env("d4rl:antmaze-umaze-v2").step(np.zeros(8))


def test_dropping_the_pen_ends_the_episode() -> None:
    env = make_env("d4rl:pen-human-v1")
    env.reset(seed=1)
    env.action_space.seed(0)
    for _ in range(100):
        _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        hand: Any = env.unwrapped
        assert terminated == (hand.data.xpos[hand.obj_body_id][2] < 0.075)
        if terminated or truncated:
            break
    assert terminated
    assert float(reward) < -4


def test_several_at_once() -> None:
    env = make_vec_env("d4rl:antmaze-umaze-v2", 2, seed=0)
    assert env.reset().shape == (2, 29)
    env.close()


def test_kitchens_have_none(put: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"'kitchen-mixed-v0' has no environment: .*--eval-episodes 0"):
        make_env("d4rl:kitchen-mixed-v0")
    put("kitchen-mixed-v0", (60, 9), 400)
    main(["data", "check", "d4rl:kitchen-mixed-v0"])
    assert "not judged: environment: 'kitchen-mixed-v0' has no environment" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("missing", "needs_it", "needs_it_not"),
    [
        ("gymnasium_robotics", "make_env('d4rl:pen-human-v1')", "make_env('d4rl:antmaze-umaze-v2')"),
        ("mujoco", "make_env('d4rl:antmaze-umaze-v2')", "load_dataset('d4rl:antmaze-umaze-v2')"),
    ],
)
def test_what_is_missing_is_named_where_it_is_needed(missing: str, needs_it: str, needs_it_not: str, put: Any) -> None:
    put("antmaze-umaze-v2")
    code = (
        f"import sys; sys.modules['{missing}'] = None\n"
        "from flowpolicies.data import load_dataset, make_env\n"
        f"{needs_it_not}\n"
        f"try: {needs_it}\n"
        "except ImportError as error: assert 'flowpolicies[d4rl]' in str(error), error\n"
        "else: raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_data_are_compared_with_the_simulator(put: Any) -> None:
    env = make_env("d4rl:antmaze-umaze-v2")
    observations, actions = [env.reset(seed=0)[0]], []
    env.action_space.seed(0)
    for _ in range(400):
        actions.append(env.action_space.sample())
        observations.append(env.step(actions[-1])[0])
    timeouts = np.arange(400) == 399
    columns: dict[str, Any] = {"observations": np.array(observations[:-1]), "timeouts": timeouts}
    address = "d4rl:antmaze-umaze-v2"
    found = {}
    for kind, shift in (("whole", 0), ("shifted", 1)):
        put("antmaze-umaze-v2", rows=400, actions=np.roll(np.array(actions), shift, axis=0), **columns)
        dataset = load_dataset(address, data_dir=None)
        inspection = inspect_dataset(dataset, resimulate=open_resimulator(address, dataset))
        (found[kind],) = [one for one in inspection.findings if one.check == "resimulation"]
    assert found["whole"].severity == "info"
    assert found["shifted"].severity == "fault"
    assert "actions are shifted" in found["shifted"].message
    put("pen-human-v1", (45, 24))
    with pytest.raises(ValueError, match="not the whole state"):
        open_resimulator("d4rl:pen-human-v1", load_dataset("d4rl:pen-human-v1"))


@pytest.mark.more
def test_a_row_of_a_table_runs_with_one_command(put: Any, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    put("antmaze-umaze-v2", rewards=(np.arange(40) % 7 == 6).astype(np.float32))
    small = "--steps 2 --eval-every 0 --eval-episodes 1 --batch-size 4 --actor-hidden-dims 8 --value-hidden-dims 8"
    words = ["reproduce", "table", "fql-d4rl", "--tasks", "antmaze-umaze-v2", "--seeds", "0", "--extra", small]
    assert main([*words, "--runs-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "1 runs, 0 done, 1 open" in printed
    assert "│ antmaze-umaze-v2 │ 0.0! (1) | - │" in printed  # ! marks unpublished settings.
    run = tmp_path / "fql-d4rl" / "fql-antmaze-umaze-v2-seed0"
    assert main(["evaluate", str(run), "--episodes", "1"]) == 0
    assert "D4RL's score 0 [0, 0]" in capsys.readouterr().out
