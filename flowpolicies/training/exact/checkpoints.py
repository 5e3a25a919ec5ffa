"""The state beside a checkpoint, `step_*.state.npz`: what the next step of `learn` depends on besides the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from stable_baselines3.common.vec_env import VecEnv

from flowpolicies.algorithms import OfflineAlgorithm
from flowpolicies.artifacts import ArtifactError, reading
from flowpolicies.shell.no_environment import SpacesOnlyVecEnv
from flowpolicies.training.exact.environments import capture_vec_env, restore_vec_env
from flowpolicies.training.exact.files import read_state, write_state
from flowpolicies.training.exact.values import Capture, NotCapturedError, restore

VERSION = 1
"""Version of the file's layout."""


ENDING = ".state.npz"
"""Ending of the file, after the stem of its checkpoint."""


def state_of(checkpoint: Path) -> Path:
    """Path of the state beside a checkpoint; runs of older versions, and checkpoints of an offline phase, have none."""
    return checkpoint.with_suffix(ENDING)


def state_parts(model: OfflineAlgorithm) -> dict[str, Callable[[BinaryIO], None]]:
    """Ending of the file -> function that writes it; empty for a model that `learn` was not called on.

    Call it between two rounds of `learn`, as `AtomicCheckpoint` does. Inside a step the newest transition is not stored
    yet, and training cannot continue exactly from there.
    """
    has_begun = not model.is_offline and model.env is not None and model._last_obs is not None
    return {ENDING: partial(_write, model)} if has_begun else {}


def _write(model: OfflineAlgorithm, file: BinaryIO) -> None:
    """Writes the state of the training loop and of the environments, or why there is no state of the latter."""
    assert model.env is not None
    state: dict[str, Any] = {"version": VERSION, "steps": model.num_timesteps, "environments": None, "obstacle": None}
    state["loop"] = Capture().value(model.loop_state(), "the state of the training loop")
    try:
        if not model.is_between_steps:
            raise NotCapturedError("the checkpoint was saved in the middle of a step; save it with AtomicCheckpoint")
        state["environments"] = capture_vec_env(model.env)
    except NotCapturedError as obstacle:
        state["obstacle"] = str(obstacle)
    write_state(file, state)


def restore_state(model: OfflineAlgorithm, path: Path) -> bool:
    """Continues the training loop of a loaded model, and its environments, where they were when it was saved.

    If the environments cannot continue, a warning says why, and the next `learn` begins with a reset: their open
    episodes end in the buffer, as at a time limit.

    Returns:
        Whether training continues exactly.

    Raises:
        ArtifactError: if the file is damaged, or belongs to another checkpoint.
    """
    if model.num_timesteps == 0 or model.env is None or isinstance(model.env, SpacesOnlyVecEnv):
        return False
    obstacle: str | None = "the checkpoint has no state of the environments, as those of earlier versions"
    if path.is_file():
        state = _read(path, model.num_timesteps)
        obstacle = state["obstacle"] or _restore_environments(model.env, state["environments"], path)
        with reading(path, "loop"):
            model.continue_loop(state["loop"], exact=obstacle is None)
    if obstacle is not None:
        warnings.warn(
            f"training continues with new episodes, so it will differ from a run without the interruption: {obstacle}",
            stacklevel=3,
        )
    return obstacle is None


def _read(path: Path, steps: int) -> dict[str, Any]:
    found = read_state(path)
    with reading(path, hint="It is not the state of a checkpoint."):
        version, saved = found["version"], found["steps"]
        state = {"obstacle": found["obstacle"], "environments": found["environments"]}
        state["loop"] = restore(None, found["loop"], "loop")
    if version != VERSION or saved != steps:
        raise ArtifactError(
            path,
            f"it has version {version} and belongs to a checkpoint after {saved} environment steps; needed are version "
            f"{VERSION} and {steps} steps",
        )
    return state


def _restore_environments(env: VecEnv, state: Any, path: Path) -> str | None:
    """Restores the environments; returns what stands against it, or None."""
    with reading(path, "environments", "It is not the state of these environments."):
        try:
            restore_vec_env(env, state)
        except NotCapturedError as obstacle:
            return str(obstacle)
    return None
