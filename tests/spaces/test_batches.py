"""What counts as one observation, what as a batch, and what is refused."""

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space

from flowpolicies.spaces.batches import as_batch

IMAGE = Box(0, 255, (3, 16, 20), np.uint8)


@pytest.mark.parametrize(
    ("space", "one"),
    [
        (Box(-1, 1, (3,)), np.zeros(3)),
        (Box(-1, 1, ()), np.float32(0)),
        (Discrete(3), 2),
        (Discrete(3), np.int64(2)),
        (Discrete(3), np.array(2)),
        (MultiDiscrete([3, 4]), np.array([0, 1])),
        (MultiDiscrete(np.array([[3, 4], [2, 2]])), np.zeros((2, 2), int)),
        (MultiBinary(4), np.zeros(4, np.int8)),
        (IMAGE, np.zeros((3, 16, 20), np.uint8)),
        (IMAGE, np.zeros((16, 20, 3), np.uint8)),
    ],
    ids=str,
)
def test_one_observation_and_a_batch(space: Space, one: Any) -> None:
    batch, is_batch = as_batch(space, one)
    assert batch.shape == (1, *space.shape)
    assert not is_batch
    batch, is_batch = as_batch(space, np.stack([one] * 5))
    assert batch.shape == (5, *space.shape)
    assert is_batch


def test_lists_are_numbers_and_images_are_turned() -> None:
    batch, is_batch = as_batch(Box(-1, 1, (3,)), [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(batch, [[0, 1, 2], [3, 4, 5]])
    assert is_batch
    pixels = np.zeros((16, 20, 3), np.uint8)
    pixels[2, 3, 1] = 9
    assert as_batch(IMAGE, pixels)[0][0, 1, 2, 3] == 9


@pytest.mark.parametrize(
    ("space", "wrong", "words"),
    [
        (Box(-1, 1, (3,)), np.zeros(4), r"has the shape \(4,\), but one observation has the shape \(3,\) .*\(N, 3\)"),
        (Box(-1, 1, (3,)), np.zeros((2, 2, 3)), "has the shape"),
        (Box(-1, 1, (3,)), {"a": np.zeros(3)}, r"has the keys \['a'\]"),
        (Box(-1, 1, (1,)), ["x"], "must hold numbers"),
        (Discrete(3), np.zeros((2, 3)), "has the shape"),
        (MultiDiscrete([3, 4]), np.zeros(3), "has the shape"),
        (Dict(a=Box(-1, 1, (2,))), np.zeros(2), r"must be a dict with the keys \['a'\], got ndarray"),
        (Dict(a=Box(-1, 1, (2,))), {"b": np.zeros(2)}, r"must be a dict with the keys \['a'\], got \['b'\]"),
        (Dict(a=Box(-1, 1, (2,))), {"a": np.zeros(2), "b": 0}, r"got \['a', 'b'\]"),
    ],
)
def test_everything_else_is_refused(space: Space, wrong: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        as_batch(space, wrong)


@pytest.mark.parametrize("sizes", [((), (5,)), ((5,), (4,)), ((), (1,))])
def test_values_of_a_dict_hold_equally_many_observations(sizes: tuple[tuple[int, ...], ...]) -> None:
    observation = {key: np.zeros((*size, 2)) for key, size in zip("ab", sizes, strict=True)}
    with pytest.raises(ValueError, match="different numbers of observations"):
        as_batch(Dict(a=Box(-1, 1, (2,)), b=Box(-1, 1, (2,))), observation)
