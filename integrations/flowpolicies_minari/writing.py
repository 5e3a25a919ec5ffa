"""Datasets of flowpolicies as Minari datasets."""

from __future__ import annotations

import inspect
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Dict
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces

from flowpolicies.data import TransitionDataset
from flowpolicies_minari.environment import origin
from flowpolicies_minari.folder import Folder, datasets_path, named

Array = npt.NDArray[Any]


def to_minari(
    dataset: TransitionDataset,
    id: str,
    *,
    env: gymnasium.Env[Any, Any] | EnvSpec | str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    author: str | None = None,
    algorithm_name: str | None = None,
    description: str | None = None,
    code_permalink: str | None = None,
) -> Path:
    """Write a dataset as a Minari dataset, whole or not at all, and return its folder; `load` gives it back equal.

    Images are stored as they are, not as JPEG. Masks of 0 inside a trajectory become terminations inside an episode.

    Args:
        dataset: its trajectories must be closed: each next observation is the observation of the next row.
        id: Minari's, such as "pendulum/mine-v0".
        env: what the data come from: an environment, its specification, Gymnasium's id, or an address such as
            "ogbench:NAME"; `make_env` makes it again. None: unknown.
        data_dir: folder of all datasets; None: Minari's.
        overwrite: replace a dataset of this id.
        author, algorithm_name, description, code_permalink: Minari's metadata.

    Raises:
        ValueError: if the id has another form, or a trajectory is not closed; it names the trajectory and the step.
        FileExistsError: if the id is taken and `overwrite` is off.
    """
    folder = _free(id, data_dir, overwrite)
    credits = {"algorithm_name": algorithm_name, "description": description, "code_permalink": code_permalink}
    metadata: dict[str, Any] = {key: text for key, text in credits.items() if text is not None}
    if author is not None:
        metadata["author"] = {author}
    own: dict[str, Any] = {"format": 1, "provenance": dataset.provenance}
    if isinstance(env, str) and env.startswith("minari:"):
        source = named(env.removeprefix("minari:"), data_dir)
        env = origin(source.metadata(), source.id)  # That dataset may be replaced, perhaps by this one.
    spec = _spec_of(env)
    if isinstance(env, str) and spec is None:
        own["env"] = env
    metadata |= {"dataset_id": folder.id, "minari_version": minari.__version__, "flowpolicies": own}
    staging = folder.root / f".{secrets.token_hex(8)}"  # Minari does not look into hidden folders.
    staging.mkdir(parents=True)
    try:
        storage = MinariStorage.new(
            staging / "data",
            observation_space=_nested_space(dataset.observation_space),
            action_space=dataset.action_space,
            env_spec=spec,
            data_format="hdf5",
            jpeg_encoding=False,
        )
        storage.update_metadata(metadata)
        storage.update_episodes(_episodes(dataset))
        staged = Folder(folder.root, staging.name)
        staged.write_record(staged.hashes())
        _move(staging, folder, overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder.path


def open_writer(name: str, **options: Any) -> Callable[[TransitionDataset], Path]:
    """`to_minari` for this id, after all checks that need no data: nobody wants to fail them after an hour.

    Args:
        name: the id.
        **options: of `to_minari`.

    Raises:
        ValueError: if the id has another form.
        TypeError: for an unknown option.
        FileExistsError: if the id is taken and `overwrite` is off.
    """
    inspect.signature(to_minari).bind(None, name, **options)
    _free(name, options.get("data_dir"), options.get("overwrite", False))

    def write(dataset: TransitionDataset) -> Path:
        return to_minari(dataset, name, **options)

    return write


def _free(id: str, data_dir: str | os.PathLike[str] | None, overwrite: bool) -> Folder:
    folder = named(id, data_dir)
    if folder.path.exists() and not overwrite:
        raise FileExistsError(
            f"Minari dataset '{folder.id}' exists in '{folder.path}'. Pass overwrite=True (--overwrite) to replace it, "
            "or another name or version."
        )
    return folder


def _move(staging: Path, folder: Folder, overwrite: bool) -> None:
    """Put a finished dataset where it belongs."""
    namespace = folder.id.rpartition("/")[0]
    with datasets_path(folder.root):
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
    if not folder.path.exists():
        os.rename(staging, folder.path)
        return
    _free(folder.id, folder.root, overwrite)  # Somebody else may have been faster.
    old = folder.root / f".{secrets.token_hex(8)}"
    os.rename(folder.path, old)
    os.rename(staging, folder.path)
    shutil.rmtree(old)


def _spec_of(env: gymnasium.Env[Any, Any] | EnvSpec | str | None) -> EnvSpec | None:
    """The specification, if it can be written down."""
    if env is None or (isinstance(env, str) and ":" in env):
        return None
    spec = env if isinstance(env, EnvSpec) else gymnasium.spec(env) if isinstance(env, str) else env.spec
    if spec is None:
        return None
    try:
        spec.to_json()
    except (TypeError, ValueError) as error:
        if not isinstance(env, str):
            warnings.warn(
                f"the environment '{spec.id}' cannot be written down ({error}), so the dataset does not name it. "
                "Register it with an entry point of the form 'module:Class', and arguments that JSON knows.",
                stacklevel=3,
            )
        return None
    return spec


def _episodes(dataset: TransitionDataset) -> Iterator[EpisodeBuffer]:
    start = 0
    for number, end in enumerate(dataset.episode_ends):
        rows, where = slice(start, end + 1), f"trajectory {number} of dataset '{dataset.name}'"
        terminations = dataset.masks[rows] == 0
        truncations = np.zeros(len(terminations), bool)
        truncations[-1] = not terminations[-1]
        yield EpisodeBuffer(
            observations=_closed(dataset.observations, dataset.next_observations, rows, where),
            actions=dataset.actions[rows],
            rewards=dataset.rewards[rows],
            terminations=terminations,
            truncations=truncations,
        )
        start = end + 1


def _closed(now: Any, after: Any, rows: slice, where: str) -> Any:
    """T+1 observations; a Dict with keys such as `goal/position` is nested again, as HDF5's groups are."""
    if isinstance(now, Mapping):
        return _nest({key: _closed(now[key], after[key], rows, where) for key in now})
    inner, outer = now[rows][1:], after[rows]
    differ = (inner != outer[:-1]).any(tuple(range(1, inner.ndim)))
    if differ.any():
        raise ValueError(
            f"{where} is not closed: what follows step {int(differ.argmax())} is not the observation of the next step. "
            "Minari stores T+1 observations per episode and cannot hold it."
        )
    return np.concatenate([now[rows], outer[-1:]])


def _nested_space(space: Box | Dict) -> Box | Dict:
    if isinstance(space, Box):
        return space

    def build(tree: Mapping[str, Any]) -> Dict:
        return Dict({key: build(part) if isinstance(part, dict) else part for key, part in tree.items()})

    return build(_nest(space.spaces))


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` -> `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split("/")
        place = tree
        for step in outer:
            place = place.setdefault(step, {})
        place[last] = value
    return tree
