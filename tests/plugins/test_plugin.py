"""An algorithm of another package: one file, one entry-point line, installed with pip into a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import pendulum_data

PLUGIN = Path(__file__).parent / "toy"

Python = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the plugin was installed into."""
    source, target = tmp_path_factory.mktemp("source") / "toy", tmp_path_factory.mktemp("site")
    shutil.copytree(PLUGIN, source, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *offline, "--target", str(target), str(source)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Python:
    """Calls Python where the plugin is installed, in a folder with a small dataset."""
    pendulum_data().save(tmp_path / "data.npz")
    path = os.pathsep.join([str(installed), *map(os.path.abspath, filter(None, sys.path))])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    return run


def test_an_algorithm_is_one_file_under_60_lines_and_one_line() -> None:
    files = sorted(path.name for path in PLUGIN.iterdir() if path.name != "__pycache__")
    assert files == ["flowpolicies_toy.py", "pyproject.toml"]
    assert len((PLUGIN / "flowpolicies_toy.py").read_text().splitlines()) < 60
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points == {"flowpolicies.algorithms": {"toy": "flowpolicies_toy:Toy"}}


def test_it_is_listed_with_its_package(python: Python) -> None:
    done = python("-m", "flowpolicies", "list", "algorithms")
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if line.startswith("  toy "))
    assert row.split() == ["toy", "example.org/toy", "Toy", "Integrate", "yes", "yes", "yes", "-"]
    assert done.stdout.endswith("\n  toy is from the package flowpolicies-toy.\n")


LIBRARY = """
import sys
import numpy as np
import flowpolicies

try:
    flowpolicies.get_algorithm("toyy")
except ValueError as error:
    assert str(error).endswith("Did you mean 'toy'?"), error
assert "flowpolicies_toy" not in sys.modules
try:
    flowpolicies.make("toy", dataset="npz:data.npz", temperature_of=0.5)
except TypeError as error:
    assert str(error).endswith("Did you mean 'temperature'?"), error

model = flowpolicies.make("toy", dataset="npz:data.npz", temperature=0.5, actor_hidden_dims=(16,), device="cpu", seed=0)
from flowpolicies_toy import Toy
assert type(model) is Toy is flowpolicies.get_algorithm("TOY") is flowpolicies.ALGORITHMS["toy"]
assert model.cfg.temperature == 0.5
model.learn_offline(3)
model.save("model.zip")
model.policy.save("policy.safetensors")
observations = np.zeros((4, 3), np.float32)
loaded = Toy.load("model.zip", device="cpu")
np.testing.assert_array_equal(model.predict(observations)[0], loaded.predict(observations)[0])
loaded.set_env(flowpolicies.make_env("Pendulum-v1"))
assert loaded.learn(10).num_timesteps == 10
policies = model, flowpolicies.FlowPolicy.load("policy.safetensors", device="cpu")
actions = [policy.predict(observations, deterministic=True)[0] for policy in policies]
np.testing.assert_array_equal(*actions)
"""


def test_it_is_made_trained_saved_and_loaded_like_ours(python: Python) -> None:
    done = python("-c", LIBRARY)
    assert done.returncode == 0, done.stderr


EVALUATION = """
from flowpolicies.cli import main

for file in ("model.zip", "policy.safetensors"):  # The zip brings the plugin's class, the other is a policy only.
    assert main(["evaluate", f"run/{file}", "--env", "Pendulum-v1", "--episodes", "1", "--device", "cpu"]) == 0
"""


def test_it_is_trained_and_evaluated_from_the_command_line(python: Python, tmp_path: Path) -> None:
    place = ("--dataset", "npz:data.npz", "--env", "Pendulum-v1", "--run-dir", "run", "--device", "cpu")
    sizes = ("--steps", "5", "--eval-episodes", "0", "--actor-hidden-dims", "16", "--temperature", "0.5")
    done = python("-m", "flowpolicies", "train", "toy", *place, *sizes)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["hyperparameters"]["temperature"] == 0.5
    done = python("-c", EVALUATION)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert "1 episodes" in first
