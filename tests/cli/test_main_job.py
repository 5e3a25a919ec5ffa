"""Trains every algorithm on generated OGBench data from the command line, offline and then online."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from often import rest_in_more

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.cli import main
from flowpolicies.data import generate_dataset
from flowpolicies.training import RunFolder

CUBE = "ogbench:cube-single-play-singletask-task1-v0"
STEPS = 200
IMITATION = (
    "flow_matching/loss",
    "behavior/loss",
    "denoising/loss",
    "likelihood/mse",
    "bptt/bc_loss",
    "actor/bc_loss",
    "actor/loss",
)
"""Losses that decrease while a policy learns the dataset; the first one that an algorithm logs is tested."""
REINFORCING = {"iql", "iql_ddpgbc", "qflow_bptt", "qsm_online", "rebrac", "rebrac_qam", "rlpd", "rlpd_paper", "sac"}
"""Algorithms whose policy need not come closer to the dataset in so few steps with their defaults."""
OFTEN = ("bc_diffusion", "fql", "iql", "qam_f", "qflow")
"""Algorithms that `make test` trains here; `make more` trains the others. All of them train, offline and online, in
tests/algorithms/test_contracts.py too: what is added here is the command line, a run folder and a robot's data."""
SIZES = {
    "horizon": ("5",),
    "actor_hidden_dims": ("32", "32"),
    "value_hidden_dims": ("32", "32"),
    "ensemble": ("2",),
    "flow_steps": ("3",),
    "diffusion_steps": ("3",),
    "num_samples": ("4",),
    "next_samples": ("2",),
}


@pytest.fixture(scope="session")
def cube_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cube")
    return generate_dataset(CUBE, data_dir=folder, num_episodes=2, max_episode_steps=120, progress=False).parent


@pytest.mark.parametrize("algorithm", rest_in_more(OFTEN))
def test_trains_on_cube_single_and_continues_online(
    algorithm: type[OfflineAlgorithm], cube_data: Path, tmp_path: Path
) -> None:
    name = algorithm.name
    sizes = ["--batch-size", "32"]
    for field, values in SIZES.items():
        if field in algorithm.Config.__dataclass_fields__:
            sizes += [f"--{field.replace('_', '-')}", *values]
    words = ["train", name, "--dataset", CUBE, "--data-dir", str(cube_data), "--run-dir", str(tmp_path / name)]
    words += ["--steps", str(STEPS), "--online-steps", "30", "--learning-starts", "5", "--eval-episodes", "0"]
    words += ["--learning-rate", "0.001", "--log-every", "50", "--checkpoint-every", "0", *sizes]
    assert main(words) == 0
    folder = RunFolder(tmp_path / name)
    with folder.progress.open() as file:
        rows = list(csv.DictReader(file))
    offline = [row for row in rows if row["time/offline_steps"]]
    losses = {
        key: [float(row[key]) for row in offline] for key in rows[0] if key.startswith("train/") and offline[0][key]
    }
    assert all(math.isfinite(value) for column in losses.values() for value in column)
    if name not in REINFORCING:
        imitation = next(losses[f"train/{key}"] for key in IMITATION if f"train/{key}" in losses)
        assert imitation[-1] < 0.9 * imitation[0], imitation
    assert folder.policy.is_file()
    assert folder.model.is_file()
