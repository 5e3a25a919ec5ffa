"""Stacked frames and random crops, on images whose pixels are the number of their row."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from tiny import tiny

from flowpolicies import evaluate
from flowpolicies.algorithms import FQL
from flowpolicies.data import TransitionDataset, open_memmap, write_memmap
from flowpolicies.data.replay.buffer import TransitionBuffer
from flowpolicies.data.replay.pixels import FrameStack, crop_observations, frames_between, random_crops, stacked_space

SHAPE = (2, 8, 8)
SPACE = Box(0, 255, SHAPE, np.uint8)


def dataset() -> TransitionDataset:
    """Trajectories of the rows 0 to 1 and 2 to 5. All pixels of row i are i, and those of its next image 100 + i."""
    rows = np.arange(6, dtype=np.uint8)
    images = np.broadcast_to(rows[:, None, None, None], (6, *SHAPE)).copy()
    terminals = np.isin(rows, [1, 5])
    return TransitionDataset.from_arrays(
        images, np.zeros((6, 1)), np.zeros(6), images + 100, masks=np.ones(6), terminals=terminals
    )


def buffer(data: TransitionDataset, frames: int = 3, **options: Any) -> TransitionBuffer:
    space = stacked_space(data.observation_space, frames)
    made = TransitionBuffer(10, space, data.action_space, "cpu", seed=0, frame_stack=frames, **options)
    made.attach(data)
    return made


def frames_of(observations: torch.Tensor, frames: int = 3) -> list[list[int]]:
    """The pixel value of each frame of each observation."""
    images = observations.view(-1, frames, SHAPE[0] * SHAPE[1] * SHAPE[2])
    assert observations.dtype == torch.uint8
    assert torch.equal(images.amin(-1), images.amax(-1))
    return images[..., 0].tolist()


def test_frames_are_stacked_within_their_trajectory() -> None:
    batch = buffer(dataset()).sample(300)
    now = {
        row: [0, 0, 0] if row == 0 else [0, 0, 1] if row == 1 else [max(2, row - 2), max(2, row - 1), row]
        for row in range(6)
    }
    assert now[4] == [2, 3, 4]
    rows = set()
    for found, following in zip(frames_of(batch.observations), frames_of(batch.next_observations), strict=True):
        row = found[-1]
        rows.add(row)
        assert found == now[row]
        assert following == [*now[row][1:], 100 + row]
    assert rows == set(range(6))


@pytest.mark.parametrize("options", [{"horizon": 2}, {"n_steps": 2}, {"windows": "episodes"}], ids=str)
def test_frames_of_windows(options: dict[str, Any]) -> None:
    batch = buffer(dataset(), **options).sample(100)
    first = {0: 0, 1: 0, 2: 2, 3: 2, 4: 2, 5: 2}
    for found in frames_of(batch.observations):
        row = found[-1]
        assert found == [max(first[row], row - 2), max(first[row], row - 1), row]
    for following in frames_of(batch.next_observations):
        row = following[-1] % 100
        assert following[1] == (row if following[-1] >= 100 else max(first[row], row - 1))


def test_frames_in_files_are_those_in_memory(tmp_path: Path) -> None:
    data = dataset()
    mapped = open_memmap(write_memmap(tmp_path / "mapped", data))
    for first, second in zip(buffer(data).sample(50), buffer(mapped).sample(50), strict=True):
        assert torch.equal(first, second)


def test_one_frame_is_what_there_was_before() -> None:
    batch = buffer(dataset(), 1).sample(20)
    assert frames_of(batch.next_observations, 1) == [[100 + row] for (row,) in frames_of(batch.observations, 1)]


class Counting(gymnasium.Env[Any, Any]):
    """An environment whose pixels are the number of steps since the reset."""

    observation_space, action_space = SPACE, Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.age = 0
        return np.zeros(SHAPE, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.age += 1
        return np.full(SHAPE, self.age, np.uint8), 0.0, False, self.age == 4, {}


def test_environments_stack_as_the_data_does() -> None:
    env = FrameStack(Counting(), 3)
    for _ in range(2):
        seen = [env.reset()[0], *(env.step(np.zeros(1))[0] for _ in range(3))]
        assert frames_of(torch.from_numpy(np.stack(seen))) == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3]]
    assert env.observation_space == Box(0, 255, (6, 8, 8), np.uint8)
    assert frames_between(SPACE, env.observation_space) == 3
    assert frames_between(SPACE, SPACE) == frames_between(Box(-1, 1, (3,)), SPACE) == 1


def test_crops_are_cuts_of_the_image_with_its_edge_repeated() -> None:
    images = torch.randint(256, (4, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    offsets = torch.tensor([[3, 3], [0, 0], [6, 2], [1, 6]])
    for image, (top, left), crop in zip(images, offsets.tolist(), random_crops(images, offsets), strict=True):
        padded = np.pad(image.numpy(), ((0, 0), (3, 3), (3, 3)), mode="edge")
        np.testing.assert_array_equal(crop, padded[:, top : top + 8, left : left + 8])
    assert torch.equal(random_crops(images, offsets)[0], images[0])


def test_only_images_are_cropped() -> None:
    space = gymnasium.spaces.Dict({"camera": SPACE, "speed": Box(-1, 1, (2,))})
    flat = torch.arange(130.0).unsqueeze(0)
    moved = crop_observations(space, flat, torch.tensor([[0, 3]]))
    assert moved[0, 128:].tolist() == [128, 129]
    assert moved[0, :40].tolist() == [*range(8)] * 4 + [*range(8, 16)]  # Shifted by three rows.


def moving_pictures() -> TransitionDataset:
    """A dataset whose images and next images are all the same."""
    images = np.broadcast_to(np.arange(64, dtype=np.uint8).reshape(1, 1, 8, 8), (6, *SHAPE)).copy()
    return TransitionDataset.from_arrays(images, np.zeros((6, 1)), np.zeros(6), images, terminations=np.arange(6) == 5)


def test_a_share_of_the_batches_is_cropped_and_both_observations_alike() -> None:
    made = buffer(moving_pictures(), p_aug=0.3)
    cropped = 0
    for _ in range(300):
        batch = made.sample(16)
        assert torch.equal(batch.observations, batch.next_observations)
        kinds = len(batch.observations.unique(dim=0))
        assert kinds == 1 or kinds > 5  # Either no image is shifted, or each one by its own offset.
        cropped += kinds > 1
    assert 60 < cropped < 120
    images = buffer(moving_pictures(), p_aug=1.0).sample(400).observations.view(-1, 6, 8, 8)
    corners = {divmod(corner, 8) for corner in images[:, 0, 4, 4].tolist()}
    assert corners == {(row, column) for row in range(1, 8) for column in range(1, 8)}


def test_without_crops_batches_are_as_before() -> None:
    for first, second in zip(buffer(dataset()).sample(9), buffer(dataset(), p_aug=0.0).sample(9), strict=True):
        assert torch.equal(first, second)


def test_an_algorithm_learns_from_stacked_frames(tmp_path: Path) -> None:
    data = dataset()
    options: dict[str, Any] = {"replay_buffer_kwargs": {"frame_stack": 3, "p_aug": 0.5}, "batch_size": 4}
    model = tiny(FQL, dataset=data, encoder="impala_debug", **options)
    assert model.observation_space.shape == (6, 8, 8)
    model.learn_offline(2)
    env = FrameStack(Counting(), 3)
    assert evaluate(model, env, 1).lengths.tolist() == [4]
    model.save(tmp_path / "model.zip")
    again = FQL.load(tmp_path / "model.zip", env=env)
    again.set_dataset(data)
    again.learn_offline(1)
    with pytest.raises(ValueError, match="the dataset's observation_space does not match the model's"):
        tiny(FQL, env=env, dataset=data, encoder="impala_debug", batch_size=4)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ValueError, match="frame_stack=3 needs observations that are one image"):
        stacked_space(Box(-1, 1, (3,)), 3)
    with pytest.raises(ValueError, match=r"channels first.* the space is Box\(0, 255, \(8, 8, 3\), uint8\)"):
        stacked_space(Box(0, 255, (8, 8, 3), np.uint8), 3)
    with pytest.raises(ValueError, match="frame_stack must be at least 1, got 0"):
        stacked_space(SPACE, 0)
    for space, share in ((Box(-1, 1, (3,)), 0.5), (SPACE, 1.5)):
        with pytest.raises(ValueError, match=rf"p_aug must be between 0 and 1, .* without images, got {share}"):
            TransitionBuffer(1, space, Box(-1, 1, (1,)), "cpu", p_aug=share)
