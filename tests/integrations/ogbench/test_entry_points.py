"""Addresses that begin with "ogbench:" reach this integration through the installed entry points."""

import sys
from pathlib import Path

import pytest

from flowpolicies.data import generate_dataset, list_sources, load_dataset, make_env
from flowpolicies_ogbench import OGBenchEnv

ADDRESS = "ogbench:pointmaze-medium-navigate-singletask-task1-v0"


@pytest.mark.parametrize("kind", ["datasets", "environments", "generators"])
def test_ogbench_is_a_source(kind: str) -> None:
    assert list_sources(kind)["ogbench"] == "flowpolicies"


def test_addresses_reach_ogbench(tmp_path: Path) -> None:
    path = generate_dataset(ADDRESS, data_dir=tmp_path, num_episodes=1, max_episode_steps=4, progress=False)
    assert path.parent == tmp_path
    dataset = load_dataset(ADDRESS, data_dir=tmp_path)
    assert len(dataset) == 3
    env = make_env(ADDRESS, seed=1)
    assert isinstance(env, OGBenchEnv)
    assert env.observation_space == dataset.observation_space
    assert env.action_space == dataset.action_space


def test_without_ogbench_the_line_to_install_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("flowpolicies_ogbench")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ogbench", None)
    with pytest.raises(
        ImportError, match=r"source 'ogbench' cannot be imported .* pip install \"flowpolicies\[ogbench\]\""
    ):
        load_dataset(ADDRESS)
