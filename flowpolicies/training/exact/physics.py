"""The state of MuJoCo's simulations as arrays."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np

from flowpolicies.tree import Array

_TRANSIENT = re.compile("i?efc_|iacc|ifrc_|map_i?efc|map_i?dof|.*island")
"""Names of arrays about contacts and other constraints, whose sizes change from step to step. MuJoCo computes them from
the positions and velocities."""

_ASSETS = re.compile("mesh|tex_|skin_|hfield_|flex|bvh_|oct_|name|text_|paths")
"""Names of the arrays of a model's assets, which are large, and which environments do not change."""


_MASKS = ("geom_contype", "geom_conaffinity")
"""Arrays of a model's whole numbers that are bit masks, which environments change to let things collide."""

_NOTHING = re.compile("$")


def capture_model(model: Any) -> dict[str, Any]:
    """The numbers of a model, which environments change to move goals or to recolour objects, and its options."""
    return {"arrays": _arrays(model, _ASSETS), "options": _arrays(model.opt, _NOTHING) | _numbers(model.opt)}


def restore_model(model: Any, state: dict[str, Any]) -> Any:
    """Writes what `capture_model` returned into a model of the same scene.

    Raises:
        ValueError: if the scenes differ.
    """
    # MuJoCo trusts the indices in a model, so those of a file are not written. If they differ, the caller sees it.
    _write(model, {name: value for name, value in state["arrays"].items() if not _holds_indices(name, value)})
    arrays = {name: value for name, value in state["options"].items() if isinstance(value, np.ndarray)}
    _write(model.opt, arrays)
    for name in state["options"].keys() - arrays.keys():
        setattr(model.opt, name, state["options"][name])
    return model


def capture_data(data: Any) -> dict[str, Any]:
    """The state that the next step depends on, and all quantities that an observation may read.

    The latter cannot be computed from the former: a step leaves poses, velocities and forces of bodies as they were
    before it moved the joints.
    """
    mujoco: Any = sys.modules["mujoco"]
    signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    state = np.empty(mujoco.mj_stateSize(data.model, signature))
    mujoco.mj_getState(data.model, data, state, signature)
    return {"state": state, "arrays": _arrays(data, _TRANSIENT)}


def restore_data(data: Any, state: dict[str, Any]) -> Any:
    """Writes what `capture_data` returned into the data of a model of the same scene.

    Raises:
        ValueError: if the scenes differ.
    """
    mujoco: Any = sys.modules["mujoco"]
    signature = int(mujoco.mjtState.mjSTATE_INTEGRATION)
    if len(state["state"]) != mujoco.mj_stateSize(data.model, signature):
        raise ValueError("the state is one of another scene")
    mujoco.mj_setState(data.model, data, state["state"], signature)
    # Environments that end a step with `mj_step1`, as DeepMind's do, begin the next one with the contacts found there.
    mujoco.mj_step1(data.model, data)
    _write(data, state["arrays"])
    return data


def _arrays(holder: Any, excluded: re.Pattern[str]) -> dict[str, Array]:
    names = [name for name in dir(holder) if not name.startswith("_") and not excluded.match(name)]
    found = {name: getattr(holder, name) for name in names}
    return {
        name: value.copy() for name, value in found.items() if isinstance(value, np.ndarray) and value.flags.writeable
    }


def _numbers(holder: Any) -> dict[str, int | float]:
    found = {name: getattr(holder, name) for name in dir(holder) if not name.startswith("_")}
    return {name: value for name, value in found.items() if type(value) in (int, float)}


def _holds_indices(name: str, value: Array) -> bool:
    return value.dtype.kind in "iu" and value.dtype.itemsize > 1 and name not in _MASKS


def _write(holder: Any, arrays: dict[str, Array]) -> None:
    for name, value in arrays.items():
        target: Any = getattr(holder, name, None)
        if not isinstance(target, np.ndarray) or target.shape != value.shape:
            raise ValueError(f"{name} has the shape {value.shape}, and the scene {np.shape(target)}")
        target[...] = value
