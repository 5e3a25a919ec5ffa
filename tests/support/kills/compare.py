"""What differs between two runs, apart from times: weights, optimiser, buffer, generators, rows of logs, files."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from gymnasium import Space
from safetensors import safe_open
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from flowpolicies.algorithms import get_algorithm
from flowpolicies.training import RunFolder, load_checkpoint

STEPS = ("time/offline_steps", "time/total_timesteps", "time/episodes")
"""Columns of the log that begin with "time" and do not tell the time."""
OF_THE_COMMAND = ("commands", "parts", "hardware", "settings")
"""Keys of `config.json` that hold the commands, of which a continued run has several."""


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two finished runs of the same command; a line for each difference."""
    return list(_differences(RunFolder(one), RunFolder(other)))


def is_clock(column: str) -> bool:
    """Whether a column of the log tells the time."""
    return column.startswith("time/") and column not in STEPS


def _differences(one: RunFolder, other: RunFolder) -> Iterator[str]:
    yield from _walk("files", _names(one), _names(other))
    yield from _walk("policy", _policy(one.policy), _policy(other.policy))
    yield from _walk("evaluations.csv", one.evaluations.read_text(), other.evaluations.read_text())
    yield from _walk("progress.csv", _rows(one.progress), _rows(other.progress))
    yield from _walk("config.json", _config(one), _config(other))
    yield from _walk("tensorboard", _events(one), _events(other))
    yield from _walk("model.zip", _model(one), _model(other))


def _names(run: RunFolder) -> list[str]:
    """Names of all files; those of TensorBoard hold a time and a process, so only their folders count."""
    files = sorted(path for path in run.path.rglob("*") if path.is_file())
    return sorted(
        {str(p.relative_to(run.path).parent if "tfevents" in p.name else p.relative_to(run.path)) for p in files}
    )


def _policy(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return {"metadata": file.metadata(), **{key: file.get_tensor(key) for key in file.keys()}}  # noqa: SIM118


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a log, with the cells that are not empty and do not tell the time."""
    with open(path, newline="") as file:
        return [{key: v for key, v in row.items() if v and not is_clock(key)} for row in csv.DictReader(file)]


def _config(run: RunFolder) -> dict[str, Any]:
    record = json.loads(run.config.read_text())
    return {key: value for key, value in record.items() if key not in OF_THE_COMMAND}


def _events(run: RunFolder) -> dict[str, list[Any]]:
    """Phase -> (tag, step, value) of all events but those of the clock, sorted."""
    found: dict[str, list[Any]] = {}
    for path in sorted((run.path / "tensorboard").rglob("*tfevents*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if not is_clock(value.tag):
                    number = torch.tensor(value.tensor.float_val[0] if value.tensor.float_val else value.simple_value)
                    found.setdefault(path.parent.name, []).append((value.tag, event.step, number.item()))
    return {phase: sorted(rows) for phase, rows in found.items()}


def _model(run: RunFolder) -> dict[str, Any]:
    """The model with its optimiser, generators and counters, and the transitions of the last checkpoint."""
    algorithm = get_algorithm(run.read_config()["algorithm"])
    model = algorithm.load(run.model, device="cpu")
    counters = ("offline_steps", "num_timesteps", "_n_updates", "_episode_num")
    checkpoint = load_checkpoint(algorithm, run, device="cpu")
    return {
        "parameters": model.get_parameters(),
        "generators": getattr(model, "generators", None),
        **{name: getattr(model, name) for name in counters},
        "checkpoint": checkpoint.get_parameters(),
        "buffer": checkpoint.replay_buffer,
    }


SKIPPED = ("env", "_env", "dataset", "offline", "device", "path")
"""Attributes of a buffer that are not its content."""


def _walk(path: str, one: Any, other: Any, depth: int = 0) -> Iterator[str]:
    """Paths at which two values differ; numbers are equal if their bits are."""
    if type(one) is not type(other):
        yield f"{path}: {type(one).__name__} and {type(other).__name__}"
    elif isinstance(one, torch.Tensor):
        yield from _walk(path, one.detach().cpu().numpy(), other.detach().cpu().numpy(), depth)
    elif isinstance(one, torch.Generator):
        yield from _walk(path, one.get_state(), other.get_state(), depth)
    elif isinstance(one, np.random.Generator):
        yield from _walk(path, one.bit_generator.state, other.bit_generator.state, depth)
    elif isinstance(one, Space):
        if one != other:  # What a space draws from is not part of it.
            yield f"{path}: {one} and {other}"
    elif isinstance(one, np.ndarray):
        if one.dtype != other.dtype or one.shape != other.shape:
            yield f"{path}: {one.dtype} {one.shape} and {other.dtype} {other.shape}"
        elif one.tobytes() != other.tobytes():
            yield f"{path}: {int((one != other).sum())} of {one.size} numbers differ"
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield f"{path}: keys {sorted(map(str, one.keys() ^ other.keys()))[:5]} are in one only"
        for key in one.keys() & other.keys():
            yield from _walk(f"{path}/{key}", one[key], other[key], depth + 1)
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            new, old = [x for x in other if x not in one], [x for x in one if x not in other]
            yield f"{path}: {len(one)} and {len(other)} items; only in the first {old[:3]}, in the second {new[:3]}"
        else:
            for number, pair in enumerate(zip(one, other, strict=True)):
                yield from _walk(f"{path}/{number}", *pair, depth + 1)
    elif dataclasses.is_dataclass(one) or (hasattr(one, "__dict__") and not isinstance(one, FunctionType | MethodType)):
        if depth < 12:
            parts = [{k: v for k, v in vars(item).items() if k not in SKIPPED} for item in (one, other)]
            yield from _walk(path, parts[0], parts[1], depth + 1)
    elif isinstance(one, float):
        if np.float64(one).tobytes() != np.float64(other).tobytes():
            yield f"{path}: {one!r} and {other!r}"
    elif isinstance(one, str | int | bool | bytes | type(None)) and one != other:
        yield f"{path}: {str(one)[:200]!r} and {str(other)[:200]!r}"
