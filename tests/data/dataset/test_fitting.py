"""Images of any layout and type, and numbers of categories, whatever they come from."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pandas as pd
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from stable_baselines3.common.buffers import ReplayBuffer

from flowpolicies import BC, FQL
from flowpolicies.data import TransitionDataset, from_sb3_buffer, load_dataset, open_memmap, write_memmap
from flowpolicies.inspection import inspect_dataset
from flowpolicies.training import collect

N, H, W = 12, 40, 36
LAST = Box(0, 255, (H, W, 3), np.uint8)
FIRST = Box(0, 255, (3, H, W), np.uint8)
SMALL: dict[str, Any] = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "batch_size": 4}


def images(last: bool = True) -> Any:
    array = np.random.default_rng(0).integers(0, 256, (N + 1, H, W, 3)).astype(np.uint8)
    return array if last else np.moveaxis(array, -1, 1)


def columns() -> dict[str, Any]:
    flags = np.zeros(N)
    flags[-1] = 1
    return {"actions": np.zeros((N, 1)), "rewards": np.zeros(N), "truncations": flags, "terminations": np.zeros(N)}


def by_arrays(array: Any, space: Any, tmp_path: Path) -> TransitionDataset:
    return TransitionDataset.from_arrays(
        observations=array[:-1], next_observations=array[1:], **columns(), observation_space=space
    )


def by_episodes(array: Any, space: Any, tmp_path: Path) -> TransitionDataset:
    return TransitionDataset.from_episodes([{**columns(), "observations": array}], observation_space=space)


def by_npz(array: Any, space: Any, tmp_path: Path) -> TransitionDataset:
    np.savez(tmp_path / "data.npz", observations=array[:-1], next_observations=array[1:], **columns())
    return TransitionDataset.load(tmp_path / "data.npz", observation_space=space)


def by_hdf5(array: Any, space: Any, tmp_path: Path) -> TransitionDataset:
    names = {"terminations": "terminals", "truncations": "timeouts"}
    with h5py.File(tmp_path / "data.hdf5", "w") as file:
        arrays = {**columns(), "observations": array[:-1], "next_observations": array[1:]}
        for key, values in arrays.items():
            file[names.get(key, key)] = values
    return load_dataset(tmp_path / "data.hdf5", observation_space=space)


def by_buffer(array: Any, space: Any, tmp_path: Path) -> TransitionDataset:
    buffer = ReplayBuffer(N, space or LAST, Box(-1, 1, (1,)), device="cpu", handle_timeout_termination=False)
    for i in range(N):
        buffer.add(array[i], array[i + 1], np.zeros(1), np.zeros(1), np.array([i == N - 1]), [{}])
    return from_sb3_buffer(buffer)


SOURCES: list[Callable[[Any, Any, Path], TransitionDataset]] = [by_arrays, by_episodes, by_npz, by_hdf5, by_buffer]


@pytest.mark.parametrize("make", SOURCES)
@pytest.mark.parametrize("space", [None, LAST, FIRST])
def test_channels_come_first_whatever_the_source(make: Any, space: Any, tmp_path: Path) -> None:
    if make is by_buffer and space is FIRST:
        pytest.skip("a buffer holds observations of its own space")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = make(images(), space, tmp_path)
    assert dataset.observation_space == FIRST
    np.testing.assert_array_equal(dataset.observations, images(last=False)[:-1])
    np.testing.assert_array_equal(dataset.next_observations, images(last=False)[1:])
    assert dataset.provenance["converted"] == {"observations": f"images [{H}, {W}, 3] were transposed to [C, H, W]"}
    guessed = [str(w.message) for w in said if "were converted" in str(w.message)]
    assert len(guessed) == (space is None and make is not by_buffer)  # Without a space, the layout is a guess.
    model = FQL(dataset=dataset, **SMALL)
    model.learn_offline(1)
    kernel = next(p for p in model.policy.networks["critic"].parameters() if p.ndim == 4)
    assert kernel.shape[1] == 3


@pytest.mark.parametrize("make", SOURCES[:-1])
def test_images_with_channels_first_stay_as_they_are(make: Any, tmp_path: Path) -> None:
    for space in (None, LAST, FIRST):
        dataset = make(images(last=False), space, tmp_path)
        assert dataset.observation_space == FIRST
        assert "converted" not in dataset.provenance
        np.testing.assert_array_equal(dataset.observations, images(last=False)[:-1])


@pytest.mark.parametrize("make", SOURCES[:-1])
@pytest.mark.parametrize("last", [False, True])
def test_floats_from_0_to_1_become_the_bytes_of_their_space(make: Any, last: bool, tmp_path: Path) -> None:
    floats = images(last).astype(np.float32) / 255
    for space in (LAST, FIRST):
        with pytest.warns(UserWarning, match="floats from 0 to 1 were multiplied by 255 and rounded to bytes"):
            dataset = make(floats, space, tmp_path)
        np.testing.assert_array_equal(dataset.observations, images(last=False)[:-1])
        assert "multiplied by 255" in dataset.provenance["converted"]["observations"]
    with pytest.warns(UserWarning, match="rounded to bytes"):
        assert (np.asarray(make(np.full_like(floats, 0.999), LAST, tmp_path).observations) == 255).all()


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.float32, np.float64])
def test_whole_numbers_become_the_bytes_of_their_space(dtype: Any, tmp_path: Path) -> None:
    dataset = by_arrays(images().astype(dtype), LAST, tmp_path)
    np.testing.assert_array_equal(dataset.observations, images(last=False)[:-1])
    vector = TransitionDataset.from_arrays(
        observations=np.full((N, 5), 200, dtype), next_observations=np.full((N, 5), 3, dtype), **columns(),
        observation_space=Box(0, 255, (5,), np.uint8),
    )  # fmt: skip
    assert isinstance(vector.observations, np.ndarray)
    assert (vector.observations.dtype, vector.observations.max()) == (np.uint8, 200)


@pytest.mark.parametrize("change", [lambda x: 2 * x - 1, lambda x: 300 * x, lambda x: x - 1e-3, lambda x: 5 * x])
def test_other_numbers_are_no_bytes(change: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"observations are float32 from .*, but their space is uint8, from 0 to 255"):
        by_arrays(change(images().astype(np.float32) / 255), LAST, tmp_path)


def test_images_in_a_dict(tmp_path: Path) -> None:
    floats = images().astype(np.float32) / 255
    tree = {"camera": floats, "arm": np.ones((N + 1, 2)), "mode": np.arange(N + 1) % 3}
    space = Dict({"camera": LAST, "arm": Box(-1, 1, (2,)), "mode": Discrete(3)})
    with pytest.warns(UserWarning, match="observations/camera were converted"):
        dataset = TransitionDataset.from_arrays(
            observations={key: array[:-1] for key, array in tree.items()},
            next_observations={key: array[1:] for key, array in tree.items()},
            **columns(),
            observation_space=space,
        )
    assert dataset.observation_space["camera"] == FIRST
    assert list(dataset.provenance["converted"]) == ["observations/camera"]
    assert isinstance(dataset.observations, dict)
    np.testing.assert_array_equal(dataset.observations["camera"], images(last=False)[:-1])
    assert dataset.observations["mode"].tolist() == [i % 3 for i in range(N)]
    FQL(dataset=dataset, **SMALL).learn_offline(1)


class Camera(gymnasium.Env[Any, Any]):
    """Images with channels last, for episodes of five steps."""

    observation_space, action_space = LAST, Box(-1, 1, (1,))

    def reset(self, **options: Any) -> Any:
        super().reset(seed=options.get("seed"))
        self.time = 0
        return images()[0], {}

    def step(self, action: Any) -> Any:
        self.time += 1
        return images()[self.time], 0.0, False, self.time == 5, {}


def test_a_collected_dataset_fits_the_model_of_its_environment() -> None:
    dataset, _ = collect(BC(env=Camera(), actor_hidden_dims=(8,), device="cpu"), Camera(), 2, seed=0)
    assert dataset.observation_space == FIRST
    FQL(env=Camera(), dataset=dataset, **SMALL).learn_offline(1)
    inspection = inspect_dataset(dataset, env=Camera())
    assert [finding.check for finding in inspection.findings if finding.check == "environment"] == []


def test_old_files_with_channels_last(tmp_path: Path) -> None:
    """Older versions wrote the layout that they were given."""
    dataset = by_arrays(images(last=False), None, tmp_path)
    arrays = {**dataset.arrays(), "observations": images()[:-1], "next_observations": images()[1:]}
    old = TransitionDataset.trusted(
        arrays, observation_space=LAST, action_space=dataset.action_space, provenance={"name": "old"},
        fingerprint=None, episode_ends=dataset.episode_ends,
    )  # fmt: skip
    loaded = TransitionDataset.load(old.save(tmp_path / "old.npz"))
    assert loaded.fingerprint == dataset.fingerprint
    assert loaded.name == "old"
    with pytest.raises(ValueError, match="images with their channels last"):
        open_memmap(write_memmap(tmp_path / "old", old))
    with pytest.raises(ValueError, match="networks expect them first"):
        dataclasses.replace(old)
    (finding,) = (f for f in inspect_dataset(old).findings if f.severity == "fault")
    assert "images with their channels last" in finding.message


def findings(observations: Any) -> list[str]:
    dataset = TransitionDataset.from_arrays(
        observations=observations[:-1], next_observations=observations[1:], **columns()
    )
    return [f.message for f in inspect_dataset(dataset).findings if f.check == "observations"]


def test_data_check_knows_images() -> None:
    assert findings(images(last=False)) == []
    (black,) = findings((images(last=False) / 255).astype(np.uint8))
    assert "images (uint8) without a value above 1" in black
    (floats,) = findings(images(last=False).astype(np.float32) / 255)
    assert "have the shape of images (3, 40, 36), but are float32 (up to 1)" in floats


CATEGORIES = [
    (Discrete(4), np.arange(N + 1) % 4),
    (Discrete(4, start=-1), np.arange(N + 1) % 4 - 1),
    (MultiDiscrete([3, 2]), np.stack([np.arange(N + 1) % 3, np.arange(N + 1) % 2], 1)),
    (MultiBinary(3), np.eye(3)[np.arange(N + 1) % 3]),
]


@pytest.mark.parametrize(("space", "values"), CATEGORIES)
@pytest.mark.parametrize("make", [by_arrays, by_episodes, by_npz, by_hdf5])
def test_categories_stay_integers(make: Any, space: Any, values: Any, tmp_path: Path) -> None:
    dataset = make(values, space, tmp_path)
    assert dataset.observation_space == space
    assert isinstance(dataset.observations, np.ndarray)
    assert dataset.observations.dtype == np.int64
    np.testing.assert_array_equal(dataset.observations, values[:-1])
    assert TransitionDataset.load(dataset.save(tmp_path / "saved.npz")).fingerprint == dataset.fingerprint
    mapped = open_memmap(write_memmap(tmp_path / "mapped", dataset.compact()))
    assert mapped.fingerprint == dataset.fingerprint
    for data in (dataset, mapped, mapped.select([0])):
        FQL(dataset=data, **SMALL).learn_offline(1)


def test_a_column_of_a_table_may_hold_categories() -> None:
    frame = pd.DataFrame({"o": [0, 1, 2], "a": [0.0, 0.5, 1.0], "r": 0.0, "end": [0, 0, 1]})
    dataset = TransitionDataset.from_dataframe(
        frame, observations=["o"], actions=["a"], rewards="r", terminations="end", observation_space=Discrete(3)
    )
    assert isinstance(dataset.observations, np.ndarray)
    assert dataset.observations.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full(N + 1, 4), r"observations must be whole numbers of Discrete\(4\), but row 0 holds 4"),
        (np.full(N + 1, 0.5), r"must be whole numbers of Discrete\(4\), but row 0 holds 0.5"),
        (np.eye(4)[np.zeros(N + 1, int)], r"have shape \(4,\) per row, .* not one-hot vectors"),
    ],
)
def test_wrong_categories_are_explained(values: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        by_arrays(values, Discrete(4), tmp_path)


def test_numbers_that_float32_cannot_hold(tmp_path: Path) -> None:
    clock = 1.7e9 + np.arange(N + 1)[:, None] * np.ones(2)
    with pytest.warns(
        UserWarning, match=r"observations are stored as float32, which rounds most differences away in 2"
    ):
        by_arrays(clock, None, tmp_path)
    with pytest.raises(ValueError, match=r"observations reach 1e\+39 in component 0, beyond the range of float32"):
        by_arrays(np.full((N + 1, 2), 1e39), None, tmp_path)
    with pytest.raises(ValueError, match="observations are a masked array, with 1 masked values"):
        by_arrays(np.ma.masked_less(np.arange(N + 1.0)[:, None], 0.5), None, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        by_arrays(np.random.default_rng(0).normal(1000, 1, (N + 1, 2)), None, tmp_path)
        by_arrays(np.full((N + 1, 2), 1.7e9), None, tmp_path)
