import dataclasses
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from flowpolicies.data import DataFault, TransitionDataset, write_npz
from flowpolicies.data.dataset.checks import as_flags


def make_arrays(rows: int = 6, seed: int = 0) -> dict[str, Any]:
    """Arguments of `from_arrays`: two episodes, the first of which terminates in row 2."""
    generator = np.random.default_rng(seed)
    terminations = np.zeros(rows, bool)
    terminations[2] = True
    return {
        "observations": generator.normal(size=(rows, 3)),
        "actions": generator.uniform(-1, 1, (rows, 2)),
        "rewards": np.arange(rows),
        "next_observations": generator.normal(size=(rows, 3)),
        "terminations": terminations,
    }


def make_dict_arrays() -> dict[str, Any]:
    arrays = make_arrays()
    for key in ("observations", "next_observations"):
        image = np.random.default_rng(1).integers(0, 256, (6, 4, 4, 3), np.uint8)
        arrays[key] = {"state": arrays[key], "image": image}
    return arrays


def test_from_arrays_converts_and_infers() -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays())
    assert len(dataset) == 6
    for key in ("observations", "actions", "rewards", "next_observations", "masks", "terminals"):
        assert getattr(dataset, key).dtype == np.float32
    assert dataset.observation_space == Box(-np.inf, np.inf, (3,), np.float32)
    assert dataset.action_space == Box(-1.0, 1.0, (2,), np.float32)
    np.testing.assert_array_equal(dataset.masks, [1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 1, 0, 0, 1])
    np.testing.assert_array_equal(dataset.episode_ends, [2, 5])
    assert dataset.num_episodes == 2
    assert dataset.name == "arrays"


def test_truncation_ends_a_trajectory_and_keeps_the_mask() -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays(), truncations=[0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(dataset.masks, [1, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 1, 1, 0, 1])


def test_masks_and_terminals_are_taken_as_they_are_but_for_the_last_row() -> None:
    arrays = make_arrays()
    del arrays["terminations"]
    terminals = np.array([0, 0, 0, 1, 0, 0], np.float32)
    dataset = TransitionDataset.from_arrays(**arrays, masks=[1, 0, 1, 1, 1, 1], terminals=terminals)
    np.testing.assert_array_equal(dataset.masks, [1, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(dataset.terminals, [0, 0, 0, 1, 0, 1])
    assert terminals[-1] == 0  # The caller's array is left alone.


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ({}, "none of them"),
        ({"truncations": np.zeros(6)}, "truncations"),
        ({"masks": np.ones(6)}, "masks"),
        ({"terminations": np.zeros(6), "masks": np.ones(6), "terminals": np.ones(6)}, "terminations, masks, terminals"),
    ],
)
def test_ends_are_said_in_one_way(flags: dict[str, Any], given: str) -> None:
    arrays = make_arrays()
    del arrays["terminations"]
    message = (
        rf"dataset 'arm': say where trajectories end by terminations= .* or by masks= and terminals=; given: {given}\."
    )
    with pytest.raises(ValueError, match=message):
        TransitionDataset.from_arrays(**arrays, **flags, name="arm")


def test_images_stay_bytes() -> None:
    arrays = make_arrays() | dict.fromkeys(("observations", "next_observations"), np.zeros((6, 8, 8, 3), np.uint8))
    dataset = TransitionDataset.from_arrays(**arrays)
    assert dataset.observation_space == Box(0, 255, (3, 8, 8), np.uint8)
    assert isinstance(dataset.observations, np.ndarray)
    assert dataset.observations.dtype == np.uint8


def test_dict_observations() -> None:
    dataset = TransitionDataset.from_arrays(**make_dict_arrays())
    assert dataset.observation_space == gymnasium.spaces.Dict(
        {"state": Box(-np.inf, np.inf, (3,), np.float32), "image": Box(0, 255, (3, 4, 4), np.uint8)}
    )
    assert "observations/image" in dataset.summary()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rewards": np.zeros(5)},
            r"the fields differ in length: \{'observations': 6, .*'rewards': 5, .*observations\[1:\]",
        ),
        ({"terminations": np.zeros(5)}, r"the fields differ in length: .*'masks': 5"),
        (
            {"terminations": [0, 0, 0.5, 0, 0, 0]},
            r"terminations must be 0 or 1, but 1 of 6 are not, first 0\.5 in row 2 \(episode 0, step 2\)",
        ),
        (
            {"truncations": [0, 0, 0, 1, 0, 7]},
            r"truncations must be 0 or 1, but 1 of 6 are not, first 7 in row 5 \(episode 2, step 1\)",
        ),
        ({"truncations": np.zeros(5)}, r"the fields differ in length: \{'terminations': 6, 'truncations': 5\}"),
        ({"rewards": np.zeros((6, 1))}, r"rewards have shape \(6, 1\), expected \(6,\)\. Pass rewards\.reshape\(-1\)"),
        (
            {"rewards": [0, 0, np.nan, np.nan, 0, 0]},
            r"rewards hold 2 values that are NaN or infinite, in 2 of 6 rows, first in row 2 \(episode 0, step 2\)\.",
        ),
        (
            {"observations": np.where(np.arange(18).reshape(6, 3) > 14, np.inf, 0)},
            r"observations hold 3 values that are NaN or infinite, in 1 of 6 rows, first in row 5 \(episode 1, "
            r"step 2\)\. Repair or drop",
        ),
        (
            {"observation_space": Box(-1.0, 1.0, (4,))},
            r"observations have shape \(3,\) per row, but their space has shape \(4,\)",
        ),
        (
            {"observation_space": Discrete(3)},
            r"observations have shape \(3,\) per row, but their space Discrete\(3\) has shape \(\)\. .*not one-hot",
        ),
        (
            {"observation_space": Box(0, 255, (3,), np.uint8)},
            r"observations are float32 from .*, but their space is uint8, from 0 to 255\. Images as floats from 0 to 1",
        ),
        (
            {"observation_space": gymnasium.spaces.Dict({"state": Box(-1.0, 1.0, (3,))})},
            r"observations hold one array, but observation_space has the keys \['state'\]",
        ),
        ({"action_space": Discrete(3)}, r"action_space is Discrete\(3\); only Box spaces of floating-point actions"),
        (
            {"action_space": Box(-np.inf, np.inf, (2,))},
            r"action_space .* is unbounded; finite bounds are needed .* Pass action_space=gymnasium\.spaces\.Box\(low",
        ),
        (
            {"action_space": Box(-1.0, 1.0, (3,))},
            r"actions have shape \(2,\) per row, but their space has shape \(3,\)",
        ),
        (
            {"actions": np.full((6, 2), 1.5)},
            r"actions range from 1\.5 to 1\.5, so their bounds cannot be guessed \(first beyond \[-1, 1\] in row 0 ",
        ),
        (
            {"actions": [[0, 0]] * 4 + [[0, 1.5], [0, 0]]},
            r".* cannot be guessed \(first beyond \[-1, 1\] in row 4 \(episode 1, step 1\)\)\. Pass action_space=",
        ),
        (
            {"actions": [[0, 0]] * 4 + [[0, 1.5], [-3, 0]], "action_space": Box(-1.0, 1.0, (2,))},
            r"2 of 6 actions lie outside the bounds of action_space \(actions range from -3 to 1\.5, bounds from -1 to "
            r"1; first in row 4 \(episode 1, step 1\)\)\. Pass the action_space= that these actions were made for, or "
            r"clip them\.",
        ),
        ({"actions": [[0, np.nan]] * 6}, r"actions hold 6 values that are NaN or infinite"),
        ({"actions": [["left", "up"]] * 6}, r"actions are <U4, not numbers\. Convert them to numbers first"),
        ({"actions": [[0, 0]] * 5 + [[0]]}, r"actions differ in shape from row to row \(.*inhomogeneous"),
        ({"rewards": [None] * 6}, r"rewards are object, not numbers"),
        ({"observations": np.zeros((6, 3), complex)}, r"observations are complex128, not numbers"),
        ({"provenance": {"path": Path("x")}}, r"provenance must be JSON data \(.*\)\. Pass strings, numbers"),
    ],
)
def test_wrong_data_is_explained(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="dataset 'arm': " + message):
        TransitionDataset.from_arrays(**make_arrays() | changes, name="arm")


@pytest.mark.parametrize("actions", [np.ones(6, int), np.ones((6, 2), bool), np.ones(6, np.uint8), [0, 1] * 3])
def test_actions_that_look_discrete_are_refused_unless_a_space_says_otherwise(actions: Any, tmp_path: Path) -> None:
    arrays = make_arrays() | {"actions": actions}
    write_npz(tmp_path / "arm.npz", {key: np.asarray(array) for key, array in arrays.items()})
    message = (
        rf"dataset 'arm': actions are {np.asarray(actions).dtype}, and look like discrete actions; .* action_space="
    )
    with pytest.raises(DataFault, match=message):
        TransitionDataset.from_arrays(**arrays, name="arm")
    with pytest.raises(DataFault, match=message):
        TransitionDataset.load(tmp_path / "arm.npz")
    space = Box(-1, 1, np.shape(actions)[1:])
    np.testing.assert_array_equal(TransitionDataset.from_arrays(**arrays, action_space=space).actions, actions)
    arrays["actions"] = np.asarray(actions, np.float64)
    np.testing.assert_array_equal(TransitionDataset.from_arrays(**arrays).actions, actions)


def test_empty_data_is_refused() -> None:
    empty = {key: array[:0] for key, array in make_arrays().items()}
    with pytest.raises(ValueError, match="dataset 'arrays' has no transitions"):
        TransitionDataset.from_arrays(**empty)


def test_dict_keys_must_match() -> None:
    arrays = make_dict_arrays()
    space = gymnasium.spaces.Dict({"state": Box(-np.inf, np.inf, (3,)), "depth": Box(0, 1, (4, 4))})
    message = r"observations hold \['image', 'state'\], but observation_space has the keys \['depth', 'state'\]"
    with pytest.raises(ValueError, match=message):
        TransitionDataset.from_arrays(**arrays, observation_space=space)
    with pytest.raises(ValueError, match=r"observations are a dict with the keys \['image', 'state'\], but .* is Box"):
        TransitionDataset.from_arrays(**arrays, observation_space=Box(-1.0, 1.0, (3,)))


def test_the_constructor_converts_nothing() -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays())
    with pytest.raises(
        ValueError, match=r"rewards are float64, expected float32. Build the dataset with TransitionData"
    ):
        dataclasses.replace(dataset, rewards=np.zeros(6))
    with pytest.raises(ValueError, match=r"the last transition must end its trajectory, but terminals\[-1\] is 0"):
        dataclasses.replace(dataset, terminals=np.zeros(6, np.float32))
    with pytest.raises(
        ValueError, match=r"masks must be 0 or 1, but 6 of 6 are not, first 0\.5 in row 0 \(episode 0, step 0\)\. A m"
    ):
        dataclasses.replace(dataset, masks=np.full(6, 0.5, np.float32))


def test_rounding_of_actions_is_tolerated_in_large_units() -> None:
    actions = np.full((6, 2), np.float32(100.1))
    bounds = Box(-100.1, np.nextafter(np.float32(100.1), np.float32(0)), (2,), np.float32)
    dataset = TransitionDataset.from_arrays(**make_arrays() | {"actions": actions}, action_space=bounds)
    np.testing.assert_array_equal(dataset.actions, actions)


def test_fingerprint_is_of_the_arrays_alone() -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays())
    assert len(dataset.fingerprint) == 64
    assert dataset.fingerprint == TransitionDataset.from_arrays(**make_arrays(), name="other").fingerprint
    changed = dataset.rewards.copy()
    changed[3] += 1
    assert dataclasses.replace(dataset, rewards=changed).fingerprint != dataset.fingerprint
    swapped = dataclasses.replace(
        dataset, observations=dataset.next_observations, next_observations=dataset.observations
    )
    assert swapped.fingerprint != dataset.fingerprint


def test_summary() -> None:
    arrays = make_arrays() | {"actions": [[1.0, 0.0]] * 6}
    dataset = TransitionDataset.from_arrays(**arrays, name="arm")
    assert dataset.summary() == "\n".join(
        [
            "arm",
            "  transitions     6",
            "  episodes        2",
            "  episode length  min 3, mean 3, max 3",
            "  reward          min 0, mean 2.5, max 5",
            "  mask is 0       in 16.667% of transitions",
            "  observations    shape (3,), float32",
            "  actions         shape (2,), float32, 50.000% of components at a bound",
            f"  fingerprint     {dataset.fingerprint[:12]}",
        ]
    )


@pytest.mark.parametrize("arrays", [make_arrays(), make_dict_arrays()])
def test_saved_datasets_come_back_whole(arrays: dict[str, Any], tmp_path: Path) -> None:
    bounds = Box(np.array([-2, -1], np.float32), np.array([2, 5], np.float32))
    saved = TransitionDataset.from_arrays(**arrays, action_space=bounds, provenance={"versions": {"x": "1.0"}})
    loaded = TransitionDataset.load(saved.save(tmp_path / "data.npz"))
    assert loaded.fingerprint == saved.fingerprint
    assert loaded.observation_space == saved.observation_space
    assert loaded.action_space == saved.action_space
    assert loaded.provenance == saved.provenance
    assert saved.provenance["versions"] == {"x": "1.0"}


def test_saved_datasets_keep_their_spaces(tmp_path: Path) -> None:
    path = TransitionDataset.from_arrays(**make_arrays()).save(tmp_path / "data.npz")
    with pytest.raises(ValueError, match=r"has its own spaces and provenance: load it without \['action_space'\]"):
        TransitionDataset.load(path, action_space=Box(-1.0, 1.0, (2,)))


def test_plain_npz_files_are_read_like_from_arrays(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "plain.npz", {key: np.asarray(array) for key, array in make_arrays().items()})
    bounds = Box(-2.0, 2.0, (2,), np.float32)
    loaded = TransitionDataset.load(path, action_space=bounds)
    assert loaded.fingerprint == TransitionDataset.from_arrays(**make_arrays()).fingerprint
    assert loaded.action_space == bounds
    assert loaded.name == "plain"


def test_incomplete_npz_files_are_explained(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "plain.npz", {"observations": np.zeros((2, 3)), "infos": np.zeros(2)})
    message = r"lacks \['actions', 'rewards', 'next_observations'\] \(it holds \['infos', 'observations'\]\)"
    with pytest.raises(ValueError, match=message):
        TransitionDataset.load(path)


def test_files_of_ogbench_are_recognised(tmp_path: Path) -> None:
    arrays = {"observations": np.zeros((2, 3)), "actions": np.zeros((2, 1)), "terminals": np.zeros(2)}
    path = write_npz(tmp_path / "plain.npz", arrays)
    message = rf"looks like a file of OGBench, which holds no rewards: .* with data_dir='{tmp_path}'"
    with pytest.raises(ValueError, match=message):
        TransitionDataset.load(path)


def test_to_npz_is_save(tmp_path: Path) -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays())
    assert dataset.to_npz(tmp_path / "a.npz").read_bytes() == dataset.save(tmp_path / "b.npz").read_bytes()


def test_files_of_a_later_version_are_refused(tmp_path: Path) -> None:
    dataset = TransitionDataset.from_arrays(**make_arrays())
    path = dataset.save(tmp_path / "data.npz")
    with np.load(path) as file:
        arrays = dict(file)
    text = arrays["flowpolicies_dataset"].tobytes().replace(b'"format": 1', b'"format": 2')
    write_npz(path, {**arrays, "flowpolicies_dataset": np.frombuffer(text, np.uint8)})
    with pytest.raises(ValueError, match=r"has format 2, this version reads 1\. Update flowpolicies"):
        TransitionDataset.load(path)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"format": 1}', b'{"format": 1, "observation_space": 3}'])
def test_a_damaged_description_is_named(tmp_path: Path, text: bytes) -> None:
    path = TransitionDataset.from_arrays(**make_arrays()).save(tmp_path / "data.npz")
    write_npz(path, {**dict(np.load(path)), "flowpolicies_dataset": np.frombuffer(text, np.uint8)})
    with pytest.raises(
        ValueError,
        match=r"data\.npz', (the description of .*: .*damaged|observation_space: a space)",
    ):
        TransitionDataset.load(path)


@pytest.mark.parametrize("change", [{"more": np.zeros(3)}, {"masks": None}])
def test_a_saved_file_with_other_arrays_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    path = TransitionDataset.from_arrays(**make_arrays()).save(tmp_path / "data.npz")
    arrays = {**dict(np.load(path)), **change}
    write_npz(path, {key: array for key, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=r"and a dataset \[.*\]: it was changed after it was written"):
        TransitionDataset.load(path)


@pytest.mark.parametrize(("value", "message"), [(2, "are 2"), ([0, 3], "row 1 has 3")])
def test_flags_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"x: terminations must be 0 or 1, but {message}"):
        as_flags("x", "terminations", value)
