"""Hindsight goals of online transitions, as Stable-Baselines3's HerReplayBuffer draws them."""

import copy
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer

from flowpolicies import FQL
from flowpolicies.core import Batch
from flowpolicies.data import OnlineGoals
from flowpolicies.data.replay.buffer import TransitionBuffer

PLACE = spaces.Box(-1000, 1000, (1,), np.float32)
SPACE = spaces.Dict({"observation": PLACE, "achieved_goal": PLACE, "desired_goal": PLACE})
ACT = spaces.Box(-1, 1, (1,), np.float32)
GAMMA = 0.5


class Line(gym.Env[Any, Any]):
    """Moves along a line; the reward is 0 within 0.5 of the goal and -1 elsewhere. A time limit ends episodes."""

    observation_space, action_space = SPACE, ACT

    def __init__(self, length: int = 6) -> None:
        self.length = length

    def _now(self) -> dict[str, np.ndarray]:
        place = np.array([self.place], np.float32)
        return {"observation": place, "achieved_goal": place, "desired_goal": np.array([self.goal], np.float32)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal, self.t = 0.0, float(self.np_random.uniform(-3, 3)), 0
        return self._now(), {}

    def step(self, action: Any) -> Any:
        self.place, self.t = self.place + float(action[0]), self.t + 1
        now, info = self._now(), {"bonus": 0.0}
        reward = float(self.compute_reward(now["achieved_goal"], now["desired_goal"], info))
        return now, reward, False, self.t == self.length, info

    def compute_reward(self, achieved: np.ndarray, desired: np.ndarray, infos: Any) -> np.ndarray:
        bonus = 0 if isinstance(infos, dict) else np.array([info.get("bonus", 0) for info in infos], np.float32)
        return (np.abs(achieved - desired)[..., 0] < 0.5) - 1.0 + bonus


def make(n_envs: int = 1, size: int = 40, goals: OnlineGoals | None = None, **options: Any) -> TransitionBuffer:
    goals = OnlineGoals() if goals is None else goals
    made = TransitionBuffer(size, SPACE, ACT, "cpu", n_envs, online_goals=goals, gamma=GAMMA, seed=0, **options)
    made.set_env(DummyVecEnv([Line]))
    return made


def fill(buffer: Any, steps: int, *, bonus: bool = False) -> None:
    """Step t of environment e leads from 100 e + t to the next place, with the goal -500; episodes end at 2, 8, 9."""
    for t in range(steps):
        places = np.array([[100.0 * e + t] for e in range(buffer.n_envs)], np.float32)
        obs, following = (
            {"observation": p, "achieved_goal": p, "desired_goal": np.full_like(p, -500)} for p in (places, places + 1)
        )
        done, infos = np.full(buffer.n_envs, t in (2, 8, 9)), [{"bonus": 0.25 * bonus}] * buffer.n_envs
        buffer.add(obs, following, np.zeros((buffer.n_envs, 1)), np.full(buffer.n_envs, -7.0), done, infos)


def parts(batch: Batch) -> dict[str, torch.Tensor]:
    """Places, goals and next places; keys are in the order of the space."""
    order = list(SPACE.spaces)
    columns = dict(zip(order, batch.observations.T, strict=True))
    following = dict(zip(order, batch.next_observations.T, strict=True))
    torch.testing.assert_close(columns["desired_goal"], following["desired_goal"])
    return {"place": columns["observation"], "goal": columns["desired_goal"], "next": following["observation"]}


def last_place(place: float) -> float:
    """The last place of the episode that the step from `place` belongs to, when 13 steps are stored."""
    within = place % 100
    ends = [3, 9, 10, 13]
    return place - within + next(end for end in ends if within < end)


def first_place(place: float) -> float:
    within = place % 100
    return place - within + max(start for start in (0, 3, 9, 10) if start <= within)


@pytest.mark.parametrize("strategy", ["future", "final", "episode", GoalSelectionStrategy.FUTURE])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_goals_come_from_the_same_episode(strategy: Any, n_envs: int) -> None:
    buffer = make(n_envs, goals=OnlineGoals(goal_selection_strategy=strategy))
    fill(buffer, 13)
    batch = buffer.sample(2000)
    found = parts(batch)
    kept = found["goal"] == -500
    assert int(kept.sum()) == 400, "one of five transitions keeps its goal"
    assert (batch.rewards[kept] == -7).all()
    reached = (found["next"] == found["goal"])[~kept]
    torch.testing.assert_close(batch.rewards[~kept], reached.float() - 1)
    seen: dict[float, set[float]] = {}
    for place, goal in zip(found["place"][~kept].tolist(), found["goal"][~kept].tolist(), strict=True):
        seen.setdefault(place, set()).add(goal)
    for place, goals in seen.items():
        last = last_place(place)
        first = {"final": last, "episode": first_place(place) + 1}.get(str(strategy), place + 1)
        assert goals == {float(goal) for goal in np.arange(first, last + 1)}, place
    ends = torch.isin(found["place"] % 100, torch.tensor([2.0, 8.0, 9.0]))
    assert torch.equal(batch.discounts == 0, ends)


def test_shares_are_those_of_stable_baselines3() -> None:
    """The distribution of goals for each place, in finished episodes."""
    stock = HerReplayBuffer(40, SPACE, ACT, DummyVecEnv([Line]), "cpu")
    mine = make()
    for buffer in (stock, mine):
        fill(buffer, 10)
    np.random.seed(0)
    theirs = stock.sample(20_000)
    ours = parts(mine.sample(20_000))

    def counts(places: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
        keys = places.flatten().long() * 20 + goals.flatten().clamp(min=-1).long() + 1
        return torch.bincount(keys, minlength=240) / len(keys)

    expected = counts(theirs.observations["observation"], theirs.observations["desired_goal"])
    torch.testing.assert_close(counts(ours["place"], ours["goal"]), expected, atol=0.005, rtol=0)


def test_overwritten_beginnings_and_several_steps() -> None:
    buffer = make(size=8, n_steps=3)
    fill(buffer, 13)
    batch = buffer.sample(3000)
    found = parts(batch)
    assert batch.valid.all()
    assert set(found["place"].tolist()) == set(range(5, 13))
    drawn = found["goal"] != -500
    for i in drawn.nonzero().flatten().tolist():
        place, goal = float(found["place"][i]), float(found["goal"][i])
        last = last_place(place)
        assert place < goal <= last
        nexts = np.arange(place + 1, min(place + 3, last) + 1)
        assert float(batch.rewards[i]) == pytest.approx(sum(GAMMA**j * ((p == goal) - 1) for j, p in enumerate(nexts)))
        terminated = last in (9, 10) and last in nexts
        assert float(batch.discounts[i]) == pytest.approx(0 if terminated else GAMMA ** len(nexts))


def test_info_dicts_reach_the_reward() -> None:
    buffer = make(goals=OnlineGoals(copy_info_dict=True))
    fill(buffer, 10, bonus=True)
    loaded = pickle.loads(pickle.dumps(buffer))
    loaded.set_env(DummyVecEnv([Line]))
    adopted = make(goals=OnlineGoals(copy_info_dict=True))
    stock = HerReplayBuffer(40, SPACE, ACT, DummyVecEnv([Line]), "cpu", copy_info_dict=True)
    fill(stock, 10, bonus=True)
    for each in (buffer, loaded, copy.deepcopy(buffer)):
        assert {round(r, 2) for r in each.sample(300).rewards.tolist()} == {-7, -0.75, 0.25}
    for source in (buffer, stock):
        adopted.adopt(source)
        assert {round(r, 2) for r in adopted.sample(300).rewards.tolist()} == {-7, -0.75, 0.25}
    plain = make()
    fill(plain, 10, bonus=True)
    assert {round(r, 2) for r in plain.sample(300).rewards.tolist()} == {-7, -1, 0}
    with pytest.raises(ValueError, match="copy_info_dict=True need the info dicts of all steps"):
        adopted.adopt(plain)


def test_goals_are_normalised_after_they_are_drawn() -> None:
    buffer = make()
    fill(buffer, 10)
    env = VecNormalize(DummyVecEnv([Line]), norm_reward=False)
    for statistics in env.obs_rms.values():
        statistics.mean, statistics.var = np.array([3.0]), np.array([4.0])
    buffer.generator.manual_seed(1)
    plain = buffer.sample(100).observations
    buffer.generator.manual_seed(1)
    found = buffer.sample(100, env=env).observations
    torch.testing.assert_close(found, ((plain - 3) / 2).clamp(-10, 10), atol=1e-4, rtol=0)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="goal_selection_strategy must be one of future, final, episode, got 'best'"):
        OnlineGoals(goal_selection_strategy="best")
    with pytest.raises(ValueError, match="n_sampled_goal must be at least 0, got -1"):
        OnlineGoals(n_sampled_goal=-1)
    with pytest.raises(ValueError, match="online_goals need observations with the keys 'observation', 'achieved_goal'"):
        TransitionBuffer(10, PLACE, ACT, "cpu", online_goals=OnlineGoals())
    buffer = TransitionBuffer(10, SPACE, ACT, "cpu", online_goals=OnlineGoals())
    fill(buffer, 5)
    with pytest.raises(ValueError, match=r"online_goals need an environment .* call set_env\(env\) first"):
        buffer.sample(10)
    keeping = TransitionBuffer(10, SPACE, ACT, "cpu", online_goals=OnlineGoals(n_sampled_goal=0), seed=0)
    fill(keeping, 5)
    assert (keeping.sample(10).rewards == -7).all()


def test_a_model_reaches_goals_online() -> None:
    goals = {"online_goals": OnlineGoals()}
    options = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "seed": 0, "batch_size": 32}
    model = FQL("MultiInputPolicy", Line(), replay_buffer_kwargs=goals, learning_starts=10, **options)
    model.learn(40)
    batch = model.transitions.sample(200)
    assert float((batch.rewards == 0).float().mean()) > 0.3, "goals that were achieved are frequent"


def test_a_restored_buffer_relabels_goals(tmp_path: Path) -> None:
    options = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "batch_size": 32}
    goals = {"online_goals": OnlineGoals()}
    model = FQL("MultiInputPolicy", Line(), replay_buffer_kwargs=goals, learning_starts=10, **options).learn(20)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.replay_buffer = None
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    model.learn(20, reset_num_timesteps=False)
    assert float((model.transitions.sample(200).rewards == 0).float().mean()) > 0.3
