"""The policies that the package brings load offline, act, and are what their cards say."""

from __future__ import annotations

import json
import resource
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pretrained import acting_only, commands, fingerprint, local_recipe, recipes

from flowpolicies import FlowPolicy, make_env
from flowpolicies.algorithms import IFQL, RQL, QFlow
from flowpolicies.cli.app import _parse
from flowpolicies.core import ReplayedNoise
from flowpolicies.policies.sharing.finding import BOX, list_box

NAMES = list_box()
EXAMPLE = """
from flowpolicies import FlowPolicy, evaluate

policy = FlowPolicy.from_pretrained("flowpolicies/pointmaze-medium-qflow")
print(evaluate(policy, "ogbench:pointmaze-medium-navigate-singletask-task1-v0", episodes=1, seed=0))
"""
"""The first example of the README."""


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(name: str) -> FlowPolicy:
    return FlowPolicy.from_pretrained(f"flowpolicies/{name}", device="cpu")


def test_every_policy_has_a_recipe_and_all_kinds_are_there() -> None:
    assert sorted(recipes(Path("work"))) == NAMES
    policies = [load(name) for name in NAMES]
    assert {"Integrate", "OneStep"} <= {type(policy.sampler).__name__ for policy in policies}
    assert {policy.horizon > 1 for policy in policies} == {True, False}


def test_it_is_small_and_complete(name: str) -> None:
    files = {file.name: file.stat().st_size for file in (BOX / name).iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "README.md", "results.json"}
    assert sum(files.values()) < 1_000_000


def test_its_weights_are_those_that_were_evaluated(name: str) -> None:
    results = json.loads((BOX / name / "results.json").read_text())
    assert fingerprint(load(name)) == results["training"]["weights"]
    (evaluation,) = results["evaluations"]
    assert evaluation["environment"] == recipes(Path("work"))[name].env
    assert evaluation["episodes"] >= 50
    assert evaluation["mean_return"]["low"] < evaluation["mean_return"]["high"]
    assert results["license"] == "mit"


def test_its_card_holds_the_commands_that_made_it(name: str) -> None:
    card, results = (BOX / name / "README.md").read_text(), json.loads((BOX / name / "results.json").read_text())
    home = str(Path.home())
    for command in commands(name):
        assert command.replace(home, "~") in card.replace(home, "~")
    assert results["training"]["software"]["flowpolicies_commit"] in card
    assert results["dataset"]["fingerprint"] in card
    assert f'FlowPolicy.from_pretrained("flowpolicies/{name}")' in card


def test_it_acts_in_its_environment(name: str) -> None:
    policy, again = load(name), load(name)
    with closing(make_env(recipes(Path("work"))[name].env)) as env:
        assert env.action_space == policy.action_space
        observation, _ = env.reset(seed=0)
        state, actions = None, []
        policy.seed(0)
        for step in range(25):
            action, state = policy.predict(observation, state, np.array([step == 0]))
            assert env.action_space.contains(action)
            actions.append(action)
            observation, reward, terminated, truncated, _ = env.step(action)
            assert np.isfinite(reward)
            assert not terminated
            assert not truncated
    assert np.ptp(actions, axis=0).max() > 0.1
    again.seed(0)
    with closing(make_env(recipes(Path("work"))[name].env)) as env:
        first, _ = again.predict(env.reset(seed=0)[0], None, np.array([True]))
    np.testing.assert_array_equal(first, actions[0])


def test_readme_example_is_quick() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", EXAMPLE], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "1 episodes" in done.stdout
    assert "success 1 " in done.stdout
    # The time of the processor, because tests may share the machine.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


@pytest.mark.parametrize(
    ("algorithm", "kept"), [(QFlow, {"actor_flow"}), (RQL, {"actor_flow"}), (IFQL, {"actor_flow", "critic"})]
)
def test_what_only_training_needs_is_left_out(algorithm: type, kept: set[str]) -> None:
    options = {"actor_hidden_dims": (8, 8), "value_hidden_dims": (8, 8), "horizon": 2, "seed": 0}
    policy = algorithm("FlowPolicy", "Pendulum-v1", **options).policy
    with torch.no_grad():
        for target in policy.targets.parameters():
            target.add_(0.1)  # Slow copies that act are kept in the place of the trained weights.
    small = acting_only(policy)
    assert set(small.networks) == kept
    assert len(small.targets) == 0
    observations = torch.randn(5, 3)
    noise = torch.randn(5, 32, small.chunk_dim) if "critic" in kept else torch.randn(5, small.chunk_dim)
    one, other = (p.sampler(p.view(), observations, ReplayedNoise(p.chunk_dim, [noise])) for p in (policy, small))
    assert torch.equal(one, other)


def test_a_run_of_the_local_benchmark_is_a_recipe() -> None:
    recipe = local_recipe("pointmaze-medium", 3, "qflow", 2, 1)
    assert recipe.env == "ogbench:pointmaze-medium-navigate-singletask-task3-v0"
    assert recipe.run == Path("runs/reproduce/local/final-pointmaze-medium-task3-qflow-seed1")
    generate, train = recipe.steps
    assert generate.done.name == "pointmaze-medium-navigate-v0.npz"
    assert train.done == recipe.run / "policy.safetensors"
    made: list[Any] = [_parse(shlex.split(step.words)) for step in recipe.steps]
    assert made[0].data_dir == made[1].settings.data_dir == generate.done.parent
    assert made[1].hyperparameters.guidance_lambda == 2
