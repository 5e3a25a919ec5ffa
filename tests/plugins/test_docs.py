"""docs/plugins.md: its blocks are run as the cells of a notebook, where every class is in `__main__`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from flowpolicies.data.sources import SOURCES
from flowpolicies.networks import ENCODERS, NETWORKS
from flowpolicies.samplers import SAMPLERS
from flowpolicies.shell.registry import REGISTRY

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
*DECLARATIONS, USE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)

MORE = """
import json
import torch
from flowpolicies.data import generate_dataset, list_sources, load_dataset, save_dataset
from flowpolicies.inspection.environment import check_resimulation, open_resimulator
from flowpolicies.training import TrainSettings, train
from flowpolicies import FQL

observations = np.zeros((4, 3), np.float32)
expected = model.predict(observations, deterministic=True)[0]
np.testing.assert_array_equal(policy.predict(observations, deterministic=True)[0], expected)
np.testing.assert_array_equal(MellowBC.load("model.zip").predict(observations, deterministic=True)[0], expected)
np.save("expected.npy", expected)

data = load_dataset("mine:pendulum,rows=100")
assert list_sources("datasets")["mine"] == "module __main__"
assert len(load_dataset(f"npz:{generate_dataset('mine:made')}")) == 200
assert save_dataset(data, "mine:written") == Path("written.txt")
(finding,) = check_resimulation(data, open_resimulator("mine:pendulum", data), np.arange(20))
assert finding.severity == "info" and "0.0% disagree" in finding.message, finding

frames = np.zeros((9, 3, 8, 8), np.uint8)
ends = np.arange(8) % 4 == 3
images = TransitionDataset.from_arrays(
    frames[:-1], np.zeros((8, 2)), np.zeros(8), frames[1:], terminations=ends & False, truncations=ends
)
model = FQL(dataset=images, encoder="small_cnn", batch_size=4, actor_hidden_dims=(8,), value_hidden_dims=(8,))
assert model.learn_offline(1).policy.networks["critic"].encoder.out_dim == 16

settings = TrainSettings(dataset="mine:pendulum,rows=60", steps=2, eval_episodes=2, eval_envs=2, run_dir=Path("run"))
folder = train(MellowBC, MellowBCConfig(), settings)
assert folder.policy.is_file() and folder.model.is_file() and folder.plot.is_file()
assert len(folder.read_evaluations()) == 1
"""

AGAIN = """
from flowpolicies import FlowPolicy

policy = FlowPolicy.load("policy.safetensors")
assert isinstance(policy.sampler, Mellow)
actions = policy.predict(np.zeros((4, 3), np.float32), deterministic=True)[0]
np.testing.assert_array_equal(actions, np.load("expected.npy"))
model = MellowBC.load("model.zip")
assert type(model.cfg) is MellowBCConfig
actions = model.predict(np.zeros((4, 3), np.float32), deterministic=True)[0]
np.testing.assert_array_equal(actions, np.load("expected.npy"))
"""

NOWHERE = """
from flowpolicies import FlowPolicy

try:
    FlowPolicy.load("policy.safetensors")
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_the_page_runs_as_a_notebook_and_its_policy_loads_where_the_names_are_declared(tmp_path: Path) -> None:
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def notebook(*cells: str) -> str:
        command = [sys.executable, "-c", "\n".join(cells)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    notebook(*DECLARATIONS, *DECLARATIONS, USE, MORE)  # Every cell twice: the same class may be declared again.
    notebook(*DECLARATIONS, AGAIN)
    assert notebook(NOWHERE) == (
        "'policy.safetensors': the policy file needs the network 'shallow_field', the class ShallowField of the module "
        "__main__, which is "
        "not registered in this process. Before loading, run or import the code that declares it with "
        '@register_network("shallow_field").\n'
    )


def test_the_page_names_every_group_of_entry_points() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    groups = set(tomllib.loads(block)["project"]["entry-points"])
    registries = (REGISTRY, SAMPLERS, NETWORKS, ENCODERS, *SOURCES.values())
    assert groups == {registry.group for registry in registries}
