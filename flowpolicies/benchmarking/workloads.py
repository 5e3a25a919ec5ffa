"""The updates that are measured: sizes of networks and batches, and random data to train on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.data import TransitionDataset


@final
@dataclass(frozen=True, kw_only=True)
class Workload:
    """One update of a certain size. The defaults are the papers' networks and batches."""

    algorithm: str
    """Name of the algorithm."""
    width: int = 512
    """Units of each hidden layer of every network."""
    depth: int = 4
    """Number of hidden layers of every network."""
    batch_size: int = 256
    """Number of rows of a batch."""
    horizon: int = 1
    """Length of the action chunks in environment steps."""
    observation_dim: int = 40
    """Number of observed numbers."""
    action_dim: int = 5
    """Number of coordinates of the action of one environment step."""
    rows: int = 10_000
    """Number of transitions of the dataset."""
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    """Hyperparameters that differ from the algorithm's defaults."""

    @property
    def text(self) -> str:
        """Size of networks and batch in words, such as "4x512, batch 256, h = 5"."""
        chunk = f", h = {self.horizon}" if self.horizon > 1 else ""
        return f"{self.depth}x{self.width}, batch {self.batch_size}{chunk}"


LARGE = {name: Workload(algorithm=name) for name in ("fql", "qflow", "ifql")}
ENSEMBLES = {name: Workload(algorithm=name, horizon=5, hyperparameters={"ensemble": 10}) for name in ("rql", "qam")}
SMALL = {
    "qflow-small": Workload(
        algorithm="qflow",
        width=128,
        depth=2,
        batch_size=128,
        horizon=20,
        observation_dim=4,
        action_dim=2,
        hyperparameters={"flow_steps": 5},
    ),
    "fql-small": Workload(algorithm="fql", width=128, depth=3),
}
COMPARED: Mapping[str, Workload] = {**LARGE, **ENSEMBLES, **SMALL}
"""Name of a row -> an update that is compared with JAX; qflow-small is the demo's."""

TARGETS: Mapping[str, tuple[float, ...]] = {
    **dict.fromkeys(LARGE, (1.0, 0.8, 0.52)),
    **dict.fromkeys(ENSEMBLES, (0.9, 0.7, 0.45)),
    **dict.fromkeys(SMALL, (1.9, 1.0)),
}
"""Name of a row -> largest wanted ratio to JAX: eager, compiled, and compiled with bfloat16 products."""


def random_dataset(rows: int, observation_dim: int, action_dim: int, *, episode: int = 100) -> TransitionDataset:
    """Random transitions in episodes of `episode` steps that end by a time limit."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((rows + 1, observation_dim), np.float32)
    return TransitionDataset.from_arrays(
        states[:-1],
        rng.uniform(-1, 1, (rows, action_dim)).astype(np.float32),
        rng.standard_normal(rows, np.float32),
        states[1:],
        terminations=np.zeros(rows, bool),
        truncations=np.arange(rows) % episode == episode - 1,
    )


def make_model(
    workload: Workload, dataset: TransitionDataset | None = None, *, device: str = "cpu", **options: Any
) -> OfflineAlgorithm:
    """A model of the measured size.

    Args:
        workload: sizes.
        dataset: data to train on; None: random data.
        device: device of the networks.
        options: further arguments of the algorithm's class, such as `compile`.
    """
    cls = get_algorithm(workload.algorithm)
    widths = (workload.width,) * workload.depth
    known = cls.Config.__dataclass_fields__
    sizes: dict[str, Any] = {name: widths for name in ("actor_hidden_dims", "value_hidden_dims") if name in known}
    if dataset is None:
        dataset = random_dataset(workload.rows, workload.observation_dim, workload.action_dim)
    return cls(
        dataset=dataset,
        batch_size=workload.batch_size,
        horizon=workload.horizon,
        device=device,
        **{"seed": 0, **sizes, **workload.hyperparameters, **options},
    )
