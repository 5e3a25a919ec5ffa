"""The examples of the documentation run, and every page is in the navigation."""

import importlib.util
import re
from functools import partial
from pathlib import Path
from types import ModuleType

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


def load_hooks() -> ModuleType:
    """docs/hooks.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def test_every_page_is_in_the_navigation() -> None:
    hooks = load_hooks()
    text = (ROOT / "mkdocs.yml").read_text()
    named = re.findall(r"^ *- (?:[^:\n]+: )?(\S+\.md)$", text.partition("nav:\n")[2], re.MULTILINE)
    shown = hooks.expand(named, ROOT / "docs")
    assert len(set(shown)) == len(shown)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - set(shown) == set()
    assert "algorithms/*.md" in named  # So a new algorithm needs no line.


def test_navigation_lists_a_page_once_and_keeps_titles(tmp_path: Path) -> None:
    hooks = load_hooks()
    (tmp_path / "rooms").mkdir()
    for name in ("index", "b", "a"):
        (tmp_path / "rooms" / f"{name}.md").touch()
    nav = [{"Start": "start.md"}, {"Rooms": [{"Table": "rooms/index.md"}, "rooms/*.md"]}]
    expanded = [{"Start": "start.md"}, {"Rooms": [{"Table": "rooms/index.md"}, "rooms/a.md", "rooms/b.md"]}]
    assert hooks.expand(nav, tmp_path) == expanded
