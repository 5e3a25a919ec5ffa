"""The updates in JAX of the repository's folder benchmarks/peers, which the package does not contain."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.core.types import Tree

FOLDER = Path(__file__).parents[2] / "benchmarks"
"""The folder that holds the package `peers` in a checkout of the repository."""


def load_peers() -> Any:
    """The module `peers`.

    Raises:
        ImportError: without a checkout of the repository, JAX or optax; the message says what to do.
    """
    if not (FOLDER / "peers" / "__init__.py").is_file():
        raise ImportError(
            "the updates in JAX are part of the repository, not of the installed package: run the command with a "
            "checkout of it, installed by `pip install -e '.[bench]'`."
        )
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    try:
        return importlib.import_module("peers")
    except ImportError as error:
        raise ImportError(f"{error}. Install JAX and optax: pip install -e '.[bench]'") from error


def peer_of(model: OfflineAlgorithm, peers: Any) -> Callable[[int], object]:
    """A function that makes a number of updates in JAX, from the weights and on a batch of a model of ours.

    Raises:
        LookupError: if the algorithm has no update in JAX.
    """
    peer = peers.PEERS.get(model.name)
    if peer is None:
        raise LookupError(f"{model.name} has no update in JAX (there are: {', '.join(peers.PEERS)}).")
    learner = model._learner
    rates = {name: spec.target_rate for name, spec in learner.specs.items() if spec.target_rate is not None}
    optimizer = peers.make_optimizer(model.cfg)
    update = peers.make_update(peer, model.cfg, rates, optimizer)
    params, targets = _arrays(model._state.params), _arrays(model._state.targets)
    state = peers.first_state(params, targets, optimizer)
    batch = {key: column.numpy() for key, column in model.transitions.sample(model.batch_size)._asdict().items()}

    def run(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = update(state, batch)
        peers.wait_for(state)

    return run


def _arrays(trees: Tree) -> dict[str, dict[str, np.ndarray]]:
    """Copies of weights."""
    return {name: {key: np.array(p.numpy(force=True)) for key, p in tree.items()} for name, tree in trees.items()}
