"""The examples of the documentation run."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from flowpolicies import FlowPolicy
from flowpolicies.core import Network
from flowpolicies.networks import Critic, TanhNormal, VelocityField
from flowpolicies.samplers import Integrate

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "samplers.md").read_text(), re.DOTALL)


@pytest.fixture
def policy(tmp_path: Path) -> FlowPolicy:
    """A policy with every network that the examples name, loaded from a file."""
    torch.manual_seed(0)
    small = {"hidden_dims": (16, 16)}
    networks = {
        "critic": Network(partial(Critic, **small)),
        "actor_flow": Network(partial(VelocityField, **small)),
        "actor_onestep": Network(partial(VelocityField, time_embedding="none", **small)),
        "edit_actor": Network(partial(TanhNormal, takes_action=True, **small)),
        "latent_actor": Network(partial(TanhNormal, **small)),
    }
    box = spaces.Box(-1, 1, (3,))
    FlowPolicy(box, spaces.Box(-1, 1, (2,)), networks=networks, sampler=Integrate()).save(
        tmp_path / "policy.safetensors"
    )
    return FlowPolicy.load(tmp_path / "policy.safetensors", device="cpu")


@pytest.mark.parametrize("block", BLOCKS, ids=[block.splitlines()[0][-40:] for block in BLOCKS])
def test_example_of_a_sampler_runs(block: str, policy: FlowPolicy) -> None:
    before = policy.sampler
    exec(block, {"policy": policy, "observation": np.zeros(3, np.float32)})
    assert policy.sampler != before or "rk4" in block


def test_there_is_an_example_for_each_kind() -> None:
    text = "\n".join(BLOCKS)
    kinds = (
        "Integrate",
        "Guided",
        "RobustGuided",
        "BestOfN",
        "SoftmaxOfN",
        "Edit",
        "Latent",
        "OneStep",
        "MemorylessSDE",
    )
    assert [kind for kind in (*kinds, "flip(0)") if kind not in text] == []
    assert len(BLOCKS) == 9
