"""DSRL-SAC: a policy's noise as the action of an environment."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.env_checker import check_env

from flowpolicies.core import Network
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.policies import FlowPolicy, SteeredEnv
from flowpolicies.samplers import BestOfN, Integrate, OneStep, RobustGuided

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
PENDULUM = spaces.Box(-2.0, 2.0, (1,), np.float32)


class Counter(gym.Env):
    """Observes how often it was stepped, rewards with that number, and keeps the actions."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)

    def __init__(self, length: int = 100, action_dim: int = 1) -> None:
        self.length, self.actions = length, []
        self.action_space = spaces.Box(-2.0, 2.0, (action_dim,), np.float32)

    def reset(self, *, seed=None, options=None):
        self.actions = []
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.actions.append(action.tolist())
        n = len(self.actions)
        return np.array([n], np.float32), float(n), n == self.length, False, {"n": n}


def linear(horizon: int = 1, action_dim: int = 1, steps: int = 4, **options) -> FlowPolicy:
    """dx/dt = s - x: after K Euler steps of 1/K, x = (1 - 1/K)^K x_0 + (1 - (1 - 1/K)^K) s."""
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=()))}
    space = spaces.Box(-2.0, 2.0, (action_dim,), np.float32)
    policy = FlowPolicy(
        Counter.observation_space, space, networks=networks, sampler=Integrate(steps=steps), horizon=horizon, **options
    )
    field = policy.networks["actor_flow"].net.output
    with torch.no_grad():
        field.weight.zero_()
        field.weight[0] = 1.0
        field.weight[1 : 1 + policy.chunk_dim] = -torch.eye(policy.chunk_dim)
    return policy


def pendulum(horizon: int = 1, sampler=None) -> FlowPolicy:
    torch.manual_seed(0)
    networks = {
        "critic": Network(partial(Critic, hidden_dims=(8,))),
        "actor_flow": Network(partial(VelocityField, hidden_dims=(8,))),
    }
    return FlowPolicy(BOX, PENDULUM, networks=networks, sampler=sampler or Integrate(steps=3), horizon=horizon, seed=0)


def test_executed_action_is_the_closed_form_of_a_linear_flow() -> None:
    counter = Counter()
    env = SteeredEnv(counter, linear(), magnitude=1.5)
    assert env.action_space == spaces.Box(-1.5, 1.5, (1,), np.float32)
    assert env.observation_space == counter.observation_space
    env.reset()
    kept = 0.75**4
    observation, reward, terminated, truncated, info = env.step(np.array([0.6], np.float32))
    np.testing.assert_allclose(counter.actions, [[2 * kept * 0.6]], rtol=1e-6)
    assert (observation.tolist(), reward, terminated, truncated) == ([1.0], 1.0, False, False)
    assert info == {"n": 1, "primitive_steps": 1}
    env.step(np.array([-1.5], np.float32))
    np.testing.assert_allclose(counter.actions[1], [2 * (kept * -1.5 + (1 - kept))], rtol=1e-6)


def test_chunk_is_executed_open_loop_and_its_rewards_are_summed() -> None:
    counter = Counter(action_dim=2)
    env = SteeredEnv(counter, linear(horizon=3, action_dim=2))
    assert env.action_space.shape == (6,)
    env.reset()
    noise = np.linspace(-1, 1, 6, dtype=np.float32)
    observation, reward, *_, info = env.step(noise)
    np.testing.assert_allclose(counter.actions, 2 * 0.75**4 * noise.reshape(3, 2), rtol=1e-6)
    assert (observation.tolist(), reward, info["primitive_steps"]) == ([3.0], 1.0 + 2.0 + 3.0, 3)


def test_only_the_executed_part_of_a_chunk() -> None:
    counter = Counter()
    env = SteeredEnv(counter, linear(horizon=3, execute=2))
    env.reset()
    assert env.step(np.zeros(3, np.float32))[4]["primitive_steps"] == len(counter.actions) == 2


def test_a_chunk_stops_where_the_episode_ends() -> None:
    env = SteeredEnv(Counter(length=5), linear(horizon=3))
    env.reset()
    env.step(np.zeros(3, np.float32))
    observation, reward, terminated, truncated, info = env.step(np.zeros(3, np.float32))
    assert (observation.tolist(), reward, terminated, truncated) == ([5.0], 4.0 + 5.0, True, False)
    assert info["primitive_steps"] == 2
    env.reset()
    assert env.step(np.zeros(3, np.float32))[1] == 6.0


def test_a_time_limit_stays_a_truncation() -> None:
    env = SteeredEnv(gym.wrappers.TimeLimit(Counter(), 4), linear(horizon=3))
    env.reset()
    assert env.step(np.zeros(3, np.float32))[2:4] == (False, False)
    assert env.step(np.zeros(3, np.float32))[2:4] == (False, True)


def test_the_slow_copy_acts_where_the_policy_says_so() -> None:
    networks = {"actor_flow": Network(partial(VelocityField, hidden_dims=(8,)), target_rate=0.1)}
    policy = FlowPolicy(BOX, PENDULUM, networks=networks, sampler=Integrate(), act_with=("actor_flow",))
    policy.targets["actor_flow"].net.output.bias += 10.0
    assert policy.plan_from(np.zeros((4, 3), np.float32), np.zeros((4, 1))).reshape(-1).tolist() == [2.0] * 4


@pytest.mark.parametrize("horizon", [1, 4])
def test_stock_sac_learns_in_it(horizon: int, tmp_path) -> None:
    pendulum(horizon).save(tmp_path / "policy.safetensors")
    policy = FlowPolicy.load(tmp_path / "policy.safetensors", device="cpu")
    before = {key: tensor.clone() for key, tensor in policy.state_dict().items()}
    check_env(SteeredEnv(gym.make("Pendulum-v1"), policy))
    env = SteeredEnv(gym.make("Pendulum-v1"), policy)
    model = SAC("MlpPolicy", env, learning_starts=50, policy_kwargs={"net_arch": [16]}, seed=0, device="cpu")
    model.learn(250)
    assert model._n_updates == 200
    assert all(torch.isfinite(p).all() for p in model.policy.parameters())
    assert all(torch.equal(tensor, before[key]) for key, tensor in policy.state_dict().items())
    ends = np.flatnonzero(model.replay_buffer.dones[:250])
    assert ends.tolist() == list(range(200 // horizon - 1, 250, 200 // horizon))
    assert model.replay_buffer.timeouts[ends].all()


def test_policies_that_draw_more_than_one_noise_are_refused() -> None:
    env = gym.make("Pendulum-v1")
    with pytest.raises(ValueError, match=r"one noise \[1, 1\] per plan, but BestOfN\(.*draws normal \[1, 8, 1\]"):
        SteeredEnv(env, pendulum(sampler=BestOfN(n=8)))
    policy = pendulum(sampler=RobustGuided())
    SteeredEnv(env, policy)
    assert policy.sampler.monitor.norm_running is None
    with pytest.raises(KeyError, match="actor_onestep"):
        SteeredEnv(env, pendulum(sampler=OneStep()))


def test_spaces_must_match() -> None:
    with pytest.raises(ValueError, match=r"the policy acts in .*\(1,\).* the environment takes .*\(2,\)"):
        SteeredEnv(Counter(action_dim=2), linear())
    rescaled = gym.wrappers.RescaleAction(gym.make("Pendulum-v1"), -1.0, 1.0)
    with pytest.raises(ValueError, match="Wrap it so that both agree"):
        SteeredEnv(rescaled, pendulum())
    with pytest.raises(ValueError, match=r"the policy acts in .* the environment takes Discrete"):
        SteeredEnv(gym.make("CartPole-v1"), pendulum())
    with pytest.raises(ValueError, match=r"the policy observes .* the environment shows"):
        SteeredEnv(Counter(), pendulum())


def test_bad_arguments() -> None:
    for magnitude in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="magnitude bounds the noise"):
            SteeredEnv(Counter(), linear(), magnitude)
    env = SteeredEnv(Counter(), linear())
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(np.zeros(1, np.float32))
    env.reset()
    with pytest.raises(ValueError, match=r"noise of shape \(1,\), got \(2,\)"):
        env.step(np.zeros(2, np.float32))
