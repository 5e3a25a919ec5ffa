from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch
from corridor import GAMMA, LENGTH, Corridor
from stable_baselines3.common.logger import configure
from tiny import tiny
from torch.testing import assert_close

from flowpolicies.algorithms import BC, FQL
from flowpolicies.data import TransitionDataset
from flowpolicies.diagnostics.scores import ScoreCallback, critics_of, fitted_q_evaluation, initial_value, td_error

FAST: dict[str, Any] = {"hidden_dims": (64, 64), "learning_rate": 3e-3, "tau": 0.2, "batch_size": 64, "device": "cpu"}


class Steps:
    """A policy that always walks the same distance."""

    def __init__(self, size: float) -> None:
        self.size = size

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        return np.full((len(observation), 1), self.size, np.float32), None


def returned(size: float) -> float:
    """Discounted return of walking on in steps of this size from 0.05."""
    steps = int(np.ceil((LENGTH - 0.05) / size))
    return -(1 - GAMMA ** (steps - 1)) / (1 - GAMMA)


@pytest.fixture(scope="module")
def corridor_rows() -> TransitionDataset:
    """Single steps of all sizes from everywhere; each episode of up to ten of them begins at 0.05."""
    rng, n = np.random.default_rng(0), 1500
    x, a = rng.uniform(0, LENGTH, (n, 1)), rng.uniform(-1, 1, (n, 1))
    for i in range(n):
        if i == 0 or i % 10 == 9 or x[i - 1, 0] + a[i - 1, 0] >= LENGTH:
            x[i] = 0.05
    arrived = (x + a)[:, 0] >= LENGTH
    return TransitionDataset.from_arrays(
        x.astype(np.float32),
        a.astype(np.float32),
        -1.0 + arrived,
        (x + a).astype(np.float32),
        terminations=arrived,
        truncations=(np.arange(n) % 10 == 8) & ~arrived,
        observation_space=Corridor.observation_space,
        action_space=Corridor.action_space,
    )


@pytest.fixture(scope="module")
def sac() -> stable_baselines3.SAC:
    return stable_baselines3.SAC("MlpPolicy", gym.make("Pendulum-v1"), learning_starts=10, seed=0, device="cpu")


def test_fitted_q_evaluation_ranks_policies_and_finds_their_returns(corridor_rows: TransitionDataset) -> None:
    slow, fast = (
        fitted_q_evaluation(Steps(size), corridor_rows, gamma=GAMMA, updates=1000, **FAST) for size in (0.2, 1.0)
    )
    assert (slow.problem, fast.problem) == ("", "")
    assert fast.initial_value == pytest.approx(returned(1.0), abs=0.6)
    assert slow.initial_value == pytest.approx(returned(0.2), abs=0.6)
    assert fast.initial_value > slow.initial_value + 0.3
    near_goal = fast(np.array([[19.5]], np.float32), np.array([[1.0]], np.float32))
    assert near_goal.shape == (2, 1)
    assert near_goal.mean() > fast.initial_value + 3


def test_values_that_diverge_are_flagged(corridor_rows: TransitionDataset) -> None:
    options = {**FAST, "learning_rate": 30.0, "tau": 1.0}
    found = fitted_q_evaluation(Steps(1.0), corridor_rows, gamma=0.999, updates=60, **options)
    assert found.diverged
    assert "returns can be between" in found.problem or "not finite" in found.problem


def test_a_model_of_any_kind_is_left_as_it_was(data: Any, sac: stable_baselines3.SAC) -> None:
    torch.manual_seed(3)
    for model in (tiny(BC, dataset=data, horizon=3), sac):
        before, states = torch.get_rng_state(), np.random.get_state()[1].copy()
        generator = getattr(model.policy, "generator", None)
        drawn = None if generator is None else generator.get_state()
        one, two = (fitted_q_evaluation(model, data, updates=2, rows=50, **FAST) for _ in range(2))
        assert one.initial_value == two.initial_value
        assert torch.equal(before, torch.get_rng_state())
        assert (states == np.random.get_state()[1]).all()
        if drawn is not None:
            assert torch.equal(drawn, model.policy.generator.get_state())


def test_scores_by_own_critics(data: Any, sac: stable_baselines3.SAC) -> None:
    ours = tiny(FQL, dataset=data)
    for model in (ours, sac):
        critics, observations = critics_of(model), data.observations[:5]
        actions = model.predict(observations, deterministic=True)[0]
        values = critics(observations, actions)
        assert values.shape == (2, 5)
        assert np.isfinite(initial_value(model, data))
        assert td_error(model, data, rows=50) > 0
    flat = torch.as_tensor(data.observations[:5])
    own = ours.policy.networks["critic"](flat, torch.as_tensor(data.actions[:5]) / 2)  # Pendulum's bounds are -2 and 2.
    np.testing.assert_allclose(critics_of(ours)(data.observations[:5], data.actions[:5]), own.detach(), rtol=1e-5)
    theirs = torch.stack(sac.critic(flat, torch.as_tensor(data.actions[:5]) / 2)).squeeze(-1)
    np.testing.assert_allclose(critics_of(sac)(data.observations[:5], data.actions[:5]), theirs.detach(), rtol=1e-5)


def test_td_error_is_that_of_the_equation(data: Any) -> None:
    def zero(observations: Any, actions: Any) -> Any:
        return np.zeros((2, len(actions)))

    assert td_error(Steps(1.0), data, zero) == pytest.approx(float(np.square(data.rewards).mean()), rel=1e-6)

    def one(observations: Any, actions: Any) -> Any:
        return np.ones((2, len(actions)))

    expected = np.square(1 - data.rewards - 0.5 * data.masks).mean()
    assert td_error(Steps(1.0), data, one, gamma=0.5) == pytest.approx(float(expected), rel=1e-6)
    assert initial_value(Steps(1.0), data, one) == 1


def test_without_critics_the_error_says_what_to_do(data: Any) -> None:
    with pytest.raises(ValueError, match=r"no critics of actions.*fitted_q_evaluation"):
        critics_of(Steps(1.0))
    with pytest.raises(ValueError, match=r"BC learns no values of actions\. Fit them"):
        critics_of(tiny(BC, dataset=data))
    with pytest.raises(ValueError, match="value chunks of 3 actions"):
        critics_of(tiny(FQL, dataset=data, horizon=3))
    with pytest.raises(TypeError, match="predict"):
        fitted_q_evaluation(object(), data)


@pytest.mark.parametrize("fit", [True, False])
def test_the_callback_scores_sac_of_stable_baselines3(data: Any, tmp_path: Any, fit: bool) -> None:
    options = {"updates": 3, "rows": 50, **FAST} if fit else {"rows": 50}
    trained = []
    for name, callback in (("plain", None), ("scored", ScoreCallback(data, every=10, fit=fit, **options))):
        model = stable_baselines3.SAC("MlpPolicy", gym.make("Pendulum-v1"), learning_starts=5, seed=0, device="cpu")
        model.set_logger(configure(str(tmp_path / name), ["csv"]))
        trained.append(model.learn(20, callback=callback))
        model.logger.dump(20)
    assert_close(*(dict(model.policy.state_dict()) for model in trained), rtol=0, atol=0)
    header, *rows = (tmp_path / "scored" / "progress.csv").read_text().splitlines()
    names = header.split(",")
    assert {"score/initial_value", "score/td_error"} <= set(names)
    assert ("score/diverged" in names) == fit
    assert np.isfinite(float(rows[-1].split(",")[names.index("score/initial_value")]))


def test_the_callback_works_offline(data: Any, tmp_path: Any) -> None:
    model = tiny(BC, dataset=data)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn_offline(4, callback=ScoreCallback(data, every=2, updates=2, rows=50, **FAST), log_interval=3)
    assert "score/initial_value" in (tmp_path / "progress.csv").read_text()
