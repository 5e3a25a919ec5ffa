from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box

from flowpolicies.data import TransitionDataset
from flowpolicies.data.dataset.episodes import pair_rows


def make_episode(number: int, steps: int, **changes: Any) -> dict[str, Any]:
    """Observation t of episode n is 100 n + t, its action n / 10 + t / 100, its reward 100 n + t."""
    times = np.arange(steps + 1)
    return {
        "observations": 100.0 * number + times[:, None],
        "actions": number / 10 + times[:-1, None] / 100,
        "rewards": 100 * number + times[:-1],
        "terminations": number == 1,
    } | changes


def test_pairs_of_a_table_by_hand() -> None:
    """Three trajectories: 0-2 is cut, 3-4 terminates, 5 is cut and has nothing else."""
    ends, terminated = np.array([0, 0, 1, 0, 1, 1], bool), np.array([0, 0, 0, 0, 1, 0], bool)
    pairs = pair_rows(ends, terminated)
    np.testing.assert_array_equal(pairs.rows, [0, 1, 3, 4])
    np.testing.assert_array_equal(pairs.next_rows, [1, 2, 4, 4])
    np.testing.assert_array_equal(pairs.terminals, [0, 1, 0, 1])


def test_observations_never_drift_against_actions() -> None:
    """Three episodes of four steps: a drift of a step per episode, as other loaders have, would show in the second."""
    dataset = TransitionDataset.from_episodes(make_episode(number, 4) for number in range(3))
    expected = np.concatenate([100.0 * number + np.arange(4) for number in range(3)])
    assert isinstance(dataset.observations, np.ndarray)
    assert isinstance(dataset.next_observations, np.ndarray)
    np.testing.assert_array_equal(dataset.observations[:, 0], expected)
    np.testing.assert_array_equal(dataset.next_observations[:, 0], expected + 1)
    np.testing.assert_array_equal(dataset.rewards, expected)
    np.testing.assert_allclose(dataset.actions[:, 0], expected // 100 / 10 + expected % 100 / 100, rtol=1e-6)
    np.testing.assert_array_equal(dataset.masks, [1, 1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 0, 1] * 3)
    assert dataset.name == "episodes"


def test_flags_per_step_masks_and_spaces() -> None:
    space = Box(-2.0, 2.0, (1,), np.float32)
    dataset = TransitionDataset.from_episodes(
        [
            make_episode(0, 2, terminations=[False, True], truncations=[False, False]),
            make_episode(1, 3, masks=[1, 0, 1]),
        ],
        action_space=space,
        name="arm",
        provenance={"by": "hand"},
    )
    np.testing.assert_array_equal(dataset.masks, [1, 0, 1, 0, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 1, 0, 0, 1])
    assert dataset.action_space == space
    assert dataset.provenance == {"name": "arm", "by": "hand"}


def test_dict_observations_and_images() -> None:
    image = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    observations = {"image": image, "state": np.arange(4.0)[:, None]}
    dataset = TransitionDataset.from_episodes([make_episode(0, 3, observations=observations)] * 2)
    assert isinstance(dataset.observations, dict)
    assert isinstance(dataset.next_observations, dict)
    np.testing.assert_array_equal(dataset.observations["image"], np.concatenate([image[:-1]] * 2))
    np.testing.assert_array_equal(dataset.next_observations["state"][:, 0], [1, 2, 3] * 2)
    assert dataset.observations["image"].dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"observations": np.zeros((3, 1))},
            r"has 3 observations for 3 actions; the observation after the last action",
        ),
        ({"observations": np.zeros((6, 1))}, r"has 6 observations for 3 actions, expected 4\."),
        (
            {"observations": np.zeros((4, 2))},
            r"observations have shape \(2,\) per step, those of episode 0 have \(1,\)",
        ),
        (
            {"observations": {"state": np.zeros((4, 1))}},
            r"has \['observations/state'\], episode 0 has \['observations'\]",
        ),
        ({"observations": [["a"], ["b"]]}, r"observations are <U1, not numbers\. Convert them"),
        ({"observations": [[1], [1, 2]]}, r"observations differ in shape from row to row \(.*inhomogeneous"),
        ({"actions": np.zeros((3, 2))}, r"actions have shape \(2,\) per step, those of episode 0 have \(1,\)"),
        ({"actions": np.zeros((0, 1))}, r"has no steps\. Leave it out"),
        ({"rewards": np.zeros((3, 1))}, r"rewards have shape \(3, 1\), expected \(3,\), one for each action"),
        ({"terminations": [0, 1, 0]}, r"has a true 'terminations' at step 1 of 3, but continues\. Split it there; or"),
        ({"truncations": [1, 0, 0]}, r"has a true 'truncations' at step 0 of 3"),
        ({"terminations": [0, 1]}, r"terminations have shape \(2,\), expected \(3,\), or one for the episode"),
        ({"masks": [1]}, r"masks have shape \(1,\), expected \(3,\)"),
    ],
)
def test_wrong_episodes_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"dataset 'arm': episode 1:? " + message):
        TransitionDataset.from_episodes([make_episode(0, 3), make_episode(1, 3, **changes)], name="arm")


def test_what_the_dataset_finds_names_episode_and_step() -> None:
    episodes = [make_episode(0, 3), make_episode(1, 3, actions=[[0], [np.nan], [0]])]
    with pytest.raises(ValueError, match=r"actions hold 1 values .* first in row 4 \(episode 1, step 1\)"):
        TransitionDataset.from_episodes(episodes)
    episodes[1]["actions"] = [[0], [0], [2.0]]
    with pytest.raises(ValueError, match=r"cannot be guessed \(first beyond .* in row 5 \(episode 1, step 2\)\)"):
        TransitionDataset.from_episodes(episodes)
    with pytest.raises(ValueError, match=r"1 of 6 actions lie outside .* first in row 5 \(episode 1, step 2\)\)"):
        TransitionDataset.from_episodes(episodes, action_space=Box(-1, 1, (1,)))


def test_missing_fields_and_episodes() -> None:
    episode = make_episode(0, 2)
    episode["termination"] = episode.pop("terminations")
    message = r"episode 0 has no 'terminations' \(it holds .*\)\. Did you mean 'termination'\?"
    with pytest.raises(ValueError, match=message):
        TransitionDataset.from_episodes([episode])
    episode = make_episode(0, 2)
    del episode["terminations"]
    with pytest.raises(ValueError, match=r"episode 0 has no 'terminations' \(it holds .*\)\.$"):
        TransitionDataset.from_episodes([episode])
    with pytest.raises(ValueError, match=r"episode 0 has no 'terminations' .*\. Did you mean 'terminated'\?"):
        TransitionDataset.from_episodes([episode | {"terminated": True}])
    with pytest.raises(ValueError, match=r"dataset 'episodes': there is no episode"):
        TransitionDataset.from_episodes([])


def test_what_is_not_read_is_said_once() -> None:
    episodes = [make_episode(0, 2, truncated=True), make_episode(1, 2, infos={}, truncated=True)]
    message = r"dataset 'arm': \['infos', 'truncated'\] of the episodes are not read; read are observations, actions, "
    with pytest.warns(UserWarning, match=message) as caught:
        assert TransitionDataset.from_episodes(episodes, name="arm").num_episodes == 2
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": [[0], [1], [1]]}, r"episode 1: actions are int64, and look like discrete actions"),
        ({"actions": 3.0}, r"episode 1: actions are one number\. Give an array with one row per step"),
        (
            {"observations": np.zeros((4, 3), np.uint8)},
            r"episode 1: observations are uint8, those of episode 0 are float",
        ),
        ({"terminations": 2}, r"episode 1: terminations must be 0 or 1, but row 2 has 2"),
        ({"masks": [1, 0.5, 1]}, r"episode 1: masks must be 0 or 1, but row 1 has 0\.5"),
    ],
)
def test_the_episode_with_a_fault_is_named(changes: dict[str, Any], message: str) -> None:
    good = {"observations": np.zeros((4, 3)), "actions": np.zeros((3, 2)), "rewards": np.zeros(3), "terminations": True}
    with pytest.raises(ValueError, match=message):
        TransitionDataset.from_episodes([good, good | changes])
    with pytest.raises(ValueError, match="expected a list of episodes, got one episode"):
        TransitionDataset.from_episodes(good)
    with pytest.raises(ValueError, match="episode 0 is of type list; expected a mapping with 'observations'"):
        TransitionDataset.from_episodes([[1, 2]])
