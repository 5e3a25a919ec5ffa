"""FlowPolicy as a policy of Stable-Baselines3: every public method that it inherits works, or says what to do."""

from __future__ import annotations

import copy
import io
import multiprocessing
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from tiny import tiny

from flowpolicies import FQL, FlowPolicy
from flowpolicies.core import Network
from flowpolicies.data import TransitionDataset
from flowpolicies.networks import Critic, VelocityField
from flowpolicies.samplers import Integrate

STATE = spaces.Box(-np.inf, np.inf, (3,))
ACTION = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 10], np.float32))
IMAGE = spaces.Box(0, 255, (3, 16, 16), np.uint8)
COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda policy: pickle.loads(pickle.dumps(policy)),
    "torch.save": lambda policy: _through_torch(policy),
}


def _through_torch(policy: FlowPolicy) -> FlowPolicy:
    file = io.BytesIO()
    torch.save(policy, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def make(space: spaces.Space = STATE, **options: Any) -> FlowPolicy:
    torch.manual_seed(0)
    networks = {
        "critic": Network(partial(Critic, hidden_dims=(16,)), target_rate=0.005),
        "actor_flow": Network(partial(VelocityField, hidden_dims=(16,))),
    }
    defaults: dict[str, Any] = {"networks": networks, "sampler": Integrate(), "seed": 0, "encoder": "impala_debug"}
    return FlowPolicy(space, ACTION, **{**defaults, **options})


def states(n: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 3)).astype(np.float32)


def test_a_file_object_holds_what_a_file_holds(tmp_path: Path) -> None:
    policy, file = make(), io.BytesIO()
    policy.save(file)
    policy.save(tmp_path / "p")
    assert file.getvalue() == (tmp_path / "p").read_bytes()
    file.seek(0)
    loaded = FlowPolicy.load(file, device="cpu")
    np.testing.assert_array_equal(*(p.predict(states(), deterministic=True)[0] for p in (policy, loaded)))
    with open(tmp_path / "q", "wb") as opened:
        policy.save(opened)
    with open(tmp_path / "q", "rb") as opened:
        assert FlowPolicy.load(opened, device="cpu").observation_space == STATE


def test_file_objects_that_hold_no_policy_are_refused() -> None:
    file = io.BytesIO()
    make().save(file)
    with pytest.raises(ValueError, match=r"has no bytes left to read. Call its seek\(0\)"):
        FlowPolicy.load(file)
    with pytest.raises(ValueError, match=r"the file object .* is not a policy file"):
        FlowPolicy.load(io.BytesIO(b"PK\x03\x04 something else"))


def test_hand_written_pretraining_trains_and_the_learner_continues() -> None:
    n = 64
    rng = np.random.default_rng(0)
    data = TransitionDataset.from_arrays(
        rng.normal(size=(n, 3)),
        rng.uniform(-1, 1, (n, 1)),
        rng.normal(size=n),
        rng.normal(size=(n, 3)),
        terminations=np.ones(n),
    )
    model = tiny(FQL, dataset=data)
    before, observations = model.predict(states(), deterministic=True)[0], torch.as_tensor(states())
    optimizer = torch.optim.Adam(model.policy.parameters(), lr=1e-2)
    zeros, losses = torch.zeros(4, 1), []
    for _ in range(50):
        loss = (model.policy.view().actor_onestep(observations, zeros) - 0.9).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
    after = model.predict(states(), deterministic=True)[0]
    np.testing.assert_allclose(after, 0.9, atol=0.2)
    assert not np.allclose(before, after)
    started = {key: value.clone() for key, value in model.policy.networks.state_dict().items()}
    model.learn_offline(1)
    moved = max((value - started[key]).abs().max() for key, value in model.policy.networks.state_dict().items())
    assert 0 < moved < 0.01  # One update from the pretrained weights.


@pytest.mark.parametrize("requires_grad", [True, False])
def test_updates_do_not_depend_on_who_wants_gradients(requires_grad: bool, data: TransitionDataset) -> None:
    model, plain = tiny(FQL, dataset=data), tiny(FQL, dataset=data)
    model.policy.requires_grad_(requires_grad)
    model.learn_offline(2)
    plain.learn_offline(2)
    for mine, other in zip(model.policy.state_dict().values(), plain.policy.state_dict().values(), strict=True):
        assert torch.equal(mine, other)
    assert all(parameter.grad is None for parameter in model.policy.parameters())


def test_acting_builds_no_graph() -> None:
    policy = make()
    assert any(parameter.requires_grad for parameter in policy.parameters())
    assert not any(parameter.requires_grad for parameter in policy.targets.parameters())
    tensor, _ = policy.obs_to_tensor(states())
    assert not policy(tensor).requires_grad
    assert not policy._predict(tensor).requires_grad


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("way", COPIES)
def test_a_copy_acts_the_same_and_shares_nothing(way: str, horizon: int) -> None:
    policy = make(horizon=horizon)
    policy.predict(states())  # The copy continues where the generator is.
    found = COPIES[way](policy)
    expected = [policy.predict(states())[0] for _ in range(2)]
    np.testing.assert_array_equal([found.predict(states())[0] for _ in range(2)], expected)
    assert found.generator is not policy.generator
    before = policy.parameters_to_vector()
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
    np.testing.assert_array_equal(policy.parameters_to_vector(), before)


def test_drawing_from_a_copy_does_not_move_its_original() -> None:
    policy = make()
    state = policy.generator.get_state()
    copy.deepcopy(policy).predict(states())
    assert torch.equal(policy.generator.get_state(), state)


@pytest.mark.slow
def test_a_policy_acts_the_same_in_a_spawned_process() -> None:
    policy = make()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.apply(FlowPolicy.predict, (policy, states()))[0]
    np.testing.assert_array_equal(found, policy.predict(states())[0])


def test_one_flag_for_each_observation() -> None:
    policy = make(horizon=3)
    _, state = policy.predict(states())
    with pytest.raises(ValueError, match="episode_start has 1 flags for 4 observations"):
        policy.predict(states(), state, np.array([True]))
    _, state = policy.predict(states()[0])
    policy.predict(states()[0], state, np.array([True]))
    policy.predict(states()[0], state, True)
    with pytest.raises(ValueError, match="state holds chunks"):
        policy.predict(states()[0], (state[0], np.array([1, 1])))


def test_observations_become_tensors_as_in_stable_baselines3() -> None:
    space = spaces.Dict(image=IMAGE, state=STATE)
    policy = make(space)
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 16, 16), np.uint8)
    batch = {"image": images.transpose(0, 2, 3, 1), "state": states()}
    mine, is_batch = policy.obs_to_tensor(batch)
    theirs, _ = BasePolicy.obs_to_tensor(policy, batch)
    assert is_batch
    assert policy.is_vectorized_observation(batch)
    for key, tensor in theirs.items():
        assert torch.equal(mine[key], tensor)
    one = {key: value[0] for key, value in batch.items()}
    assert not policy.is_vectorized_observation(one)
    assert policy.obs_to_tensor(one)[0]["image"].shape == (1, 3, 16, 16)
    np.testing.assert_allclose(
        policy.predict(one, deterministic=True)[0], policy.predict(batch, deterministic=True)[0][0], rtol=1e-5
    )


def test_images_may_have_their_channels_last_and_must_be_bytes() -> None:
    policy = make(IMAGE)
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    expected = policy.predict(image, deterministic=True)[0]
    np.testing.assert_array_equal(policy.predict(image.transpose(1, 2, 0), deterministic=True)[0], expected)
    np.testing.assert_array_equal(policy.predict(image.astype(int), deterministic=True)[0], expected)
    with pytest.raises(ValueError, match="pixels are integers from 0 to 255, but these are"):
        policy.predict(image.astype(np.float32) / 255)
    with pytest.raises(ValueError, match="pixels are integers"):
        make(spaces.Dict(image=IMAGE, state=STATE)).predict({"image": image / 255, "state": states()[0]})


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Dict(a=spaces.Box(0, 255, (16, 16, 1), np.uint8))]
)
def test_a_space_with_channels_last_is_refused(space: spaces.Space) -> None:
    with pytest.raises(ValueError, match=r"channels first, but the observations are .*VecTransposeImage"):
        make(space)


def test_scaling_of_actions_and_other_inherited_methods() -> None:
    policy = make()
    scaled = np.array([[-1.0, 1.0], [0.0, 0.5]], np.float32)
    np.testing.assert_allclose(policy.unscale_action(scaled), [[-2, 10], [0, 7.5]])
    np.testing.assert_allclose(policy.scale_action(policy.unscale_action(scaled)), scaled)
    assert policy.squash_output
    assert policy.device == torch.device("cpu")
    assert policy.to("cpu") is policy
    policy.set_training_mode(True)
    assert policy.training
    policy.predict(states())
    assert not policy.training  # As in Stable-Baselines3.
    twin = FlowPolicy(**policy._get_constructor_parameters())
    twin.load_state_dict(policy.state_dict())
    np.testing.assert_array_equal(*(p.predict(states(), deterministic=True)[0] for p in (policy, twin)))


def test_weights_as_a_vector(data: TransitionDataset) -> None:
    model = tiny(FQL, dataset=data)
    vector = model.policy.parameters_to_vector()
    model.policy.load_from_vector(0 * vector)
    assert not model.policy.parameters_to_vector().any()
    model.policy.load_from_vector(vector)
    model.learn_offline(2)
    plain = tiny(FQL, dataset=data).learn_offline(2)
    np.testing.assert_array_equal(model.policy.parameters_to_vector(), plain.policy.parameters_to_vector())


def test_the_missing_features_extractor_is_explained() -> None:
    for call in (lambda: make().extract_features(states()), make().make_features_extractor):
        with pytest.raises(NotImplementedError, match="has no features extractor: each network encodes"):
            call()
