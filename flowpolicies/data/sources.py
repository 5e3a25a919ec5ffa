"""Datasets and environments by address, such as "ogbench:cube-single-play-singletask-v0".

What stands before the colon is a source: built in, or an entry point of an installed package in one of the groups
`flowpolicies.datasets` (`load(name, **options) -> TransitionDataset`), `flowpolicies.environments`
(`make_env(name, **options) -> gymnasium.Env`) and `flowpolicies.generators` (`generate(name, **options) -> Path`).
A package is imported when one of its addresses is used, not before.
"""

import inspect
import os
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import gymnasium

from flowpolicies.data.cache import Storage, from_shards
from flowpolicies.data.checks import did_you_mean
from flowpolicies.data.dataset import TransitionDataset
from flowpolicies.data.hdf5 import load_hdf5
from flowpolicies.data.memmap import open_memmap
from flowpolicies.data.sb3 import load_sb3

Kind = Literal["datasets", "environments", "generators"]

_BUILT_IN: dict[str, dict[str, Callable[..., Any]]] = {
    "datasets": {"hdf5": load_hdf5, "memmap": open_memmap, "npz": TransitionDataset.load, "sb3": load_sb3},
    "environments": {},
    "generators": {},
}
_EXAMPLES = {
    "datasets": "'ogbench:cube-single-play-singletask-v0' or 'npz:path/to/file.npz'",
    "environments": "'ogbench:cube-single-play-singletask-v0', or a Gymnasium id such as 'Pendulum-v1'",
    "generators": "'ogbench:pointmaze-medium-navigate-singletask-v0'",
}


def load_dataset(
    address: str,
    *,
    storage: Storage | None = None,
    compact: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> TransitionDataset:
    """The dataset at "source:name"; "npz:PATH", "hdf5:PATH", "memmap:PATH" and "sb3:PATH" are always there.

    See `TransitionDataset.load`, `flowpolicies.data.hdf5.load_hdf5` and `flowpolicies.data.sb3.load_sb3` for options.

    Args:
        address: source and name.
        storage: "ram", or "memmap" for data that is laid out as files the first time, and opened in milliseconds
            afterwards, shared by all processes (see `flowpolicies.data.cache`); None: as the source thinks best.
        compact: store each state once, instead of as an observation and as a next one; see
            `flowpolicies.data.compact`.
        cache_dir: where these files go; None: `flowpolicies.data.cache.CACHE_DIR`.
        **options: passed to the source.

    Raises:
        ValueError: if there is no such source, or the source has no such dataset or storage.
        ImportError: if the source needs a package that is not installed.
    """
    source, name = _split(address, "datasets")
    load = _find(source, "datasets")
    _check_options(source, load, options)
    parameters = inspect.signature(load).parameters
    if "storage" in parameters:
        own = {"compact": compact} if "compact" in parameters else {}
        dataset = load(name, storage=storage, cache_dir=cache_dir, **own, **options)
    elif storage == "memmap":
        dataset = _mapped(source, name, load, options, cache_dir, compact=compact)
    else:
        dataset = load(name, **options)
    if not isinstance(dataset, TransitionDataset):
        raise TypeError(f"dataset source '{source}' gave a {type(dataset).__name__}; it must give a TransitionDataset.")
    return dataset.compact() if compact else dataset


def _check_options(source: str, load: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises a ValueError for an option that the source does not have, where a TypeError would name our functions."""
    parameters = inspect.signature(load).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [key for key, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY]
    if unknown := [key for key in options if key not in own]:
        raise ValueError(f"the source '{source}' has no option {unknown}; it has {', '.join(own) or 'none'}.")


def _mapped(
    source: str,
    name: str,
    load: Callable[..., Any],
    options: dict[str, Any],
    cache_dir: str | os.PathLike[str] | None,
    *,
    compact: bool,
) -> TransitionDataset:
    """Of a source that knows nothing of storage: its name is the path of the one file that it reads."""
    path = Path(name).expanduser()
    if source == "memmap":
        return open_memmap(path)
    if not path.is_file():
        raise ValueError(
            f"storage='memmap' is for sources that read files, and '{source}' does not say which ones it reads for "
            f"'{name}'. Write the dataset with flowpolicies.data.write_memmap(PATH, dataset), and load memmap:PATH."
        )
    identity = {"name": path.stem, "source": source, "options": {key: repr(value) for key, value in options.items()}}

    def read(file: Path) -> TransitionDataset:
        dataset: TransitionDataset = load(str(file), **options)
        return dataset.compact() if compact else dataset

    return from_shards({**identity, "compact": compact}, [path], read, "memmap", cache_dir)


def make_env(address: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The environment at "source:name", or `gymnasium.make(address, **options)` for an address without a colon.

    Raises:
        ValueError: if there is no such source, or the source has no such environment.
        ImportError: if the source needs a package that is not installed.
    """
    if ":" not in address:
        try:
            return gymnasium.make(address, **options)
        except gymnasium.error.UnregisteredEnv as error:  # No ValueError, and "Did you mean" only sometimes.
            raise ValueError(f"no environment '{address}': {error}") from error
    source, name = _split(address, "environments")
    environment: gymnasium.Env[Any, Any] = _find(source, "environments")(name, **options)
    return environment


def generate_dataset(address: str, **options: Any) -> Path:
    """Let the source make the dataset "source:name" on this machine; the path of what it wrote.

    A name alone is OGBench's.

    Raises:
        ValueError: if there is no such source, or the source cannot generate this dataset.
        ImportError: if the source needs a package that is not installed.
    """
    source, name = _split(address if ":" in address else f"ogbench:{address}", "generators")
    return Path(_find(source, "generators")(name, **options))


def list_sources(kind: Kind = "datasets") -> dict[str, str]:
    """Every known source of this kind, with the distribution that provides it. Imports none of them."""
    found = {point.name: _distribution(point) for point in entry_points(group=f"flowpolicies.{kind}")}
    return dict(sorted((found | dict.fromkeys(_BUILT_IN[kind], "flowpolicies")).items()))


def _split(address: str, kind: Kind) -> tuple[str, str]:
    source, colon, name = address.partition(":")
    if not (source and colon and name):
        raise ValueError(f"'{address}' has not the form 'source:name'. Write {_EXAMPLES[kind]}.")
    return source, name


def _find(source: str, kind: Kind) -> Callable[..., Any]:
    """The callable of a source; built-in names cannot be taken over."""
    if source in _BUILT_IN[kind]:
        return _BUILT_IN[kind][source]
    points = {point.value: point for point in entry_points(group=f"flowpolicies.{kind}", name=source)}
    if not points:
        known = list_sources(kind)
        raise ValueError(
            f"unknown {kind[:-1]} source '{source}' (known: {', '.join(known) or 'none'}).{did_you_mean(source, known)}"
        )
    if len(points) > 1:
        givers = ", ".join(sorted(_distribution(point) for point in points.values()))
        raise ValueError(
            f"{kind[:-1]} source '{source}' is provided more than once, by {givers}. Uninstall all but one."
        )
    return _load(points.popitem()[1], kind)


def _load(point: EntryPoint, kind: Kind) -> Callable[..., Any]:
    distribution = _distribution(point)
    extra = f"{distribution}[{point.name}]" if distribution == "flowpolicies" else distribution
    try:
        loaded: Callable[..., Any] = point.load()
    except ImportError as error:
        raise ImportError(
            f"{kind[:-1]} source '{point.name}' cannot be imported ({error}). "
            f'Install what it needs: pip install "{extra}"'
        ) from error
    return loaded


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"
