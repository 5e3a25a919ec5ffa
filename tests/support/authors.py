"""Checkpoints as the authors' `save_agent` writes them, from the weights of our recordings."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parents[1] / "golden"


def recording(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The authors' hyperparameters and the arrays of a recording."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    return json.loads(bytes(arrays.pop("config"))), arrays


def agent(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The state of an agent: nested dicts of the networks' weights, with the state of Adam and the random key."""
    params: dict[str, Any] = {}
    for key, array in arrays.items():
        if key.startswith("param/"):
            network, *path, name = key.split("/")[1:]
            inner = params.setdefault(f"modules_{network}", {})
            for part in path:
                inner = inner.setdefault(part, {})
            inner[name] = array
    adam = {"0": {"count": np.int32(7), "mu": params, "nu": params}, "1": {}}
    return {"rng": np.zeros(2, np.uint32), "network": {"step": np.int32(8), "params": params, "opt_state": adam}}


def write_checkpoint(folder: Path, name: str, protocol: int = 4, flags: bool = True, **changes: Any) -> Path:
    """Writes a recording as a checkpoint, with flags.json beside it.

    Args:
        folder: folder to write to.
        name: name of the recording.
        protocol: protocol of the pickle.
        flags: whether flags.json is written.
        **changes: hyperparameters in flags.json that differ from the recorded ones.
    """
    config, arrays = recording(name)
    path = folder / "params_1000000.pkl"
    path.write_bytes(pickle.dumps({"agent": agent(arrays)}, protocol))
    if flags:
        # As the authors' training writes them, which learns the sizes of the spaces afterwards.
        written = {**config, "action_dim": None, "ob_dims": None, **changes}
        (folder / "flags.json").write_text(json.dumps({"seed": 0, "env_name": "cube-single-play-v0", "agent": written}))
    return path
