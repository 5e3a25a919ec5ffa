"""Datasets and environments by address, such as "ogbench:cube-single-play-singletask-v0".

What stands before the colon is a source: built in, or an entry point of an installed package in one of the groups
`flowpolicies.datasets` (`load(name, **options) -> TransitionDataset`), `flowpolicies.environments`
(`make_env(name, **options) -> gymnasium.Env`) and `flowpolicies.generators` (`generate(name, **options) -> Path`).
A package is imported when one of its addresses is used, not before.

Options may stand behind the name, where no other place is for them: "sb3:buffer.pkl,trust=true". Values are JSON, or
else text.
"""

import inspect
import json
import os
import re
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import gymnasium

from flowpolicies.data.dataset.dataset import TransitionDataset
from flowpolicies.data.downloads.files import existing_file
from flowpolicies.data.formats.hdf5 import load_hdf5
from flowpolicies.data.formats.memmap import Storage, check_storage, from_shards, open_memmap
from flowpolicies.data.formats.sb3 import load_sb3
from flowpolicies.messages import did_you_mean

Kind = Literal["datasets", "environments", "generators"]

_OPTIONS = re.compile(r"(?:,[a-z]\w*=[^,]*)+$")
_UNKNOWN_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")
_FOR_ANY_SOURCE = ("storage", "compact", "cache_dir")

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

    See `TransitionDataset.load`, `flowpolicies.data.formats.hdf5.load_hdf5` and
    `flowpolicies.data.formats.sb3.load_sb3` for options.
    Those below may stand in the address too, where a keyword goes before.

    Args:
        address: source and name.
        storage: "ram", or "memmap" for data that is laid out as files the first time, and opened in milliseconds
            afterwards, shared by all processes (see `flowpolicies.data.formats.memmap`); None: the source decides.
        compact: store each state once, instead of as an observation and as a next one; see
            `flowpolicies.data.dataset.compact`.
        cache_dir: where these files go; None: `flowpolicies.data.formats.memmap.CACHE_DIR`.
        **options: passed to the source.

    Raises:
        ValueError: if there is no such source, or the source has no such dataset or storage.
        ImportError: if the source needs a package that is not installed.
    """
    source, name, written = _split(address, "datasets")
    own = {key: written.pop(key, None) for key in _FOR_ANY_SOURCE}
    storage, cache_dir = storage or own["storage"], cache_dir or own["cache_dir"]
    compact = compact or own["compact"] or False
    _check_own_options(storage, compact)
    load, options = _find(source, "datasets"), {**written, **options}
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


def _check_own_options(storage: Any, compact: Any) -> None:
    if storage is not None:
        check_storage(storage)
    if not isinstance(compact, bool):
        raise ValueError(f"compact is {compact!r}, and must be true or false.")


def _check_options(source: str, load: Callable[..., Any], options: dict[str, Any]) -> None:
    """Raises a ValueError for an option that the source does not have, where a TypeError would name our functions."""
    parameters = inspect.signature(load).parameters
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    own = [key for key, parameter in parameters.items() if parameter.kind == parameter.KEYWORD_ONLY]
    if unknown := [key for key in options if key not in own]:
        hint = did_you_mean(unknown[0], [*own, *_FOR_ANY_SOURCE])
        raise ValueError(f"the source '{source}' has no option {unknown}; it has {', '.join(own) or 'none'}.{hint}")


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
    if source in _BUILT_IN["datasets"]:
        path = existing_file(path, f"the file of '{source}:{name}'")
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
        ValueError: if there is no such source, or the source has no such environment or option.
        ImportError: if the source needs a package that is not installed.
    """
    base, written = split_options(address)
    options = {**written, **options}
    make: Callable[..., gymnasium.Env[Any, Any]] = gymnasium.make
    if ":" in base:
        source, base, _ = _split(base, "environments")
        make = _find(source, "environments")
    try:
        return make(base, **options)
    except gymnasium.error.UnregisteredEnv as error:  # No ValueError, and "Did you mean" only sometimes.
        raise ValueError(f"no environment '{address}': {error}") from error
    except TypeError as error:
        unknown = _UNKNOWN_KEYWORD.search(str(error))
        if unknown is None or unknown[1] not in options:
            raise
        hint = did_you_mean(unknown[1], {**_keywords(make), **_keywords(gymnasium.make)})
        raise ValueError(f"the environment '{address}' has no option '{unknown[1]}'.{hint}") from error


def _keywords(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that need not be given."""
    parameters = inspect.signature(function).parameters
    return {key: parameter for key, parameter in parameters.items() if parameter.default is not parameter.empty}


def environment_of(address: str, **options: Any) -> str | None:
    """The address of the environment that a dataset's address names; None if it names none.

    Args:
        address: of the dataset; the environment has those of its options that it knows.
        **options: more of them.
    """
    base, written = split_options(address)
    source = base.partition(":")[0]
    if source not in list_sources("environments"):
        return None
    wanted = {**written, **options}
    known = inspect.signature(_find(source, "environments")).parameters if wanted else {}
    return base + "".join(f",{key}={_to_text(value)}" for key, value in wanted.items() if key in known)


def split_options(address: str) -> tuple[str, dict[str, Any]]:
    """`"sb3:buffer.pkl,trust=true"` -> `("sb3:buffer.pkl", {"trust": True})`."""
    match = _OPTIONS.search(address)
    if match is None:
        return address, {}
    pairs = [pair.partition("=") for pair in match[0].split(",")[1:]]
    return address[: match.start()], {key: _from_text(text) for key, _, text in pairs}


def _from_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _to_text(value: Any) -> str:
    return str(value) if isinstance(value, str | Path) else json.dumps(value)


def generate_dataset(address: str, **options: Any) -> Path:
    """Let the source make the dataset "source:name" on this machine; the path of what it wrote.

    A name alone is OGBench's.

    Raises:
        ValueError: if there is no such source, or the source cannot generate this dataset.
        ImportError: if the source needs a package that is not installed.
    """
    source, name, written = _split(address if ":" in address else f"ogbench:{address}", "generators")
    return Path(_find(source, "generators")(name, **{**written, **options}))


def list_sources(kind: Kind = "datasets") -> dict[str, str]:
    """Every known source of this kind, with the distribution that provides it. Imports none of them."""
    found = {point.name: _distribution(point) for point in entry_points(group=f"flowpolicies.{kind}")}
    return dict(sorted((found | dict.fromkeys(_BUILT_IN[kind], "flowpolicies")).items()))


def _split(address: str, kind: Kind) -> tuple[str, str, dict[str, Any]]:
    base, options = split_options(address)
    source, colon, name = base.partition(":")
    if not (source and colon and name):
        raise ValueError(f"'{address}' has not the form 'source:name'. Write {_EXAMPLES[kind]}.")
    return source, name, options


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
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise ImportError(
            f"{kind[:-1]} source '{point.name}' cannot be imported ({error}). "
            f'Install what it needs: pip install "{extra}"'
        ) from error
    return loaded


def _distribution(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown"
