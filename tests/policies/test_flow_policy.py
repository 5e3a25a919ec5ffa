"""FlowPolicy without any algorithm: predict, chunks, files."""

import json
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from safetensors import safe_open
from safetensors.torch import save_file
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from flowpolicies.core import Network
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.policies import FlowPolicy, evaluate
from flowpolicies.samplers import BestOfN, Guided, Integrate, RobustGuided

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PENDULUM = spaces.Box(-2.0, 2.0, (1,), np.float32)


def make(observation_space: spaces.Space = BOX, action_space: spaces.Space = PENDULUM, **options) -> FlowPolicy:
    torch.manual_seed(0)
    networks = {
        "critic": Network(partial(Critic, hidden_dims=(16,)), target_rate=0.005),
        "actor_flow": Network(partial(VelocityField, hidden_dims=(16,)), target_rate=0.001),
    }
    return FlowPolicy(
        observation_space, action_space, **{"networks": networks, "sampler": Integrate(), "seed": 0, **options}
    )


def observations(n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def test_predict_shapes_dtype_bounds() -> None:
    policy = make()
    single, state = policy.predict(observations()[0])
    batch, _ = policy.predict(observations())
    assert single.shape == (1,)
    assert batch.shape == (4, 1)
    assert state is None
    assert batch.dtype == PENDULUM.dtype
    assert np.abs(batch).max() <= 2


def test_no_network_acts_in_training_mode() -> None:
    policy = make()
    policy.networks["actor_flow"].net.output = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(16, 1))
    for set_mode in (policy.train, policy.networks.train, policy.networks["actor_flow"].train):
        set_mode()
        actions = [policy.predict(observations(), deterministic=True)[0] for _ in range(2)]
        np.testing.assert_array_equal(*actions)
        assert not any(module.training for module in policy.modules())


def test_asymmetric_and_per_dimension_bounds_are_scaled() -> None:
    low, high = np.array([-1.0, 5.0, 0.0]), np.array([3.0, 6.0, 1e-3])
    policy = make(action_space=spaces.Box(low, high, dtype=np.float64))
    actions = np.concatenate([policy.predict(observations(64))[0] for _ in range(20)])
    assert actions.dtype == np.float64
    assert (actions >= low).all()
    assert (actions <= high).all()
    zeros = policy._to_space(torch.zeros(1, 3))
    np.testing.assert_allclose(zeros[0, 0], (low + high) / 2, rtol=1e-6)


def test_deterministic_starts_at_zero_noise_and_seeds_repeat() -> None:
    policy = make()
    obs = observations()
    np.testing.assert_array_equal(
        policy.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0]
    )
    first = policy.predict(obs)[0]
    assert not np.array_equal(first, policy.predict(obs)[0])
    policy.seed(0)
    np.testing.assert_array_equal(policy.predict(obs)[0], first)


def test_gymnasium_tuple_and_wrong_shape_are_refused() -> None:
    policy = make()
    with pytest.raises(ValueError, match=r"env\.reset\(\) returns \(observation, info\)"):
        policy.predict((observations()[0], {}))
    with pytest.raises(ValueError, match="shape"):
        policy.predict(np.zeros((4, 7), np.float32))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiBinary(2)])
def test_discrete_actions_are_refused(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match="acts in continuous spaces"):
        make(action_space=space)


def test_unbounded_and_empty_boxes_are_refused() -> None:
    with pytest.raises(ValueError, match="finite bounds, because actions are scaled"):
        make(action_space=spaces.Box(-np.inf, np.inf, (2,)))
    with pytest.raises(ValueError, match="low < high"):
        make(action_space=spaces.Box(np.zeros(2, np.float32), np.zeros(2, np.float32)))


def test_dict_and_image_observations() -> None:
    space = spaces.Dict({"camera": spaces.Box(0, 255, (3, 16, 16), np.uint8), "joints": spaces.Box(-1, 1, (2, 2))})
    policy = make(space, encoder="impala_debug")
    obs = {"camera": np.zeros((5, 3, 16, 16), np.uint8), "joints": np.zeros((5, 2, 2), np.float32)}
    assert policy.predict(obs)[0].shape == (5, 1)
    image = make(spaces.Box(0, 255, (3, 16, 16), np.uint8), encoder="impala_debug")
    dark, bright = (image.predict(np.full((3, 16, 16), v, np.uint8), deterministic=True)[0] for v in (0, 255))
    assert not np.array_equal(dark, bright)
    with pytest.raises(ValueError, match="must be a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict of these"):
        make(spaces.Text(4))


def test_chunks_are_executed_open_loop_and_replanned() -> None:
    policy = make(horizon=3)
    obs = observations(2)
    a_0, state = policy.predict(obs, None, np.ones(2, bool))
    queue = state[0].copy()
    assert queue.shape == (2, 3, 1)
    a_1, state = policy.predict(100 * obs, state, np.zeros(2, bool))
    a_2, state = policy.predict(obs, state, np.zeros(2, bool))
    for step, action in enumerate((a_0, a_1, a_2)):
        np.testing.assert_array_equal(action, queue[:, step])
    a_3, state = policy.predict(obs, state, np.zeros(2, bool))
    assert not np.array_equal(state[0], queue)
    np.testing.assert_array_equal(a_3, state[0][:, 0])


def test_a_new_episode_drops_only_its_own_queue() -> None:
    policy = make(horizon=4)
    obs = observations(2)
    _, state = policy.predict(obs, None, np.ones(2, bool))
    before = state[0].copy()
    actions, state = policy.predict(obs, state, np.array([False, True]))
    np.testing.assert_array_equal(actions[0], before[0, 1])
    np.testing.assert_array_equal(state[0][0], before[0])
    np.testing.assert_array_equal(actions[1], state[0][1, 0])
    assert not np.array_equal(state[0][1], before[1])
    assert state[1].tolist() == [2, 1]


def test_predict_does_not_change_the_state_it_was_given() -> None:
    policy = make(horizon=2)
    _, state = policy.predict(observations(2), None, np.ones(2, bool))
    copy = tuple(part.copy() for part in state)
    policy.predict(observations(2), state, np.ones(2, bool))
    for part, kept in zip(state, copy, strict=True):
        np.testing.assert_array_equal(part, kept)


def test_without_state_every_call_plans_afresh() -> None:
    policy = make(horizon=3)
    obs = observations(2)
    policy.seed(1)
    first, _ = policy.predict(obs)
    policy.seed(1)
    again, state = policy.predict(obs)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, state[0][:, 0])


def test_replanning_interval() -> None:
    policy = make(horizon=4, execute=2)
    obs = observations(1)
    _, state = policy.predict(obs, None, np.ones(1, bool))
    queue = state[0].copy()
    _, state = policy.predict(obs, state, np.zeros(1, bool))
    np.testing.assert_array_equal(state[0], queue)
    _, state = policy.predict(obs, state, np.zeros(1, bool))
    assert not np.array_equal(state[0], queue)


def test_state_of_other_environments_is_refused() -> None:
    policy = make(horizon=2)
    _, state = policy.predict(observations(2))
    with pytest.raises(ValueError, match=r"state holds chunks of shape \(2, 2, 1\), but 3 observations"):
        policy.predict(observations(3), state)


def test_sb3_evaluate_policy_executes_chunks() -> None:
    policy = make(horizon=5)
    planned = []
    plan = policy._plan
    policy._plan = lambda *args: planned.append(len(args[0])) or plan(*args)
    env = make_vec_env("Pendulum-v1", n_envs=2, seed=0)
    evaluate_policy(policy, env, n_eval_episodes=2, deterministic=False)
    assert sum(planned) == 2 * 200 / 5


def test_evaluate_counts_episodes_and_gives_intervals() -> None:
    policy = make()
    found = evaluate(policy, make_vec_env("Pendulum-v1", n_envs=2), episodes=5, seed=3)
    assert len(found) == 5
    assert set(found.lengths) == {200}
    assert found.successes is None
    low, high = found.mean_return().low, found.mean_return().high
    assert low < found.returns.mean() < high
    with pytest.raises(ValueError, match="does not report success"):
        found.success_rate()
    np.testing.assert_array_equal(
        found.returns, evaluate(policy, make_vec_env("Pendulum-v1", n_envs=2), 5, seed=3).returns
    )
    with pytest.raises(ValueError, match="at least 1"):
        evaluate(policy, gym.make("Pendulum-v1"), episodes=0)


class Countdown(gym.Env):
    """Succeeds at the third step of every second episode."""

    observation_space, action_space = BOX, PENDULUM

    def __init__(self) -> None:
        self.episode = self.step_number = 0

    def reset(self, *, seed=None, options=None):
        self.episode, self.step_number = self.episode + 1, 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.step_number += 1
        done = self.step_number == 3
        return np.zeros(3, np.float32), -1.0, done, False, {"is_success": done and self.episode % 2 == 0}


def test_evaluate_reads_success_at_the_last_step() -> None:
    found = evaluate(make(), Countdown(), episodes=4)
    assert found.successes.tolist() == [0, 1, 0, 1]
    assert found.returns.tolist() == [-3] * 4
    rate = found.success_rate()
    assert rate.mean == 0.5
    assert 0.1 < rate.low < 0.5 < rate.high < 0.9
    assert "success 0.5" in str(found)


@pytest.mark.parametrize(
    "sampler", [Integrate(steps=4, method="heun"), BestOfN(Guided(beta=0.3), n=8), RobustGuided(clip=2.0)]
)
def test_saved_policy_acts_the_same(tmp_path: Path, sampler) -> None:
    policy = make(horizon=2, execute=1, act_with=("actor_flow",), explore_with=("critic",), sampler=sampler)
    policy.targets["actor_flow"].net.output.bias += 0.5
    policy.save(tmp_path / "deep" / "policy.safetensors")
    loaded = FlowPolicy.load(tmp_path / "deep" / "policy.safetensors", device="cpu")
    assert loaded.sampler == sampler
    assert (loaded.horizon, loaded.execute) == (2, 1)
    assert (loaded.act_with, loaded.explore_with) == (("actor_flow",), ("critic",))
    assert loaded.observation_space == policy.observation_space
    assert loaded.action_space == policy.action_space
    obs = observations()
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0]
    )
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["policy.safetensors"]


def test_dict_policy_survives_a_file(tmp_path: Path) -> None:
    space = spaces.Dict({"b": spaces.Box(0, 255, (3, 8, 8), np.uint8), "a": spaces.Box(-np.inf, 1, (2,))})
    policy = make(space, encoder="impala_debug")
    policy.save(tmp_path / "p")
    obs = {key: np.zeros(box.shape, box.dtype) for key, box in space.spaces.items()}
    loaded = FlowPolicy.load(tmp_path / "p", device="cpu")
    np.testing.assert_array_equal(
        loaded.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True)[0]
    )


def test_slow_copies_act_in_predict_and_not_when_exploring() -> None:
    policy = make(act_with=("actor_flow",))
    policy.targets["actor_flow"].net.output.bias += 10
    obs = observations()
    slow, raw = policy.predict(obs, deterministic=True)[0], policy.predict(obs, deterministic=True, explore=True)[0]
    assert (slow == 2).all()
    assert (raw < 2).all()
    always = make(act_with=("actor_flow",), explore_with=("actor_flow",))
    always.targets["actor_flow"].net.output.bias += 10
    assert (always.predict(obs, deterministic=True, explore=True)[0] == 2).all()


def test_an_explorer_acts_when_exploring_and_survives_a_file(tmp_path: Path) -> None:
    policy = make(explorer=Guided(beta=50.0))
    policy.save(tmp_path / "p")
    obs = observations()
    for found in (policy, FlowPolicy.load(tmp_path / "p", device="cpu")):
        assert found.explorer == Guided(beta=50.0)
        plain = found.predict(obs, deterministic=True)[0]
        explored = found.predict(obs, deterministic=True, explore=True)[0]
        np.testing.assert_array_equal(plain, make().predict(obs, deterministic=True)[0])
        np.testing.assert_array_equal(explored, make(sampler=Guided(beta=50.0)).predict(obs, deterministic=True)[0])
        assert not np.array_equal(plain, explored)


def test_without_an_explorer_the_sampler_explores_whichever_it_is(tmp_path: Path) -> None:
    policy = make(sampler=Guided(beta=50.0))
    policy.save(tmp_path / "p")
    obs = observations()
    for found in (policy, FlowPolicy.load(tmp_path / "p", device="cpu")):
        assert found.explorer is None
        found.sampler = Integrate(steps=2)
        plain, explored = (found.predict(obs, deterministic=True, explore=e)[0] for e in (False, True))
        np.testing.assert_array_equal(plain, explored)


def test_a_file_from_before_explorers_is_read(tmp_path: Path) -> None:
    make(explorer=Guided()).save(tmp_path / "new")
    with safe_open(tmp_path / "new", framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del config["explorer"]
    save_file(weights, tmp_path / "old", metadata={"config": json.dumps(config)})
    assert FlowPolicy.load(tmp_path / "old", device="cpu").explorer is None


def test_sampler_is_exchanged_at_test_time() -> None:
    policy = make()
    plain = policy.predict(observations(), deterministic=True)[0]
    policy.sampler = Guided(beta=50.0)
    assert not np.array_equal(policy.predict(observations(), deterministic=True)[0], plain)


def test_failed_save_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.safetensors"
    policy = make()
    policy.save(path)
    before = path.read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("flowpolicies.policies.policy_file.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        policy.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_classes_and_foreign_files_are_refused(tmp_path: Path) -> None:
    policy = make()
    policy.sampler = lambda nets, observations, noise: None
    with pytest.raises(TypeError, match="cannot be saved without pickle"):
        policy.save(tmp_path / "p")
    policy = make(networks={"actor_flow": Network(lambda o, a: VelocityField(o, a, hidden_dims=(8,)))})
    with pytest.raises(TypeError, match="factory of network 'actor_flow' cannot be saved"):
        policy.save(tmp_path / "p")
    with pytest.raises(FileNotFoundError, match="no policy file"):
        FlowPolicy.load(tmp_path / "nothing")
    (tmp_path / "junk").write_bytes(b"PK\x03\x04 not a policy")
    with pytest.raises(ValueError, match=r"is not a policy file.*flowpolicies.FQL.load"):
        FlowPolicy.load(tmp_path / "junk")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(ValueError, match="its format is None"):
        FlowPolicy.load(tmp_path / "other")
