"""Minari datasets in a temporary folder, made by Minari's own collector."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

# The two imports below need Minari and this folder in the import path.
minari = pytest.importorskip("minari")
sys.path.insert(0, str(Path(__file__).parent))
from minari_worlds import Witness  # noqa: E402

from flowpolicies.data import TransitionDataset  # noqa: E402


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of all Minari datasets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


@contextlib.contextmanager
def tree_map() -> Iterator[None]:
    """Replace the one function of JAX that Minari's collector uses by the same function of PyTorch."""
    if importlib.util.find_spec("jax") is not None:
        yield
        return
    from torch.utils import _pytree

    jax, tree_util = types.ModuleType("jax"), types.ModuleType("jax.tree_util")
    jax.tree_util = tree_util
    tree_util.tree_map = _pytree.tree_map
    sys.modules |= {"jax": jax, "jax.tree_util": tree_util}
    try:
        yield
    finally:
        del sys.modules["jax"], sys.modules["jax.tree_util"]


@pytest.fixture
def record(root: Path) -> Callable[..., list[Any]]:
    """A function that records random episodes with Minari's DataCollector and returns them as they happened."""

    def make(name: str, env: gym.Env[Any, Any] | str, episodes: int = 3, **options: Any) -> list[Any]:
        witness = Witness(gym.make(env) if isinstance(env, str) else env)
        collector_options = {key: options.pop(key) for key in ("jpeg_encoding",) if key in options}
        with tree_map(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Minari warns that the author and other metadata are missing.
            collector = minari.DataCollector(witness, **collector_options)
            collector.action_space.seed(0)
            for seed in range(episodes):
                collector.reset(seed=seed)
                done = False
                while not done:
                    *_, terminated, truncated, _ = collector.step(collector.action_space.sample())
                    done = terminated or truncated
            collector.create_dataset(name, **options)
            collector.close()
        return witness.episodes

    return make


@pytest.fixture
def write(root: Path) -> Callable[..., None]:
    """A function that writes given episodes as a Minari dataset without an environment."""

    def make(name: str, episodes: list[dict[str, Any]], space: Any = None, actions: Any = None, **options: Any) -> None:
        from minari.data_collector import EpisodeBuffer

        root.mkdir(parents=True, exist_ok=True)
        box = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            minari.create_dataset_from_buffers(
                name,
                [EpisodeBuffer(**episode) for episode in episodes],
                observation_space=box if space is None else space,
                action_space=gym.spaces.Box(-1, 1, (1,), np.float32) if actions is None else actions,
                **options,
            )

    return make


@pytest.fixture
def episode() -> Callable[..., dict[str, Any]]:
    """A function that makes an episode of random numbers; keywords replace its arrays."""

    def make(steps: int = 5, seed: int = 0, **arrays: Any) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        ends = np.arange(steps) == steps - 1
        return {
            "observations": rng.normal(size=(steps + 1, 2)).astype(np.float32),
            "actions": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
            "rewards": rng.normal(size=steps),
            "terminations": np.zeros(steps, bool),
            "truncations": ends,
            **arrays,
        }

    return make


@pytest.fixture
def train() -> Callable[[TransitionDataset], Any]:
    """A function that makes one update of behaviour cloning on a dataset."""
    from tiny import tiny

    from flowpolicies import BC

    def run(dataset: TransitionDataset) -> Any:
        model = tiny(BC, dataset=dataset)
        return model.learn_offline(1)

    return run
