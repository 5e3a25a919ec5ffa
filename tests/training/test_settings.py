"""Checks of the settings of a run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from flowpolicies.training import TrainSettings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": -4}, "steps must be at least 0, got -4"),
        ({"online_steps": -1}, "online_steps must be at least 0, got -1"),
        ({"n_envs": 0}, "n_envs must be at least 1, got 0"),
        ({"eval_episodes": -1}, "eval_episodes must be at least 0, got -1"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"p_aug": 1.5}, r"p_aug must lie in \[0, 1\], got 1.5"),
        ({"storage": "disk"}, "storage must be one of 'ram', 'memmap', got 'disk'"),
        ({"device": "gpu"}, "unknown device 'gpu': pass 'auto', 'cpu', 'cuda', or one such as 'cuda:1'"),
    ],
)
def test_what_would_end_in_nonsense_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainSettings(**wrong)


def test_what_is_left_out() -> None:
    nothing = {"steps": 0, "eval_every": 0, "eval_episodes": 0, "checkpoint_every": 0, "storage": None, "seed": 0}
    assert TrainSettings(**nothing, device="cuda:0").steps == 0


def test_the_former_name_of_compile_works_with_a_note() -> None:
    with pytest.warns(DeprecationWarning, match="compile_backend='inductor' is now compile=True"):
        settings = TrainSettings(dataset="npz:x", compile_backend="inductor")
    assert settings.compile is True
    assert dataclasses.replace(settings, steps=3).compile is True
    assert "compile_backend" not in dataclasses.asdict(settings)


def test_an_unknown_choice_of_compile_is_refused() -> None:
    with pytest.raises(ValueError, match="compile must be True, False or \"auto\", got 'sometimes'"):
        TrainSettings(dataset="npz:x", compile="sometimes")
