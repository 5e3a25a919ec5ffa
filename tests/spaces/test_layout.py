import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Text

from flowpolicies.spaces.layout import (
    ACTION_MARGIN,
    clip_inside,
    flat_dtype,
    flatten_arrays,
    observation_dim,
    observation_layout,
    scale_actions,
    space_fits,
    unflatten,
)

STATE, IMAGE = Box(-np.inf, np.inf, (3,), np.float32), Box(0, 255, (3, 4, 4), np.uint8)
BOTH = gymnasium.spaces.Dict({"state": STATE, "image": IMAGE})


def test_flat_observations_of_a_dict_space_are_unflattened_again() -> None:
    rng = np.random.default_rng(0)
    observations = {
        "state": rng.normal(size=(5, 3)).astype(np.float32),
        "image": rng.integers(0, 256, (5, 3, 4, 4), np.uint8),
    }
    flat = flatten_arrays(BOTH, observations)
    assert flat.shape == (5, observation_dim(BOTH))
    assert flat.dtype == flat_dtype(BOTH) == torch.float32
    restored = unflatten(BOTH, flat)
    assert isinstance(restored, dict)
    assert sorted(restored) == ["image", "state"]
    for key, array in observations.items():
        np.testing.assert_array_equal(restored[key], array)


def test_images_stay_bytes_and_share_memory() -> None:
    images = np.zeros((2, 3, 4, 4), np.uint8)
    flat = flatten_arrays(IMAGE, images)
    assert flat.dtype == torch.uint8
    images[0, 0, 0, 0] = 7
    assert flat[0, 0] == 7


def test_the_layout_names_keys_and_images() -> None:
    assert {(entry.key, entry.image) for entry in observation_layout(BOTH)} == {("image", True), ("state", False)}
    assert observation_layout(STATE)[0].key is None


@pytest.mark.parametrize("space", [Text(3), gymnasium.spaces.Dict({"state": STATE, "goal": Text(3)})])
def test_other_spaces_have_no_layout(space: gymnasium.Space[object]) -> None:
    with pytest.raises(ValueError, match="observations must be a Box, Discrete, MultiDiscrete, MultiBinary, or a Dict"):
        observation_layout(space)


def test_clipped_actions_keep_a_margin_from_asymmetric_bounds() -> None:
    space = Box(np.array([-1, 0], np.float32), np.array([1, 10], np.float32))
    clipped = clip_inside(np.array([[-2.0, 20.0], [0.5, 5.0]]), space)
    np.testing.assert_allclose(clipped, [[-1 + ACTION_MARGIN, 10 - 5 * ACTION_MARGIN], [0.5, 5]], rtol=1e-7)
    assert np.abs(scale_actions(space, clipped)).max() < 1
    with pytest.raises(ValueError, match=r"cannot be clipped to .* needs a Box with bounds"):
        clip_inside(np.zeros((2, 3)), STATE)


def test_infinite_bounds_fit_any_and_finite_bounds_must_agree() -> None:
    assert space_fits(STATE, Box(-1.0, 1.0, (3,)))
    assert not space_fits(Box(-2.0, 1.0, (3,)), Box(-1.0, 1.0, (3,)))
    assert not space_fits(STATE, Box(-1.0, 1.0, (4,)))
    assert space_fits(BOTH, BOTH)
    assert not space_fits(BOTH, gymnasium.spaces.Dict({"state": STATE}))
