"""Writing of datasets in Minari's format."""

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
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Dict, Space
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage
from minari.namespace import create_namespace, list_local_namespaces

from flowpolicies.data import TransitionDataset
from flowpolicies_minari.environment import origin
from flowpolicies_minari.folder import Folder, datasets_path, folder_of


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
    """Write a dataset as a Minari dataset, which `load` reads back equal.

    The dataset appears only when it is complete. Images are stored without JPEG compression. Masks of 0 inside a
    trajectory become terminations inside an episode.

    Args:
        dataset: The dataset. Within each of its trajectories, the next observation of a row must equal the observation
            of the row after it.
        id: Minari's id of the new dataset, such as "pendulum/mine-v0".
        env: Environment of the data, from which `make_env` makes it again: an environment, its specification,
            Gymnasium's id, or an address such as "ogbench:NAME"; None: unknown.
        data_dir: Folder of all datasets; None: Minari's.
        overwrite: Replace an existing dataset with this id.
        author: Author of the data, for Minari's metadata.
        algorithm_name: Name of the algorithm that collected the data, for Minari's metadata.
        description: Description of the data, for Minari's metadata.
        code_permalink: Address of the code that collected the data, for Minari's metadata.

    Returns:
        Folder of the new dataset.

    Raises:
        ValueError: if the id has another form, or a trajectory has a gap between two rows.
        FileExistsError: if a dataset with this id exists and `overwrite` is off.
    """
    folder = _check_free(id, data_dir, overwrite)
    credits = {"algorithm_name": algorithm_name, "description": description, "code_permalink": code_permalink}
    metadata: dict[str, Any] = {key: text for key, text in credits.items() if text is not None}
    if author is not None:
        metadata["author"] = {author}
    own: dict[str, Any] = {"format": 1, "provenance": dataset.provenance}
    if isinstance(env, str) and env.startswith("minari:"):
        source = folder_of(env.removeprefix("minari:"), data_dir)
        # The environment itself is stored, because the dataset with this address may be replaced, even by the new one.
        env = origin(source, source.metadata())
    spec = _spec_of(env)
    if isinstance(env, str) and spec is None:
        own["env"] = env
    metadata |= {"dataset_id": folder.id, "minari_version": minari.__version__, "flowpolicies": own}
    # Minari ignores hidden folders when it lists datasets (minari/storage/local.py).
    staging = folder.root / f".{secrets.token_hex(8)}"
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
    """A function that writes a dataset with `to_minari`.

    The checks that need no data are made at once, so that they do not fail after a long collection of data.

    Args:
        name: Minari's id of the new dataset.
        **options: Options of `to_minari`.

    Raises:
        ValueError: if the id has another form.
        TypeError: if an option is unknown.
        FileExistsError: if a dataset with this id exists and `overwrite` is off.
    """
    inspect.signature(to_minari).bind(None, name, **options)
    _check_free(name, options.get("data_dir"), options.get("overwrite", False))

    def write(dataset: TransitionDataset) -> Path:
        return to_minari(dataset, name, **options)

    return write


def _check_free(id: str, data_dir: str | os.PathLike[str] | None, overwrite: bool) -> Folder:
    """The folder of a new dataset, which must not exist unless it may be overwritten."""
    folder = folder_of(id, data_dir)
    if folder.path.exists() and not overwrite:
        raise FileExistsError(
            f"Minari dataset '{folder.id}' exists in '{folder.path}'. Pass overwrite=True (--overwrite) to replace it, "
            "or choose another name or version."
        )
    return folder


def _move(staging: Path, folder: Folder, overwrite: bool) -> None:
    """Move a complete dataset to its final folder."""
    namespace = folder.id.rpartition("/")[0]
    with datasets_path(folder.root):
        if namespace and namespace not in list_local_namespaces():
            create_namespace(namespace)
    if not folder.path.exists():
        os.rename(staging, folder.path)
        return
    # Another process may have written the dataset in the meantime.
    _check_free(folder.id, folder.root, overwrite)
    old = folder.root / f".{secrets.token_hex(8)}"
    os.rename(folder.path, old)
    os.rename(staging, folder.path)
    shutil.rmtree(old)


def _spec_of(env: gymnasium.Env[Any, Any] | EnvSpec | str | None) -> EnvSpec | None:
    """The specification of an environment; None if it has none that can be stored as JSON."""
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
                f"the specification of environment '{spec.id}' cannot be stored as JSON ({error}), so the dataset does "
                "not name its environment. Register it with an entry point of the form 'module:Class', and with "
                "arguments of JSON's types.",
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
            observations=_join_observations(dataset.observations, dataset.next_observations, rows, where),
            actions=dataset.actions[rows],
            rewards=dataset.rewards[rows],
            terminations=terminations,
            truncations=truncations,
        )
        start = end + 1


def _join_observations(now: Any, after: Any, rows: slice, where: str) -> Any:
    """The T+1 observations of a trajectory; keys such as `goal/position` become nested dicts, as in Minari's files.

    Args:
        now: Observations of the dataset.
        after: Next observations of the dataset.
        rows: Rows of the trajectory.
        where: Description of the trajectory, for error messages.

    Raises:
        ValueError: if a next observation is not the observation of the next row.
    """
    if isinstance(now, Mapping):
        return _nest({key: _join_observations(now[key], after[key], rows, where) for key in now})
    inner, outer = now[rows][1:], after[rows]
    differ = (inner != outer[:-1]).any(tuple(range(1, inner.ndim)))
    if differ.any():
        raise ValueError(
            f"{where} has a gap: the next observation of step {int(differ.argmax())} is not the observation of the "
            "next step. Minari stores T+1 observations per episode, so it cannot store such a trajectory."
        )
    return np.concatenate([now[rows], outer[-1:]])


def _nested_space(space: Space[Any]) -> Space[Any]:
    if not isinstance(space, Dict):
        return space

    def build(tree: Mapping[str, Any]) -> Dict:
        return Dict({key: build(value) if isinstance(value, dict) else value for key, value in tree.items()})

    return build(_nest(space.spaces))


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from slashes in keys: `{"a": {"b": x}}` from `{"a/b": x}`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *outer, last = key.split("/")
        branch = tree
        for step in outer:
            branch = branch.setdefault(step, {})
        branch[last] = value
    return tree
