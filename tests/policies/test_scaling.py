"""Observations scaled by what a dataset measures: in the networks, in files, online, and apart from images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecNormalize

from flowpolicies import FQL, QFlow, TransitionDataset
from flowpolicies.data.dataset.scaling import fit_scaling
from flowpolicies.policies import FlowPolicy

SMALL: dict[str, Any] = {
    "actor_hidden_dims": (16,),
    "value_hidden_dims": (16,),
    "batch_size": 16,
    "flow_steps": 2,
    "seed": 0,
}


class Halved(BaseFeaturesExtractor):
    """Half of each number."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, observation_space.shape[0])

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        return observations / 2


def dataset(observations: Any, space: spaces.Space[Any] | None = None) -> TransitionDataset:
    n = len(next(iter(observations.values())) if isinstance(observations, dict) else observations)
    rng = np.random.default_rng(1)
    return TransitionDataset.from_arrays(
        observations,
        rng.uniform(-1, 1, (n, 1)).astype(np.float32),
        rng.normal(size=n),
        observations,
        terminations=np.arange(n) % 20 == 19,
        observation_space=space,
        action_space=spaces.Box(-1, 1, (1,), np.float32),
    )


@pytest.fixture
def places() -> np.ndarray:
    """Observations far from 0, of different sizes, and one number that never changes."""
    rng = np.random.default_rng(0)
    return (rng.normal(size=(200, 3)) * [4, 0.01, 0] + [100, -3, 7]).astype(np.float32)


def seen(policy: FlowPolicy, observations: np.ndarray) -> np.ndarray:
    return policy.networks["critic"].encoder(torch.from_numpy(observations)).numpy()  # type: ignore[operator,union-attr]


def test_standard_observations_have_mean_0_and_deviation_1_and_gain_multiplies_them(places: np.ndarray) -> None:
    for gain in (1.0, 5.0):
        model = QFlow(
            dataset=dataset(places), observation_scaling="standard", observation_gain=gain, **SMALL
        ).learn_offline(2)
        found = seen(model.policy, places)
        np.testing.assert_allclose(found.mean(0), 0, atol=1e-3 * gain)
        np.testing.assert_allclose(found.std(0), [gain, gain, 0], rtol=1e-3, atol=1e-6)


def test_min_max_observations_fill_the_range(places: np.ndarray) -> None:
    model = FQL(dataset=dataset(places), observation_scaling="min_max", observation_gain=2.0, **SMALL)
    found = seen(model.policy, places)
    np.testing.assert_allclose(found.min(0), [-2, -2, 0], atol=1e-3)
    np.testing.assert_allclose(found.max(0), [2, 2, 0], atol=1e-3)


def test_large_datasets_are_measured_in_blocks(places: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_scaling(dataset(places), "standard")
    monkeypatch.setattr("flowpolicies.data.dataset.scaling.ROWS", 7)
    np.testing.assert_allclose(fit_scaling(dataset(places), "standard"), whole, rtol=1e-5)


def test_each_row_is_read_once(places: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    class Column(np.ndarray):  # As one in a file.
        def __getitem__(self, key: Any) -> Any:
            read.extend(range(len(self))[key])
            return np.asarray(self)[key]

    monkeypatch.setattr("flowpolicies.data.dataset.scaling.ROWS", 7)
    monkeypatch.setattr("flowpolicies.data.dataset.scaling.leaf_at", lambda *_: places.view(Column))
    center, factor = fit_scaling(dataset(places), "standard", 2.0)
    assert read == list(range(len(places)))
    np.testing.assert_allclose(center, places.mean(0), rtol=1e-5)
    np.testing.assert_allclose(factor[:2], 2 / places.std(0)[:2], rtol=1e-5)


def test_training_equals_training_on_data_that_were_scaled_by_hand(places: np.ndarray) -> None:
    center, factor = fit_scaling(dataset(places), "standard")
    ours = QFlow(dataset=dataset(places), observation_scaling="standard", **SMALL).learn_offline(20)
    by_hand = (places - center) * factor
    plain = QFlow(dataset=dataset(by_hand), **SMALL).learn_offline(20)
    for (name, a), (_, b) in zip(
        ours.policy.networks.named_parameters(), plain.policy.networks.named_parameters(), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    np.testing.assert_allclose(
        ours.predict(places[:5], deterministic=True)[0], plain.predict(by_hand[:5], deterministic=True)[0], atol=1e-5
    )


def test_target_networks_see_the_same(places: np.ndarray) -> None:
    policy = QFlow(dataset=dataset(places), observation_scaling="standard", **SMALL).policy
    for name, target in policy.targets.items():
        torch.testing.assert_close(target.encoder.numbers[0].center, torch.tensor(places.mean(0)))  # type: ignore[union-attr]
        assert target.encoder.numbers[0].center is not policy.networks[name].encoder.numbers[0].center  # type: ignore[union-attr]


def test_files_of_models_and_policies_hold_the_scaling(places: np.ndarray, tmp_path: Path) -> None:
    model = QFlow(dataset=dataset(places), observation_scaling="standard", **SMALL).learn_offline(3)
    model.save(tmp_path / "model")
    model.policy.save(tmp_path / "policy.safetensors")
    expected = model.predict(places[:5], deterministic=True)[0]
    for loaded in (QFlow.load(tmp_path / "model"), FlowPolicy.load(tmp_path / "policy.safetensors")):
        np.testing.assert_array_equal(loaded.predict(places[:5], deterministic=True)[0], expected)
    again = QFlow.load(tmp_path / "model", dataset=dataset(places * 2))
    np.testing.assert_array_equal(again.predict(places[:5], deterministic=True)[0], expected)
    assert again.learn_offline(1).observation_scaling == "standard"


def test_images_and_categories_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (3, 8, 8), np.uint8),
            "place": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "room": spaces.Discrete(3),
            "speed": spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
    )
    observations = {
        "camera": rng.integers(0, 255, (40, 3, 8, 8), dtype=np.uint8),
        "place": rng.normal(5, 2, (40, 2)).astype(np.float32),
        "room": rng.integers(0, 3, 40),
        "speed": rng.normal(-9, 3, (40, 1)).astype(np.float32),
    }
    model = FQL(
        dataset=dataset(observations, space), observation_scaling="standard", encoder="impala_debug", **SMALL
    ).learn_offline(2)
    flat = model.transitions.sample(16).observations
    found = model.policy.networks["critic"].encoder(flat).detach().numpy()  # type: ignore[operator,union-attr]
    place, room, speed = found[:, -6:-4], found[:, -4:-1], found[:, -1]
    assert np.abs(place).max() < 5
    assert np.abs(speed).max() < 5
    np.testing.assert_array_equal(room.sum(1), 1)
    center, factor = fit_scaling(dataset(observations, space), "standard")
    np.testing.assert_allclose(center[:2], observations["place"].mean(0), rtol=1e-4)
    np.testing.assert_allclose(factor[2] * observations["speed"].std(), 1, rtol=1e-4)


def test_fine_tuning_online_keeps_the_scaling_of_the_dataset() -> None:
    env = gym.make("Pendulum-v1")
    rng = np.random.default_rng(0)
    data = TransitionDataset.from_arrays(
        rng.normal(3, 2, (60, 3)).astype(np.float32),
        rng.uniform(-2, 2, (60, 1)).astype(np.float32),
        rng.normal(size=60),
        rng.normal(3, 2, (60, 3)).astype(np.float32),
        terminations=np.arange(60) % 20 == 19,
        action_space=env.action_space,
    )
    model = QFlow("FlowPolicy", env, dataset=data, observation_scaling="standard", learning_starts=5, **SMALL)
    before = seen(model.policy, data.observations)
    model.learn(20)
    np.testing.assert_array_equal(seen(model.policy, data.observations), before)


def test_without_a_dataset_the_error_names_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"pass dataset= to QFlow.*VecNormalize"):
        QFlow("FlowPolicy", "Pendulum-v1", observation_scaling="standard", **SMALL)


def test_observations_are_not_scaled_twice(places: np.ndarray) -> None:
    env = VecNormalize(make_vec_env("Pendulum-v1"))
    data = dataset(places, spaces.Box(-np.array([1, 1, 8], np.float32), np.array([1, 1, 8], np.float32)))
    with pytest.raises(ValueError, match="norm_obs=False"):
        QFlow("FlowPolicy", env, dataset=data, observation_scaling="standard", **SMALL)


def test_scaling_cannot_be_changed_in_an_existing_model(places: np.ndarray) -> None:
    model = QFlow(dataset=dataset(places), **SMALL)
    with pytest.raises(ValueError, match="observation_scaling cannot be changed"):
        model.observation_scaling = "standard"
    with pytest.raises(ValueError, match="scaled=True"):
        model.policy.set_scaling(np.zeros(3), np.ones(3))


def test_a_feature_extractor_scales_by_itself(places: np.ndarray) -> None:
    with pytest.raises(ValueError, match="scale observations in the feature extractor"):
        QFlow(
            dataset=dataset(places),
            observation_scaling="standard",
            policy_kwargs={"features_extractor_class": Halved},
            **SMALL,
        )
