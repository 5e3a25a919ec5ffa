"""Checks of the settings of a run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.training import RunFolder, TrainSettings
from flowpolicies.training.settings import check_start


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


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        ({"dataset": "npz:a/data.npz"}, {"dataset": "npz:b/data.npz"}, "npz:a/data.npz and not npz:b/data.npz"),
        ({"dataset": "hdf5:a.h5,min_length=2"}, {"dataset": "hdf5:a.h5,seed=2"}, "min_length=2 and not hdf5:a.h5,seed"),
        ({"dataset": "memmap:a/x"}, {"dataset": "memmap:b/x"}, "memmap:a/x and not memmap:b/x"),
        ({"dataset": "minari:a/b"}, {"dataset": "minari:a-b"}, "minari:a/b and not minari:a-b"),
        (
            {"dataset": "ogbench:cube-single-play-v0", "data_dir": Path("a")},
            {"dataset": "ogbench:cube-single-play-v0", "data_dir": Path("b")},
            "--data-dir a and not --data-dir b",
        ),
    ],
)
def test_no_run_is_replaced_by_one_on_another_dataset_with_the_same_name(
    before: dict[str, Any], now: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = TrainSettings(**before, overwrite=True), TrainSettings(**now, overwrite=True)
    folder = RunFolder(first.folder("fql"))
    assert second.folder("fql") == folder.path
    settings = {key: None if value is None else str(value) for key, value in dataclasses.asdict(first).items()}
    folder.write_config({"dataset": {"address": first.dataset}, "settings": settings})
    first.check_same_dataset(folder.path)
    with pytest.raises(FileExistsError, match=f"holds a run on another dataset, .*{words}.*--run-dir"):
        check_start("fql", second)
    chosen = dataclasses.replace(second, run_dir=folder.path)
    chosen.check_same_dataset(folder.path)  # The user names the folder.
