"""Trains one cell of the 2D experiments, and writes what figures and the table need of it into its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flowpolicies.files import atomic_folder, write_json
from flowpolicies.policies import FlowPolicy
from flowpolicies.record import describe_hardware, describe_software
from flowpolicies.shell.algorithm import OfflineAlgorithm
from flowpolicies.toy.measures import measure
from flowpolicies.toy.methods import COEFFICIENTS, make_model
from flowpolicies.toy.recording import Recording, frame, record
from flowpolicies.toy.settings import ToyCell, ToySettings, work_of

STOPS = 25
"""Number of times that a training stops for a frame of the animation and the norms of gradients."""
PROBED = 256
"""Number of points whose gradients are measured."""

Log = list[dict[str, Any]]
"""Rows of a training: the number of updates so far, and the norm of the gradient of each loss term."""


def folder_of(cell: ToyCell, settings: ToySettings) -> Path:
    """Folder of a cell, which exists when it is complete: `policy.safetensors`, `arrays.npz` and `cell.json`."""
    return settings.run_dir / "cells" / cell.name


def train_cell(cell: ToyCell, settings: ToySettings, advance: Callable[[int], None] = lambda updates: None) -> None:
    """Trains a cell and writes its folder. The cell that it continues must be complete.

    The optimiser starts anew in the second stage, for which the behaviour cloning of the first one, where another loss
    was larger by orders of magnitude, would otherwise have set the length of its steps.

    Args:
        advance: called with the number of updates since the last call.
    """
    began = time.monotonic()
    model = make_model(cell, settings)
    if cell.start is not None:
        start = FlowPolicy.load(folder_of(cell.start, settings) / "policy.safetensors", settings.device)
        model.policy.load_state_dict(start.state_dict())
    frames, log = _train(model, work_of(cell, settings), advance)
    arrays = record(model.policy, cell.dataset) | {"frames": np.stack(frames)}
    swept = None if cell.coefficient == "default" else COEFFICIENTS[cell.method]
    about = {
        **cell._asdict(),
        "field": swept.field if swept else None,
        "value": getattr(model, swept.field) if swept else None,
        "updates": work_of(cell, settings),
        "size": settings.size(cell.dataset)._asdict(),
        "full": settings.full,
        "measures": measure(arrays["samples"], cell.dataset)._asdict(),
        "log": log,
        "seconds": time.monotonic() - began,
        "software": describe_software(),
        "hardware": describe_hardware() | {"device": str(model.device)},
    }
    with atomic_folder(folder_of(cell, settings)) as folder:
        model.policy.save(folder / "policy.safetensors")
        np.savez_compressed(folder / "arrays.npz", **arrays)  # type: ignore[arg-type]  # Recording by name.
        write_json(folder / "cell.json", about)


def read_cell(folder: Path) -> dict[str, Any]:
    """What `cell.json` says of a complete cell."""
    return dict(json.loads((folder / "cell.json").read_text()))


def read_arrays(folder: Path) -> Recording:
    """What was recorded of a complete cell."""
    with np.load(folder / "arrays.npz") as file:
        return {name: file[name] for name in file.files}


def _train(model: OfflineAlgorithm, updates: int, advance: Callable[[int], None]) -> tuple[list[np.ndarray], Log]:
    """Makes updates; returns frames at equal distances, the first one before training, and the log."""
    stops = np.unique(np.linspace(0, updates, STOPS).round().astype(int)).tolist()
    generator = torch.Generator(device=model.device).manual_seed(0)
    frames, log, done = list[np.ndarray](), Log(), 0
    for stop in stops:
        if stop > done:
            model.learn_offline(stop - done, log_interval=updates, reset_num_timesteps=False)
            advance(stop - done)
            done = stop
        frames.append(frame(model.policy))
        log.append({"update": done, **_gradient_norms(model, generator)})
    return frames, log


def _gradient_norms(model: OfflineAlgorithm, generator: torch.Generator) -> dict[str, float]:
    """Norm of the gradient of each loss term, on one batch."""
    found = model.probe(model.transitions.sample(PROBED), generator)
    return {name: value for name, value in found.items() if name.endswith("/grad_norm")}
