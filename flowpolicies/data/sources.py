"""Datasets and environments by address, such as "ogbench:cube-single-play-singletask-v0" or "npz:data.npz".

The text before the colon names a source. A source offers one or more of six functions, each of which has a registry
here. They are built in, declared with `register_source`, or entry points of an installed package:

| function | group of entry points | what it does |
|---|---|---|
| `load(name, **options)` | `flowpolicies.datasets` | returns a `TransitionDataset` |
| `make_env(name, **options)` | `flowpolicies.environments` | returns a Gymnasium environment |
| `generate(name, **options)` | `flowpolicies.generators` | makes a dataset and returns its path |
| `open_writer(name, overwrite=..., env=..., **options)` | `flowpolicies.writers` | returns a `Writer` |
| `open_resimulator(name, dataset, **options)` | `flowpolicies.resimulators` | returns a function for `data check` |
| `check_name(name)` | `flowpolicies.names` | raises a `ValueError` for a name that does not exist; imports little |

A package is imported when one of its addresses is used. Options may follow the name, separated by commas:
"sb3:buffer.pkl,trust=true", see `flowpolicies.data.addresses`.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import gymnasium

from flowpolicies.data.addresses import address_of as address_of
from flowpolicies.data.addresses import as_switch, check_exists, check_no_rest, check_switches, join_options, path_hint
from flowpolicies.data.addresses import split_options as split_options
from flowpolicies.data.downloads.files import expanded
from flowpolicies.data.names import Storage
from flowpolicies.data.switches import FOR_ANY_SOURCE, check_options, check_own_options, keywords
from flowpolicies.messages import did_you_mean
from flowpolicies.plugins import Registry

if TYPE_CHECKING:  # Only the data need torch: an address that leads to none is reported without waiting for it.
    from flowpolicies.data.dataset.dataset import TransitionDataset

SourceKind = Literal["datasets", "environments", "generators", "writers", "resimulators", "names"]

Writer = Callable[["TransitionDataset"], Path]
"""Writes a dataset, completely or not at all, and returns the path of what it wrote."""

_UNKNOWN_KEYWORD = re.compile(r"unexpected keyword argument '(\w+)'")

_EXAMPLES = {
    "datasets": "'ogbench:cube-single-play-singletask-v0' or 'npz:path/to/file.npz'",
    "environments": "'ogbench:cube-single-play-singletask-v0', or a Gymnasium id such as 'Pendulum-v1'",
    "generators": "'ogbench:pointmaze-medium-navigate-singletask-v0'",
    "writers": "'npz:path/to/file.npz' or 'minari:NAME-v0'",
}


def _registry(kind: str, group: SourceKind, signature: str, **built_in: str) -> Registry[Callable[..., Any]]:
    wanted = f"a function {signature}"
    return Registry(kind, f"flowpolicies.{group}", wanted, lambda _, function: callable(function), built_in=built_in)


SOURCES: dict[SourceKind, Registry[Callable[..., Any]]] = {
    "datasets": _registry(
        "dataset source",
        "datasets",
        "load(name, **options)",
        hdf5="flowpolicies.data.formats.hdf5:load_hdf5",
        memmap="flowpolicies.data.formats.memmap:open_memmap",
        npz="flowpolicies.data.dataset.dataset:TransitionDataset.load",
        sb3="flowpolicies.data.formats.sb3:load_sb3",
    ),
    "environments": _registry("environment source", "environments", "make_env(name, **options)"),
    "generators": _registry("generator source", "generators", "generate(name, **options)"),
    "writers": _registry(
        "dataset writer",
        "writers",
        "open_writer(name, overwrite=..., env=..., **options)",
        npz="flowpolicies.data.formats.npz:open_npz",
    ),
    "resimulators": _registry("re-simulator", "resimulators", "open_resimulator(name, dataset, **options)"),
    "names": _registry("check of names", "names", "check_name(name)"),
}
"""The functions of all sources, by what they do and by the name of the source."""


def register_source(
    name: str,
    *,
    load: Callable[..., TransitionDataset] | None = None,
    make_env: Callable[..., gymnasium.Env[Any, Any]] | None = None,
    generate: Callable[..., str | Path] | None = None,
    open_writer: Callable[..., Writer] | None = None,
    open_resimulator: Callable[..., Any] | None = None,
    check_name: Callable[[str], None] | None = None,
) -> None:
    """Makes a source of datasets, environments or both known in this process: addresses "name:..." work from here on.

        register_source("mine", load=load_mine, make_env=make_mine)
        model = FQL(dataset="mine:anything")

    A package offers the same functions as entry points, see `flowpolicies.data.sources`.

    Args:
        name: the text before the colon. It must be free.
        load: `load(name, **options)` returns the dataset "source:name".
        make_env: `make_env(name, **options)` returns the environment "source:name".
        generate: `generate(name, **options)` makes a dataset on this machine and returns its path.
        open_writer: `open_writer(name, overwrite=False, env=None, **options)` checks that it may write to "source:name"
            and returns a function that writes a dataset there and returns its path. `env` is the environment that the
            data come from, or None.
        open_resimulator: `open_resimulator(name, dataset, **options)` returns a function from rows and actions to what
            the simulator makes of them, a `flowpolicies.inspection.environment.Resimulated`; `data check` calls it.
        check_name: `check_name(name)` raises a ValueError if the source has no dataset or environment of this name. It
            is called before anything is loaded, so it should import little.

    Raises:
        TypeError: if no function is given, or one cannot be called.
        ValueError: if the name is taken. Nothing is registered then.
    """
    given: dict[SourceKind, Callable[..., Any] | None] = {
        "datasets": load,
        "environments": make_env,
        "generators": generate,
        "writers": open_writer,
        "resimulators": open_resimulator,
        "names": check_name,
    }
    functions = {kind: function for kind, function in given.items() if function is not None}
    if not functions:
        raise TypeError(
            f"the source {name!r} needs at least one function: pass load=, make_env=, generate=, open_writer=, "
            "open_resimulator= or check_name=."
        )
    for kind, function in functions.items():
        SOURCES[kind].check_free(name, function)
    for kind, function in functions.items():
        SOURCES[kind].register(name, function)


def list_sources(kind: SourceKind = "datasets") -> dict[str, str]:
    """Every known source of this kind, with the package that provides it. Imports no other package."""
    return SOURCES[kind].names()


def load_dataset(
    address: str | os.PathLike[str],
    *,
    storage: Storage | None = None,
    compact: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    min_length: int | None = None,
    **options: Any,
) -> TransitionDataset:
    """The dataset at "source:name". The sources npz, hdf5, memmap and sb3, followed by a path, are built in.

    Options of a source are those of its function: `TransitionDataset.load`, `flowpolicies.data.formats.hdf5.load_hdf5`,
    `flowpolicies.data.formats.sb3.load_sb3`. All options may also be given in the address; a keyword argument wins.

    Args:
        address: source and name; or a `pathlib.Path`, whose ending decides the source, see
            `flowpolicies.data.addresses.address_of`.
        storage: "ram", or "memmap" for data that is laid out as files the first time, opened in milliseconds
            afterwards, and shared by all processes (see `flowpolicies.data.formats.memmap`); None: the source decides.
        compact: store each state once, instead of both as an observation and as a next observation; see
            `flowpolicies.data.dataset.compact`. Sources with an option of this name never hold all next observations.
        cache_dir: folder of these files; None: `flowpolicies.data.formats.memmap.CACHE_DIR`.
        min_length: drop the trajectories with fewer steps, and say how many in a warning; None: keep all of them.
        **options: passed to the source.

    Raises:
        ValueError: if there is no such source, or the source has no such dataset, option or storage.
        ImportError: if the source needs a package that is not installed.
    """
    if isinstance(address, str):
        source, name, written = _split(address, "datasets")
    else:
        (source, _, name), written = address_of(address).partition(":"), {}
    own = {key: written.pop(key, None) for key in FOR_ANY_SOURCE}
    storage, cache_dir = storage or own["storage"], cache_dir or own["cache_dir"]
    compact = compact or (own["compact"] if own["compact"] is not None else False)
    min_length = own["min_length"] if min_length is None else min_length
    check_own_options(storage, compact, min_length)
    load, options = SOURCES["datasets"].find(source), {**written, **options}
    check_options(source, load, options)
    parameters = inspect.signature(load).parameters
    own = {"compact": compact} if "compact" in parameters else {}
    if "storage" in parameters:
        dataset = load(name, storage=storage, cache_dir=cache_dir, **own, **options)
    elif storage == "memmap":
        dataset = _mapped(source, name, load, options, cache_dir, compact=compact)
    else:
        dataset = load(name, **own, **options)
    if not isinstance(dataset, importlib.import_module("flowpolicies.data.dataset").TransitionDataset):
        raise TypeError(f"dataset source '{source}' gave a {type(dataset).__name__}; it must give a TransitionDataset.")
    found: TransitionDataset = dataset.compact() if compact else dataset
    return found if min_length is None else found.filter(min_length=min_length)


def check_address(address: str, *, storage: Storage | None = None, **options: Any) -> None:
    """Raises the error of `load_dataset` if there is no such source, no such name or no such file.

    Of a source only the check of its names is imported. With options of the source itself, nothing is said about the
    file, because the source judges its options first.
    """
    source, name, written = _split(address, "datasets")
    SOURCES["datasets"].check_known(source)
    _check_name(source, name)
    if not {**written, **options}.keys() - set(FOR_ANY_SOURCE):
        check_exists(source, name, storage or written.get("storage"))


def _mapped(
    source: str,
    name: str,
    load: Callable[..., Any],
    options: dict[str, Any],
    cache_dir: str | os.PathLike[str] | None,
    *,
    compact: bool,
) -> TransitionDataset:
    """The dataset as memory-mapped files, from a source without that option whose name is the path of one file."""
    from flowpolicies.data.formats import memmap

    path = expanded(name)
    if source == "memmap":
        return memmap.open_memmap(path, **options)
    if SOURCES["datasets"].is_built_in(source):
        check_exists(source, name, "memmap")
    if not path.is_file():
        raise ValueError(
            f"storage='memmap' is for sources that read files, and '{source}' does not say which ones it reads for "
            f"'{name}'. Write the dataset with flowpolicies.data.write_memmap(PATH, dataset), and load memmap:PATH."
        )
    return memmap.of_file(source, path, load, options, cache_dir, compact=compact)


def make_env(address: str, **options: Any) -> gymnasium.Env[Any, Any]:
    """The environment at "source:name", or `gymnasium.make(address, **options)` for an id of Gymnasium.

    An id may have the form "module:EnvId-v0": Gymnasium imports the module, which registers the environment. If the
    text before the colon is the name of a source, it means the source.

    Raises:
        ValueError: if there is no such source, or the source has no such environment or option.
        ImportError: if the source needs a package that is not installed.
    """
    base, written = split_options(address)
    options = {**written, **options}
    make: Callable[..., gymnasium.Env[Any, Any]] = gymnasium.make
    if ":" in base and not _is_id_of_module(base):
        source, base, _ = _split(base, "environments")
        _check_environment_source(source, base)
        make = SOURCES["environments"].find(source)
    check_switches(make, options)
    try:
        return make(base, **options)
    except gymnasium.error.UnregisteredEnv as error:  # It is not a ValueError, and seldom suggests a name.
        raise ValueError(f"no environment '{address}': {error}") from error
    except ValueError as error:
        if make is not gymnasium.make and base in gymnasium.registry:
            text = f"{error} '{source}:' names the environment source '{source}', not the Python module."
            raise ValueError(
                f"{text} Import the module, and pass the id '{base}' for the environment of Gymnasium."
            ) from error
        raise
    except TypeError as error:
        unknown = _UNKNOWN_KEYWORD.search(str(error))
        if unknown is None or unknown[1] not in options:
            raise
        hint = did_you_mean(unknown[1], {**keywords(make), **keywords(gymnasium.make)})
        raise ValueError(f"the environment '{address}' has no option '{unknown[1]}'.{hint}") from error


def check_environment_address(address: str) -> None:
    """Raises the error of `make_env` if there is no such source or name, or no such id of Gymnasium; imports little."""
    base, _ = split_options(address)
    if ":" not in base:
        try:
            gymnasium.spec(base)
        except gymnasium.error.UnregisteredEnv as error:
            raise ValueError(f"no environment '{address}': {error}") from error
        except gymnasium.error.Error:  # Such as an id without its version, which `gymnasium.make` completes.
            return
    elif not _is_id_of_module(base):
        source, base, _ = _split(base, "environments")
        _check_environment_source(source, base)
        _check_name(source, base)


def _check_name(source: str, name: str) -> None:
    """Raises the error of a source that has no such name, before the source is imported."""
    if source in SOURCES["names"]:
        SOURCES["names"].find(source)(name)


def _check_environment_source(source: str, name: str) -> None:
    try:
        SOURCES["environments"].check_known(source)
    except ValueError as error:
        if re.search(r"-v\d+$", name) is None:
            raise
        raise ValueError(
            f"{error} If '{source}:{name}' is an id of Gymnasium, the module '{source}' cannot be found: put its "
            "folder into PYTHONPATH, or install it."
        ) from error


def _is_id_of_module(base: str) -> bool:
    """Whether an address has Gymnasium's form "module:EnvId-v0", and the module is not the name of a source."""
    module, _, name = base.partition(":")
    if not (module and name) or any(module in registry for registry in SOURCES.values()):
        return False
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def environment_of(address: str, **options: Any) -> str | None:
    """The address of the environment that belongs to a dataset's address; None if its source has no environments.

    Args:
        address: address of the dataset. Those of its options that the environment has are kept.
        **options: more options, which are kept in the same way.
    """
    base, written = split_options(address)
    source = base.partition(":")[0]
    if source not in SOURCES["environments"]:
        return None
    wanted = {**written, **options}
    known = inspect.signature(SOURCES["environments"].find(source)).parameters if wanted else {}
    return join_options(base, {key: value for key, value in wanted.items() if key in known})


def generate_dataset(address: str, **options: Any) -> Path:
    """Lets the source make the dataset "source:name" on this machine, and returns the path of what it wrote.

    A name without a source belongs to OGBench.

    Raises:
        ValueError: if there is no such source, or the source cannot generate this dataset.
        ImportError: if the source needs a package that is not installed.
    """
    source, name, written = _split(address if ":" in address else f"ogbench:{address}", "generators")
    _check_name(source, name)
    generate, options = SOURCES["generators"].find(source), {**written, **options}
    check_switches(generate, options)
    return Path(generate(name, **options))


def save_dataset(dataset: TransitionDataset, address: str, *, overwrite: bool = False, **options: Any) -> Path:
    """Writes a dataset to "writer:name", completely or not at all, and returns the path of what was written.

    Args:
        dataset: the dataset to write.
        address: writer and name, such as "npz:data.npz" or "minari:pendulum/mine-v0".
        overwrite: whether to replace what is there.
        **options: options of the writer, such as `env`, `author` and `data_dir` for Minari.

    Raises:
        ValueError: if there is no such writer, or it cannot hold this dataset.
        FileExistsError: if something is there and `overwrite` is off.
        ImportError: if the writer needs a package that is not installed.
    """
    return open_writer(address, overwrite=overwrite, **options)(dataset)


def open_writer(address: str, *, overwrite: bool = False, **options: Any) -> Writer:
    """A function that writes a dataset to "writer:name". All checks that need no data are made before it is returned.

    Raises:
        ValueError: if there is no such writer, or the name does not have the form that the writer needs.
        FileExistsError: if something is there and `overwrite` is off.
        ImportError: if the writer needs a package that is not installed.
    """
    kind, colon, name = address.partition(":")  # Not split_options: paths and names may hold commas and "=".
    if not (kind and colon and name):
        raise ValueError(f"'{address}' does not have the form 'writer:name'. Write {_EXAMPLES['writers']}.")
    as_switch("overwrite", overwrite)
    open_it = SOURCES["writers"].find(kind)
    check_switches(open_it, options)
    writer: Writer = open_it(name, overwrite=overwrite, **options)
    return writer


def _split(address: str, kind: SourceKind) -> tuple[str, str, dict[str, Any]]:
    """Source, name and options of an address."""
    base, options = split_options(address)
    source, colon, name = base.partition(":")
    if not (source and colon and name):
        raise ValueError(
            f"'{address}' does not have the form 'source:name'. Write {_EXAMPLES[kind]}.{path_hint(address)}"
        )
    if len(source) == 1 and source not in SOURCES[kind]:
        raise ValueError(f"unknown {SOURCES[kind].kind} '{source}'.{path_hint(address)} Write {_EXAMPLES[kind]}.")
    if kind == "datasets" and SOURCES[kind].is_built_in(source):
        check_no_rest(address, base, name)
    return source, name, options
