"""Names that users know from SAC and TD3: a missing attribute says what to use instead; a silent batch warns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, VecTransposeImage

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

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.full(2, 0.3 * self.steps, np.float32), 1.0, self.steps == 2, False, {}


def test_a_batch_that_trains_no_value_warns() -> None:
    arguments: dict[str, object] = {"policy_kwargs": {"net_arch": [8]}, "batch_size": 8, "learning_starts": 20}
    with pytest.warns(UserWarning, match="No window of a batch has 5 steps"):
        RQL("MlpPolicy", TwoSteps(), n_steps=5, device="cpu", **arguments).learn(25)


@pytest.mark.parametrize("given", ["4", "non_sense", 4.0])
def test_train_freq_of_another_type_is_a_value_error(given: object) -> None:
    with pytest.raises(ValueError, match="train_freq must be a number of steps"):
        tiny(train_freq=given)


def test_a_removed_buffer_can_be_loaded(tmp_path: Path) -> None:
    model = tiny(learning_starts=50).learn(20)
    observations = np.array(model.replay_buffer.observations)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    model.replay_buffer = None
    with pytest.raises(TypeError, match="load_replay_buffer makes an empty one first"):
        model.learn(5, reset_num_timesteps=False)
    model.load_replay_buffer(tmp_path / "buffer.pkl")
    np.testing.assert_array_equal(model.replay_buffer.observations, observations)
    model.learn(5, reset_num_timesteps=False)
    assert model.replay_buffer.size() == 25


class Pictures(gym.Env[np.ndarray, np.ndarray]):
    """Random images, alone or in a Dict."""

    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, in_dict: bool) -> None:
        image = gym.spaces.Box(0, 255, (36, 36, 3), np.uint8)
        self.observation_space = gym.spaces.Dict({"image": image}) if in_dict else image

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self.observation_space.sample(), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("policy", "in_dict", "option", "features"),
    [
        ("CnnPolicy", False, "features_dim", "extractor.linear.0"),
        ("MultiInputPolicy", True, "cnn_output_dim", "linear.0"),
    ],
)
def test_options_of_the_policys_own_extractor(policy: str, in_dict: bool, option: str, features: str) -> None:
    kwargs = {"net_arch": [8], "features_extractor_kwargs": {option: 24}}
    model = FQL(policy, Pictures(in_dict), policy_kwargs=kwargs, device="cpu", batch_size=4, learning_starts=5)
    model.learn(8)
    layers = {name: module for name, module in model.policy.networks["critic"].named_modules() if features in name}
    assert layers
    assert all(layer.out_features == 24 for layer in layers.values())
    assert model.predict(model.observation_space.sample())[0].shape == (1,)


class PictureAndVector(Pictures):
    """A random image and a random vector."""

    def __init__(self) -> None:
        super().__init__(in_dict=True)
        vector = gym.spaces.Box(-1, 1, (3,), np.float32)
        self.observation_space = gym.spaces.Dict({**self.observation_space.spaces, "vector": vector})


def test_vectors_beside_images_are_normalised() -> None:
    env = VecNormalize(VecTransposeImage(DummyVecEnv([PictureAndVector])), norm_obs_keys=["vector"])
    kwargs = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
    model = FQL(
        "MultiInputPolicy", env, policy_kwargs=kwargs, device="cpu", batch_size=4, learning_starts=5, buffer_size=50
    )
    model.learn(10)
    stored = model.replay_buffer.observations
    assert stored["image"].dtype == np.uint8
    sampled = model.replay_buffer.sample(4, env).observations
    assert sampled[:, :-3].max() > 1, "pixels must keep their unit"
    assert np.isfinite(sampled.numpy()).all()
