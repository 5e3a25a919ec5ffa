"""Names that users know from SAC and TD3: a missing attribute says what to use instead; a silent batch warns."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from flowpolicies import FQL, RQL


def tiny(**arguments: object) -> FQL:
    return FQL("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8]}, device="cpu", **arguments)


@pytest.mark.parametrize("name", ["actor", "critic", "critic_target"])
def test_attributes_of_sac_say_what_to_use_instead(name: str) -> None:
    model = tiny()
    with pytest.raises(AttributeError, match=r"model\.policy\.networks"):
        getattr(model, name)
    assert not hasattr(model, name)


def test_entropy_is_found_where_the_message_says() -> None:
    with pytest.raises(AttributeError, match="target_entropy_multiplier="):
        _ = tiny().ent_coef
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        _ = tiny().nonsense


@pytest.mark.parametrize(("name", "instead"), [("critic", r"policy\.networks"), ("optimizer", r"torch\.optim\.Adam")])
def test_attributes_of_sb3_policies_say_what_to_use_instead(name: str, instead: str) -> None:
    policy = tiny().policy
    with pytest.raises(AttributeError, match=instead):
        getattr(policy, name)
    assert not hasattr(policy, name)
    assert policy.networks["critic"] is not None


class TwoSteps(gym.Env[np.ndarray, np.ndarray]):
    """An environment with episodes of two steps."""

    observation_space = gym.spaces.Box(-1, 1, (2,))
    action_space = gym.spaces.Box(-1, 1, (1,))
    steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, object] | None = None):  # type: ignore[no-untyped-def]
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray):  # type: ignore[no-untyped-def]
        self.steps += 1
        return np.full(2, 0.3 * self.steps, np.float32), 1.0, self.steps == 2, False, {}


def test_a_batch_that_trains_no_value_warns() -> None:
    arguments: dict[str, object] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "learning_starts": 20}
    with pytest.warns(UserWarning, match="No window of a batch has 5 steps"):
        RQL("MlpPolicy", TwoSteps(), n_steps=5, device="cpu", **arguments).learn(25)
