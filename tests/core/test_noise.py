"""Sources of draws."""

import pytest
import torch

from flowpolicies.core import RecordingNoise, ReplayedNoise, ZeroNoise


def test_replayed_noise_refuses_other_draws() -> None:
    noise = ReplayedNoise(2, [torch.zeros(4, 2)])
    with pytest.raises(ValueError, match=r"recorded with shape \[4, 2\], asked for with \[5, 2\]"):
        noise.actions((5,))
    noise = ReplayedNoise(2, [torch.zeros(4, 1, 2)])
    assert noise.actions((4,)).shape == (4, 2)
    with pytest.raises(ValueError, match="only 1 were recorded"):
        noise.times((4,))


def test_zero_noise_is_the_centre_and_recording_notes_kind_and_shape() -> None:
    noise = RecordingNoise(ZeroNoise(2))
    assert torch.equal(noise.actions((3,)), torch.zeros(3, 2))
    assert torch.equal(noise.times((3,)), torch.full((3, 1), 0.5))
    assert noise.integers(11, (4,)).tolist() == [5] * 4
    assert [tuple(d) for d in noise.draws] == [("normal", (3, 2), 0), ("uniform", (3, 1), 0), ("integers", (4,), 11)]
