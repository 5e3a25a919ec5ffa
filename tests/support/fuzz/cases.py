"""The cases of each kind: how one is made from a seed, and how users read it."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from fuzz import archives, folders
from fuzz.mutators import Rng, choose
from fuzz.pickles import hostile
from fuzz.seeds import Seeds, Tree

import flowpolicies
from flowpolicies import FlowPolicy
from flowpolicies.artifacts import ArtifactError
from flowpolicies.cli import main
from flowpolicies.data import load_dataset
from flowpolicies.data.sources import make_env
from flowpolicies.importing import import_flax
from flowpolicies.training import RunFolder, load_checkpoint, load_policy

Reader = Callable[[Path], Any]

ALLOWED: tuple[type[BaseException], ...] = (ArtifactError, FileNotFoundError, PermissionError, ImportError)
"""With what reading may fail."""


class Case(NamedTuple):
    """An artifact that was written, and what is asked of it."""

    kind: str
    path: Path | str
    what: str
    must_refuse: bool
    reader: Reader
    allowed: tuple[type[BaseException], ...] = ALLOWED
    events: str | None = None


def rng_of(seed: int, index: int) -> Rng:
    return np.random.default_rng([seed, index])


def make_case(seed: int, index: int, seeds: Seeds, folder: Path) -> Case:
    """Writes case `index` of a campaign into an empty folder, which becomes the present folder."""
    rng = rng_of(seed, index)
    kind = kind_of(index)
    os.chdir(folder)
    return KINDS[kind](kind, rng, seeds, folder)


def make_mild(number: int, seeds: Seeds, folder: Path) -> Case:
    """An artifact as it should be, or, for odd numbers, one of which a file is cut short; to warm up with."""
    rng, kinds = np.random.default_rng(number), [kind for kind in KINDS if kind in seeds]
    kind = kinds[number // 2 % len(kinds)]
    case, tree = KINDS[kind](kind, rng, seeds, folder), choose(rng, seeds[kind])
    clean(folder)
    if number % 2:
        name = choose(rng, sorted(tree.files))
        tree = Tree(tree.name, {**tree.files, name: tree.files[name][: len(tree.files[name]) // 2]})
    return case._replace(path=tree.write(folder))


# Readers


def act(policy: FlowPolicy) -> None:
    """A policy that was loaded acts, and its actions are numbers within their bounds."""
    space = policy.observation_space
    space.seed(0)
    for deterministic in (False, True):
        action, _ = policy.predict(space.sample(), deterministic=deterministic)
        assert policy.action_space.contains(np.asarray(action)), f"it acts {action!r} in {policy.action_space}"


def by_load(path: Path) -> None:
    act(FlowPolicy.load(path, device="cpu"))


def by_file_object(path: Path) -> None:
    act(FlowPolicy.load(io.BytesIO(path.read_bytes()), device="cpu"))


def by_load_policy(path: Path) -> None:
    act(load_policy(path, device="cpu"))


def by_pretrained(path: Path) -> None:
    act(FlowPolicy.from_pretrained(path))


def by_class(path: Path) -> None:
    """As a model of the class of the first algorithm that takes it; another class must refuse it in the same way."""
    act(flowpolicies.FQL.load(path, device="cpu").policy)


def by_import(path: Path) -> None:
    """As the checkpoint of the authors' code, which is the only pickle in the folder."""
    act(import_flax(next(path.glob("*.pkl"), path / "params_1.pkl"), "fql").policy)


def by_checkpoint(path: Path) -> None:
    model = load_checkpoint(flowpolicies.FQL, RunFolder(path), device="cpu")
    act(model.policy)


def by_run(path: Path) -> None:
    folder = RunFolder(path)
    folder.read_config()
    folder.read_evaluations()
    act(load_policy(path, device="cpu"))


def dataset(address: str) -> None:
    """A dataset that was loaded can be read to its last row, and a batch drawn from it."""
    loaded = load_dataset(address)
    for column in loaded.arrays().values():
        np.asarray(column[:] if hasattr(column, "__getitem__") else column)
    assert len(loaded.fingerprint) > 0


def by_source(source: str) -> Reader:
    return lambda path: dataset(f"{source}:{path}")


def by_minari(path: Path) -> None:
    dataset(f"minari:fuzz/mine-v0,data_dir={path},download=false")


def by_minari_environment(path: Path) -> None:
    env = make_env(f"minari:fuzz/mine-v0,data_dir={path},download=false")
    env.reset(seed=0)
    env.close()


def by_command(*words: str) -> Reader:
    """The command line ends with 0, 1 or 2 and does not call a damaged file a bug."""

    def read(path: Path) -> None:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([word.format(path) for word in words])
        assert code in (0, 1, 2), f"exit code {code}"
        assert "this is a bug" not in err.getvalue(), err.getvalue()[-2000:]
        assert "Traceback" not in err.getvalue(), err.getvalue()[-2000:]
        if code == 2:
            assert "flowpolicies:" in err.getvalue(), "the command does not say what is wrong"
            raise ArtifactError(path, err.getvalue().strip().split("\n")[-1])

    return read


# Makers


def file(mutators: Any, *readers: Reader, events: str | None = None) -> Callable[..., Case]:
    def make(kind: str, rng: Rng, seeds: Seeds, folder: Path) -> Case:
        tree = choose(rng, seeds[kind])
        made, what, must = choose(rng, mutators)(tree.files[tree.name], rng)
        what = f"{tree.name}: {what}"
        path = Tree(tree.name, {tree.name: made}).write(folder)
        if must and made == tree.files[tree.name]:
            must = False
        return Case(kind, path, what, must, choose(rng, readers), events=events)

    return make


def whole(mutate: Callable[[Tree, Rng], folders.MadeTree], *readers: Reader, events: str | None = None) -> Any:
    def make(kind: str, rng: Rng, seeds: Seeds, folder: Path) -> Case:
        tree, what, must = mutate(choose(rng, seeds[kind]), rng)
        np.save(folder / folders.SECRET, np.zeros(100, np.float32))
        path = tree.write(folder)
        return Case(kind, path, f"{tree.name}: {what}", must, choose(rng, readers), events=events)

    return make


def hdf5_case(kind: str, rng: Rng, seeds: Seeds, folder: Path) -> Case:
    with h5py.File(folder / "secret.hdf5", "w") as secret:
        secret["observations"] = np.zeros((40, 3), np.float32)
    np.save(folder / folders.SECRET, np.zeros(1000, np.float32))
    readers = (by_source("hdf5"), by_source("hdf5"), by_command("data", "show", "hdf5:{}"))
    return file((folders.hdf5,), *readers)(kind, rng, seeds, folder)


def address_case(kind: str, rng: Rng, seeds: Seeds, folder: Path) -> Case:
    text, must = folders.address(rng)
    (folder / "evil.pkl").write_bytes(hostile(rng)[0])
    Tree("data.npz", {"data.npz": next(iter(seeds["npz"][0].files.values()))}).write(folder)
    Tree("flat.hdf5", {"flat.hdf5": next(iter(seeds["hdf5"][1].files.values()))}).write(folder)
    mapped = seeds["memmap"][0]
    Tree("mapped", {name.replace(mapped.name, "mapped", 1): data for name, data in mapped.files.items()}).write(folder)
    return Case(kind, text, text[:200], must, dataset, (ValueError, *ALLOWED), CACHE)


CACHE = r"(open for writing|os\.mkdir|os\.rename|os\.remove|os\.rmdir|os\.chmod|shutil\.\w+|fcntl\.).*"
"""Events of the cache of memory-mapped data, which an address may ask for; executed code is seen by its file."""
RECORD = (
    r"(open for writing|os\.rename|os\.chmod|os\.remove|os\.mkdir|fcntl\.).*(flowpolicies\.json|\.lock)"
    r"|os\.mkdir .*mine-v0'"
)
"""Minari's folders get a file with the hashes of what was read."""

KINDS: dict[str, Callable[..., Case]] = {
    "policy": file(archives.OF_SAFETENSORS, by_load, by_load, by_file_object, by_load_policy, by_load_policy),
    "model": file((archives.model,), by_load_policy, by_load_policy, by_class),
    "npz": file((archives.npz,), by_source("npz"), by_source("npz"), by_command("data", "show", "npz:{}")),
    "hdf5": hdf5_case,
    "memmap": whole(folders.memmap, by_source("memmap")),
    "run": whole(folders.run, by_run),
    "checkpoint": whole(folders.checkpoint, by_checkpoint),
    "minari": whole(folders.minari, by_minari, by_minari_environment, events=RECORD),
    "address": address_case,
    "pretrained": whole(folders.pretrained, by_pretrained),
    "flax": whole(folders.flax, by_import),
}


def kind_of(index: int) -> str:
    """The kind of a case."""
    return tuple(KINDS)[index % len(KINDS)]


def clean(folder: Path) -> None:
    """Empties the folder of a case."""
    os.chdir(folder.parent)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


warnings.filterwarnings("ignore")
