"""Which spaces hold images, where their channels are, and what data fit them: the rules of Stable-Baselines3."""

import warnings

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space
from stable_baselines3.common import preprocessing

from flowpolicies.policies.aliases import check_policy_alias
from flowpolicies.spaces.layout import (
    channels_first,
    channels_first_space,
    check_space_fits,
    flatten_arrays,
    has_channels_last,
    is_image_space,
    may_be_float_images,
    space_fits,
)

BYTES = [(3, 64, 64), (64, 64, 3), (64, 48, 1), (1, 64, 64), (12, 84, 84), (84, 84, 12), (64, 64, 64), (3, 64, 3)]
FIRST, LAST = Box(0, 255, (3, 16, 20), np.uint8), Box(0, 255, (16, 20, 3), np.uint8)


@pytest.mark.parametrize("shape", BYTES)
def test_channels_are_found_where_stable_baselines3_finds_them(shape: tuple[int, ...]) -> None:
    space = Box(0, 255, shape, np.uint8)
    assert is_image_space(space)
    assert has_channels_last(space) == (not preprocessing.is_image_space_channels_first(space))


@pytest.mark.parametrize(
    "space",
    [
        Box(0, 255, (3, 16, 16), np.uint8),
        Box(0, 1, (3, 16, 16), np.float32),
        Box(0, 255, (3, 16, 16), np.float32),
        Box(0, 254, (3, 16, 16), np.uint8),
        Box(1, 255, (3, 16, 16), np.uint8),
        Box(0, 255, (16, 16), np.uint8),
        Box(0, 255, (2, 3, 16, 16), np.uint8),
        Discrete(3),
        MultiBinary((3, 4, 5)),
    ],
)
def test_images_are_what_stable_baselines3_takes_for_images(space: Space) -> None:
    assert is_image_space(space) == preprocessing.is_image_space(space)


def test_a_deep_stack_of_small_images_is_not_turned() -> None:
    assert not has_channels_last(Box(0, 255, (48, 32, 32), np.uint8))


def test_only_images_with_channels_last_are_turned_and_keys_keep_their_order() -> None:
    assert channels_first_space(LAST) == FIRST
    assert channels_first_space(FIRST) is FIRST
    space = Dict(z=LAST, a=Box(0, 1, (16, 20, 3)), m=Discrete(3))
    turned = channels_first_space(space)
    assert str(turned) == str(Dict(z=FIRST, a=Box(0, 1, (16, 20, 3)), m=Discrete(3)))
    observations = {
        "a": np.zeros((2, 16, 20, 3), np.float32),
        "m": np.zeros(2, int),
        "z": np.zeros((2, 16, 20, 3), np.uint8),
    }
    observations["z"][1, 2, 3, 1] = 7
    found = channels_first(space, observations)
    assert found["z"].shape == (2, 3, 16, 20)
    assert found["z"][1, 1, 2, 3] == 7
    assert found["a"] is observations["a"]


def test_floats_of_the_shape_of_an_image_may_be_images() -> None:
    assert may_be_float_images(Box(-np.inf, np.inf, (3, 16, 16), np.float32))
    assert may_be_float_images(Box(0, 1, (16, 16, 4), np.float64))
    assert not may_be_float_images(FIRST)
    assert not may_be_float_images(Box(0, 1, (3,), np.float32))
    assert not may_be_float_images(Box(0, 1, (16, 16, 16), np.float32))


def test_images_as_floats_do_not_fit_images_as_bytes_also_inside_a_dict() -> None:
    floats = Box(-np.inf, np.inf, (3, 16, 20), np.float32)
    for own, theirs in ((FIRST, floats), (Dict(z=FIRST), Dict(z=floats))):
        with pytest.raises(ValueError, match=r"floats and the model's are bytes.*\(255 \* images\)\.round\(\)"):
            check_space_fits("observation_space", own, theirs)
        assert not space_fits(theirs, own)
    with pytest.raises(ValueError, match=r"channels first: transpose the dataset's, from \[N, H, W, C\]"):
        check_space_fits("observation_space", FIRST, LAST)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_images_as_floats_never_become_bytes_in_silence(scale: float) -> None:
    images = scale * np.random.default_rng(0).random((2, 3, 16, 20))
    with pytest.raises(ValueError, match=r"pixels are integers from 0 to 255, but these are torch"):
        flatten_arrays(FIRST, images)
    whole = np.arange(2 * 3 * 16 * 20).reshape(2, 3, 16, 20)
    with pytest.raises(ValueError, match="observations are images"):
        flatten_arrays(FIRST, whole)
    np.testing.assert_array_equal(flatten_arrays(FIRST, whole % 256), whole.reshape(2, -1) % 256)


def box(low: list[float], high: list[float]) -> Box:
    return Box(np.array(low, np.float32), np.array(high, np.float32))


def test_each_infinite_bound_fits_any_bound() -> None:
    inf = np.inf
    assert space_fits(box([0, -inf], [inf, 1]), box([0, -5], [9, 1]))
    assert not space_fits(box([0, -inf], [inf, 1]), box([1, -5], [9, 1]))
    assert space_fits(Box(0, inf, (2,)), Box(-inf, inf, (2,)))


def test_categories_must_be_the_same_and_may_come_as_plain_numbers() -> None:
    assert space_fits(Discrete(3), Discrete(3))
    assert not space_fits(Discrete(3), Discrete(4))
    assert not space_fits(Discrete(3), Discrete(3, start=1))
    assert space_fits(MultiDiscrete([3, 4]), MultiDiscrete([3, 4]))
    assert not space_fits(MultiDiscrete([3, 4]), MultiDiscrete([4, 3]))
    assert not space_fits(MultiBinary(2), MultiDiscrete([2, 2]))
    for own, shape in ((Discrete(3), ()), (MultiDiscrete([3, 4]), (2,)), (MultiBinary(4), (4,))):
        assert space_fits(own, Box(-np.inf, np.inf, shape))
        assert space_fits(own, Box(0, 255, shape, np.uint8))
        assert not space_fits(own, Box(0, 1, shape))
        assert not space_fits(own, Box(-np.inf, np.inf, (3, *shape)))


@pytest.mark.parametrize("wrong", [-1, 3, 0.5, np.nan])
def test_other_numbers_than_those_of_the_categories_are_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="must be integers from 0 to 2 in element 0, but row 1 has"):
        flatten_arrays(Discrete(3), np.array([0, wrong]))
    with pytest.raises(ValueError, match=r"observations\['m'\] must be integers from 0 to 2 in element 1"):
        flatten_arrays(Dict(m=MultiDiscrete([9, 3])), {"m": np.array([[0, 0], [0, wrong]])})


@pytest.mark.parametrize("name", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy", "FlowPolicy"])
@pytest.mark.parametrize(
    "space", [Box(-1, 1, (3,)), FIRST, Box(0, 1, (3, 16, 16)), Discrete(3), Dict(a=Box(-1, 1, (2,)))], ids=str
)
def test_names_of_policies_are_refused_where_stable_baselines3_refuses_them(name: str, space: Space) -> None:
    is_dict, is_image = isinstance(space, Dict), is_image_space(space)
    suits = {"MlpPolicy": not is_dict, "CnnPolicy": is_image, "MultiInputPolicy": is_dict, "FlowPolicy": True}
    with warnings.catch_warnings():
        if suits[name]:
            check_policy_alias(name, space)
        else:
            with pytest.raises(ValueError, match=name):
                check_policy_alias(name, space)
