import numpy as np
import pytest
from gymnasium.spaces import Box

from flowpolicies.data.dataset.conversion import infer_action_space


def test_guessed_bounds_of_actions_forgive_rounding_and_name_what_leaves_them() -> None:
    actions = np.array([[0.0], [1.0000001], [0.5]], np.float32)
    assert infer_action_space("arm", actions, np.array([0, 1, 1])) == Box(-1, 1, (1,), np.float32)
    actions[2] = -1.1
    with pytest.raises(
        ValueError, match=r"'arm': actions range from -1.1 to 1, .* \(first beyond .* in row 2 \(episode 1, step 0\)\)"
    ):
        infer_action_space("arm", actions, np.array([0, 1, 1]))
