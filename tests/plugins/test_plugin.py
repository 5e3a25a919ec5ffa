"""A package with an algorithm, a sampler, a network, an encoder and a data source, installed with pip into a folder.

Python runs in processes that have the package on their path, and in processes that do not.
"""

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


def python_in(folder: Path, *path: Path) -> Python:
    """Calls Python in a folder, with these folders before the present path."""
    found = os.pathsep.join([*map(str, path), *map(os.path.abspath, filter(None, sys.path))])
    environment = {**os.environ, "PYTHONPATH": found, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Python:
    """Calls Python where the plugin is installed, in a folder with a small dataset."""
    pendulum_data().save(tmp_path / "data.npz")
    return python_in(tmp_path, installed)


def test_an_algorithm_is_one_file_under_60_lines_and_one_line() -> None:
    files = sorted(path.name for path in PLUGIN.iterdir() if path.name != "__pycache__")
    assert files == ["flowpolicies_toy.py", "flowpolicies_toy_parts.py", "pyproject.toml"]
    assert len((PLUGIN / "flowpolicies_toy.py").read_text().splitlines()) < 60
    points = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["entry-points"]
    assert points["flowpolicies.algorithms"] == {"toy": "flowpolicies_toy:Toy"}


def test_it_is_listed_with_its_package(python: Python) -> None:
    done = python("-m", "flowpolicies", "list", "algorithms")
    assert (done.returncode, done.stderr) == (0, "")
    row = next(line for line in done.stdout.splitlines() if line.startswith("  toy "))
    assert row.split() == ["toy", "example.org/toy", "Toy", "Mellow(Integrate)", "yes", "yes", "yes", "-"]
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


WITHOUT = """
from pathlib import Path
from flowpolicies import FlowPolicy
from flowpolicies.cli import main
from flowpolicies.training.loading import load_policy

for path in ("run/policy.safetensors", "run/model.zip", "run"):
    assert main(["evaluate", path, "--env", "Pendulum-v1", "--episodes", "1", "--device", "cpu"]) == 2
assert main(["train", "toy", "--dataset", "toy:x"]) == 2
try:
    FlowPolicy.load("run/policy.safetensors")
except ValueError as error:
    print(error)
"""


def test_it_is_trained_and_evaluated_from_the_command_line(python: Python, tmp_path: Path) -> None:
    place = ("--dataset", "toy:random,rows=100", "--run-dir", "run", "--device", "cpu", "--encoder", "brightness")
    sizes = ("--steps", "5", "--eval-episodes", "0", "--actor-hidden-dims", "16", "--temperature", "0.5")
    done = python("-m", "flowpolicies", "train", "toy", *place, *sizes)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"model.zip", "policy.safetensors", "checkpoints"}
    assert json.loads((tmp_path / "run" / "config.json").read_text())["hyperparameters"]["temperature"] == 0.5
    done = python("-c", EVALUATION)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == second
    assert "1 episodes" in first

    done = python_in(tmp_path)("-c", WITHOUT)
    assert done.returncode == 0, done.stderr
    policy, model, run, algorithm = done.stderr.splitlines()
    network = (
        "'run/policy.safetensors': the policy file needs the network 'toy_field' of the package flowpolicies-toy, "
        "which is not installed. "
        "Install it: pip install flowpolicies-toy."
    )
    assert policy == run == f"flowpolicies: {network}"
    assert done.stdout == f"{network}\n"
    assert model == (
        "flowpolicies: the model in 'run/model.zip' needs the package flowpolicies-toy, which cannot be imported "
        "(No module named 'flowpolicies_toy'). Install it: pip install flowpolicies-toy"
    )
    assert algorithm.startswith("flowpolicies: unknown algorithm 'toy' (known: bam, ")


PARTS = """
import sys
import numpy as np
from flowpolicies import FQL, FlowPolicy, list_sources
from flowpolicies.cli import main
from flowpolicies.data import TransitionDataset, load_dataset, save_dataset
from flowpolicies.samplers import BestOfN, Integrate

assert main(["list", "samplers"]) == main(["list", "networks"]) == main(["list", "encoders"]) == 0
assert list_sources("writers")["toy"] == list_sources("datasets")["toy"] == "flowpolicies-toy"
assert "flowpolicies_toy_parts" not in sys.modules

assert str(save_dataset(load_dataset("toy:x"), "toy:written")) == "written.npz"

frames = np.random.default_rng(0).integers(0, 256, (9, 3, 8, 8), np.uint8)
ends = np.arange(8) % 4 == 3
data = TransitionDataset.from_arrays(
    frames[:-1], np.zeros((8, 2)), np.zeros(8), frames[1:], terminations=ends & False, truncations=ends
)
sizes = {"actor_hidden_dims": (8,), "value_hidden_dims": (8,), "device": "cpu", "seed": 0}
model = FQL(dataset=data, encoder="brightness", batch_size=4, **sizes).learn_offline(1)
from flowpolicies_toy_parts import Brightness, Mellow
assert type(model.policy.networks["critic"].encoder.images[0]) is Brightness
model.policy.sampler = BestOfN(Mellow(Integrate(steps=2), line=(0.5, 0.1)), n=2)
model.policy.save("images.safetensors")
loaded = FlowPolicy.load("images.safetensors", device="cpu")
assert loaded.sampler == model.policy.sampler and hash(loaded.sampler)
actions = [policy.predict(frames, deterministic=True)[0] for policy in (model, loaded)]
np.testing.assert_array_equal(*actions)
"""


def test_its_parts_are_listed_and_serve_other_algorithms(python: Python, tmp_path: Path) -> None:
    done = python("-c", PARTS)
    assert done.returncode == 0, done.stderr
    listed = {line.split()[0]: line.partition(line.split()[0])[2].strip() for line in done.stdout.splitlines()}
    assert listed["mellow"] == listed["toy_field"] == "from the package flowpolicies-toy"
    assert listed["brightness"] == "flowpolicies-toy"
    load = "from flowpolicies import FlowPolicy; FlowPolicy.load('images.safetensors')"
    error = python_in(tmp_path)("-c", load).stderr.splitlines()[-1]
    assert error == (
        "flowpolicies.artifacts.ArtifactError: 'images.safetensors': the policy file needs the sampler 'mellow' of the "
        "package flowpolicies-toy, which is not installed. Install it: pip install flowpolicies-toy."
    )
