import json
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text

from flowpolicies.data import space_from_json, space_to_json


@pytest.mark.parametrize(
    "space",
    [
        Box(-1.0, 1.0, (3,), np.float32),
        Box(-np.inf, np.inf, (2, 2), np.float64),
        Box(np.array([0.1, -np.inf], np.float32), np.array([np.inf, 7], np.float32)),
        Box(0, 255, (4, 4, 3), np.uint8),
        Box(-(2**62) - 1, 2**62 + 1, (1,), np.int64),
        Box(0.0, 1.0, (), np.float32),
        gymnasium.spaces.Dict({"image": Box(0, 255, (2, 2, 3), np.uint8), "arm": Box(-1.0, 1.0, (6,), np.float32)}),
        gymnasium.spaces.Dict(velocity=Box(-9.0, 9.0, (3,)), position=Box(-9.0, 9.0, (2,))),
        Discrete(3),
        Discrete(3, start=-1, dtype=np.int32),
        MultiDiscrete([3, 4]),
        MultiDiscrete(np.array([[3, 4], [2, 5]]), start=np.array([[0, 1], [-1, 7]])),
        MultiBinary(4),
        MultiBinary((2, 3)),
    ],
)
def test_space_survives_json(space: gymnasium.Space[Any]) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    restored = space_from_json(json.loads(text))
    assert restored == space
    assert restored.dtype == space.dtype
    assert restored.shape == space.shape
    assert str(restored) == str(space)  # Dicts are equal in any order of their keys.


def test_equal_bounds_are_written_once() -> None:
    assert space_to_json(Box(-np.inf, np.inf, (1000,), np.float32)) == {
        "type": "Box",
        "shape": [1000],
        "dtype": "float32",
        "low": "-inf",
        "high": "inf",
    }


def test_other_spaces_are_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot write Text\(.*\) as JSON: only Box, Discrete,"):
        space_to_json(Text(3))
    with pytest.raises(ValueError, match="cannot read a space of type 'Text'"):
        space_from_json({"type": "Text", "n": 3})
