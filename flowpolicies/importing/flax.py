"""Policies from the checkpoints of the authors' implementations, which are pickles of flax parameters."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces

from flowpolicies.algorithms import OfflineAlgorithm, get_algorithm
from flowpolicies.artifacts import ArtifactError, parse_json, reading
from flowpolicies.core import Network
from flowpolicies.core.types import Tree
from flowpolicies.data import make_env
from flowpolicies.importing.parameters import SLOW, fitted, hyperparameters, input_widths, output_widths, renamed
from flowpolicies.importing.ports import PORTS, Port, port_of
from flowpolicies.importing.unpickling import read_pickle
from flowpolicies.policies import FlowPolicy
from flowpolicies.spaces.layout import check_action_space

MODULES = "modules_"
"""Beginning of the names of networks in the authors' parameters."""
FLAGS = "flags.json"
"""File with the hyperparameters that the authors' training writes beside its checkpoints."""
MAX_FLAGS_BYTES = 1_000_000
"""Largest file of hyperparameters that is read."""
MAX_COUNT, MAX_ENSEMBLE = 10_000, 1_000
"""Largest number of flow steps or candidates, and of critics."""
TAU = 0.005
"""Polyak rate of the declared networks, which acting does not use."""


class Imported(NamedTuple):
    """A policy from a checkpoint."""

    policy: FlowPolicy
    """The policy, with the checkpoint's weights."""
    algorithm: type[OfflineAlgorithm]
    """The algorithm of the policy."""
    config: Any
    """Its hyperparameters: those that the authors' file or the options give, those that the weights tell, and defaults
    for the rest."""


def import_flax(
    path: str | os.PathLike[str],
    algorithm: str,
    *,
    flags: str | os.PathLike[str] | None = None,
    env: str | None = None,
    **options: Any,
) -> Imported:
    """Reads a checkpoint of the authors' `save_agent`, without jax or flax, and without executing anything in it.

    Sizes of networks are read from the weights. What else changes how the policy acts must be in `flags` or in the
    options.

    Args:
        path: the checkpoint, such as params_1000000.pkl.
        algorithm: name of the algorithm here, such as "fql"; `importable()` lists them.
        flags: JSON file of the authors' hyperparameters; None: flags.json beside the checkpoint, if there is one.
        env: address of the environment for the policy's spaces; None: flat observations without bounds, and actions in
            [-1, 1].
        **options: hyperparameters by the authors' names, such as flow_steps, horizon_length or inv_temp, which win
            over those of `flags`.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if the checkpoint or the hyperparameters are damaged, or are of another algorithm.
        ValueError: if the algorithm cannot be imported, a hyperparameter is missing, or the environment does not fit.
    """
    path, port = Path(path), port_of(algorithm)
    arrays = read_checkpoint(path)
    source, recorded = _recorded(path, flags)
    recorded |= options
    _check_networks(path, port, arrays)
    observation_width, action_width = _widths(path, port, arrays)
    observation_space, action_space = _spaces(env, observation_width)
    if action_space is not None:
        recorded = {"horizon_length": action_width // int(np.prod(action_space.shape)), **recorded}
    _check_complete(path, port, recorded)
    recorded |= _chunks(recorded.get("horizon_length", 1), action_width, action_space)
    cls = get_algorithm(port.algorithm)
    with reading(source, hint=f"The hyperparameters do not suit {cls.name}, or the file is of another checkpoint."):
        cfg: Any = cls.Config(**hyperparameters(port, cls.Config, recorded, arrays))
        _check_counts(cfg)
    networks = cfg.networks(TAU)
    weights, slow = _weights(path, source, port, arrays, networks, (observation_width, action_width))
    if action_space is None:
        action_space = spaces.Box(-1.0, 1.0, (action_width // cfg.horizon,), np.float32)
    policy = FlowPolicy(
        observation_space,
        action_space,
        networks=networks,
        sampler=cfg.sampler(),
        explorer=cfg.explorer(),
        act_with=cls.act_with,
        explore_with=cls.explore_with,
        horizon=cfg.horizon,
        execute=cfg.execute,
    )
    for modules, tree in ((policy.networks, weights), (policy.targets, slow)):
        for name, module in modules.items():
            module.load_state_dict(tree[name])
    return Imported(policy, cls, cfg)


def importable() -> tuple[str, ...]:
    """Names of the algorithms whose checkpoints can be imported."""
    return tuple(PORTS)


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """The weights of a checkpoint by `<network>/<module>/<layer>/<parameter>`.

    Raises:
        FileNotFoundError: if there is no such file.
        ArtifactError: if it is not a checkpoint, or holds weights that are not finite numbers.
    """
    tree = read_pickle(path)
    for key in ("agent", "network", "params"):
        tree = tree[key] if isinstance(tree, dict) and key in tree else tree
    names = [key for key in tree if str(key).startswith(MODULES)] if isinstance(tree, dict) else []
    if not names:
        raise ArtifactError(
            path,
            f"there are no networks in agent/network/params: their names begin with {MODULES!r}",
            hint="Checkpoints are the files params_STEP.pkl that the authors' save_agent() writes.",
        )
    arrays = {name: array for key in names for name, array in _flat(path, key.removeprefix(MODULES), tree[key])}
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise ArtifactError(path, "holds values that are not finite numbers", place=name)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def _flat(path: Path, name: str, value: Any) -> Iterable[tuple[str, np.ndarray]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(path, f"{name}/{key}", item)
    elif isinstance(value, np.ndarray | np.generic) and "/" in name:
        yield name, np.asarray(value)
    else:
        raise ArtifactError(path, f"is {type(value).__name__} where an array is expected", place=name)


def _recorded(path: Path, flags: str | os.PathLike[str] | None) -> tuple[Path, dict[str, Any]]:
    """The file of the authors' hyperparameters, or else the checkpoint, and the hyperparameters."""
    file = path.parent / FLAGS if flags is None else Path(flags)
    if flags is None and not file.is_file():
        return path, {}
    if (size := file.stat().st_size) > MAX_FLAGS_BYTES:
        raise ArtifactError(file, f"has {size:,} bytes, and hyperparameters have up to {MAX_FLAGS_BYTES:,}")
    found = parse_json(file.read_bytes(), file)
    agent = found.get("agent", found) if isinstance(found, dict) else None
    if not isinstance(agent, dict):
        raise ArtifactError(file, "is not an object with the authors' hyperparameters in its key 'agent'")
    recorded = {key: value for key, value in agent.items() if value is not None}
    # QAM's training has the length of the chunks as a flag of its own, and RQL's agent calls it h. Without chunks it is
    # the number of steps of the return.
    horizon = recorded.get("h", recorded.get("horizon_length", found.get("horizon_length")))
    horizon = 1 if recorded.get("action_chunking") is False else horizon
    return file, recorded | ({} if horizon is None else {"horizon_length": horizon})


def _check_networks(path: Path, port: Port, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises an ArtifactError if the checkpoint has other networks than the algorithm."""
    found = {key.partition("/")[0] for key in arrays}
    trained = {name for name in found if not name.startswith(SLOW)}
    if encoders := sorted(name for name in trained if name.endswith("_encoder")):
        raise ArtifactError(
            path, f"has encoders of images ({', '.join(encoders)}), and only policies of flat observations are imported"
        )
    if trained != (needed := _networks(port)):
        others = [name for name, other in PORTS.items() if _networks(other) == trained]
        hint = (
            f"The checkpoint looks like one of {' or '.join(others)}: pass --algorithm {others[0]}." if others else ""
        )
        raise ArtifactError(
            path,
            f"has the networks {', '.join(sorted(trained))}; {port.algorithm} has {', '.join(sorted(needed))}",
            hint=hint,
        )


def _networks(port: Port) -> set[str]:
    """The authors' names of an algorithm's networks."""
    ours = {ours: theirs for theirs, ours in port.networks.items()}
    return {ours.get(name, name) for name in get_algorithm(port.algorithm).Config().networks(TAU)}


def _widths(path: Path, port: Port, arrays: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Widths of an observation and of an action (chunk)."""
    with reading(path, hint=f"The networks do not have the layers of {port.algorithm}."):
        action = output_widths(arrays)[port.actor]
        return input_widths(arrays)[port.actor] - action - 1, action  # It also takes a flow time.


def _spaces(env: str | None, width: int) -> tuple[spaces.Space[Any], spaces.Box | None]:
    """Spaces of the environment; without one, flat observations, and no actions yet."""
    if env is None:
        return spaces.Box(-np.inf, np.inf, (width,), np.float32), None
    with closing(make_env(env)) as made:
        observation_space, action_space = made.observation_space, check_action_space(made.action_space, "FlowPolicy")
    if not isinstance(observation_space, spaces.Box) or observation_space.shape != (width,):
        raise ValueError(f"the checkpoint is for observations of {width} numbers, but {env} has {observation_space}")
    return observation_space, action_space


def _check_complete(path: Path, port: Port, recorded: Mapping[str, Any]) -> None:
    """Raises a ValueError if a hyperparameter is missing that changes how the policy acts."""
    if missing := [name for name in port.needed if name not in recorded]:
        options = " ".join(f"--{name.replace('_', '-')} N" for name in missing)
        or_env = ", or --env for the length of the action chunks" if "horizon_length" in missing else ""
        raise ValueError(
            f"neither '{path}' nor a {FLAGS} beside it says what {' and '.join(missing)} was, on which the "
            f"policy's actions depend. Pass {options}{or_env}, or --flags FILE."
        )


def _chunks(horizon: Any, width: int, action_space: spaces.Box | None) -> dict[str, Any]:
    """The authors' hyperparameters of action chunks.

    Raises:
        ValueError: if the policy's output is not `horizon` actions.
    """
    dims = width // horizon if type(horizon) is int and horizon > 0 else 0
    fits = dims > 0 and dims * horizon == width
    if not fits or (action_space is not None and dims != int(np.prod(action_space.shape))):
        of_space = "" if action_space is None else f" in {action_space}"
        raise ValueError(
            f"the policy's output has {width} numbers, which are not {horizon} actions{of_space}. Pass the length of "
            "the action chunks: --horizon-length N."
        )
    return {"horizon_length": horizon, "action_chunking": True, "action_dim": dims}


def _check_counts(cfg: Any) -> None:
    """Raises a ValueError for numbers that would cost much time or memory, which no authors' hyperparameters have."""
    for name, largest in (("flow_steps", MAX_COUNT), ("best_of_n", MAX_COUNT), ("ensemble", MAX_ENSEMBLE)):
        if not 1 <= (value := getattr(cfg, name, 1)) <= largest:
            raise ValueError(f"{name} must be a number from 1 to {largest:,}, got {value:,}")


def _weights(
    path: Path,
    source: Path,
    port: Port,
    arrays: Mapping[str, np.ndarray],
    networks: Mapping[str, Network],
    widths: tuple[int, int],
) -> tuple[Tree, Tree]:
    """The weights of our networks and of their slow copies.

    The networks are built without memory here, so that declared sizes are compared with the arrays before any is used.
    """
    with reading(source), torch.device("meta"):
        modules = {name: spec.factory(*widths) for name, spec in networks.items()}
    hint = "" if source == path else f"The sizes come from '{source}': is it of this checkpoint?"
    copied = {name: modules[name] for name, spec in networks.items() if spec.target_rate is not None}
    with reading(path, hint=hint):
        weights = fitted(renamed(arrays, port, modules), modules)
    with reading(path, "the slow copies", hint):
        return weights, fitted(renamed(arrays, port, copied, slow=True), copied)
