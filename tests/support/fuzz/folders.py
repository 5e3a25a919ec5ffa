"""Cases of artifacts that are folders, HDF5 files and addresses."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from fuzz.archives import OF_NPY, OF_SAFETENSORS, Made, any_bytes, model, npz
from fuzz.mutators import Rng, choose, dump_json, mutate_json
from fuzz.pickles import hostile
from fuzz.seeds import Tree

MadeTree = tuple[Tree, str, bool]

SECRET = "secret.npy"
"""A file beside the artifact, which no artifact may name."""


def json_text(data: bytes, rng: Rng) -> Made:
    if rng.random() < 0.2:
        return any_bytes(data, rng)
    try:
        value, what = mutate_json(json.loads(data), rng)
    except ValueError:
        return any_bytes(data, rng)
    return dump_json(value, rng).encode(), what, False


def csv_text(data: bytes, rng: Rng) -> Made:
    """A cell, a line or the header is changed."""
    if rng.random() < 0.4:
        return any_bytes(data, rng)
    lines = data.decode(errors="replace").split("\n")
    at = int(rng.integers(len(lines)))
    cells = lines[at].split(",")
    cells[int(rng.integers(len(cells)))] = choose(
        rng,
        ("", "nan", "1e999", "-1", "x", '"', "1" * 5000, "99999999999999999999", "offline", "\x00", "é", "1,2", "=1+1"),
    )
    lines[at] = ",".join(cells)
    return "\n".join(lines).encode(), f"line {at}", False


def pickled(data: bytes, rng: Rng) -> Made:
    if rng.random() < 0.5:
        payload, what = hostile(rng)
        return payload, what, False
    return any_bytes(data, rng)


BY_SUFFIX: dict[str, Callable[[bytes, Rng], Made]] = {
    ".json": json_text,
    ".csv": csv_text,
    ".npy": lambda data, rng: choose(rng, OF_NPY)(data, rng),
    ".npz": npz,
    ".zip": model,
    ".pkl": pickled,
    ".safetensors": lambda data, rng: choose(rng, OF_SAFETENSORS)(data, rng),
}


def folder(tree: Tree, rng: Rng, prefer: str = "") -> MadeTree:
    """One to three files of a folder are mutated, removed, or exchanged; names with `prefer` are drawn more often."""
    files, done, rest = dict(tree.files), list[str](), sorted(tree.files)
    for _ in range(min(choose(rng, (1, 1, 2, 3)), len(rest))):
        names = list(rest)
        favourites = [name for name in names if prefer and prefer in name]
        name = choose(rng, favourites if favourites and rng.random() < 0.6 else names)
        rest.remove(name)
        way = rng.random()
        if way < 0.85:
            files[name], what, _ = BY_SUFFIX.get(Path(name).suffix, any_bytes)(files[name], rng)
        elif way < 0.91 and len(files) > 1:
            del files[name]
            what = "removed"
        else:
            other = choose(rng, names)
            files[name], what = tree.files[other], f"is {other}"
        done.append(f"{name}: {what}")
    return Tree(tree.name, files), "; ".join(done), False


def memmap(tree: Tree, rng: Rng) -> MadeTree:
    index = f"{tree.name}/index.json"
    if rng.random() < 0.3:  # A file outside of the folder, by its name in the index, or a wrong fingerprint.
        value = json.loads(tree.files[index])
        column = choose(rng, sorted(value["columns"]))
        outside = choose(rng, (f"../{SECRET}", os.path.abspath(SECRET), f"./../{tree.name}/../{SECRET}", "/etc/passwd"))
        value["columns"][column]["file"] = outside
        if rng.random() < 0.5:
            value["columns"][column]["bytes"] = 1_000
        return Tree(tree.name, {**tree.files, index: json.dumps(value).encode()}), f"{column} is {outside}", True
    return folder(tree, rng, "index.json")


def pretrained(tree: Tree, rng: Rng) -> MadeTree:
    return folder(tree, rng, choose(rng, ("config.json", "model.safetensors")))


def run(tree: Tree, rng: Rng) -> MadeTree:
    return folder(tree, rng, choose(rng, ("config.json", ".csv", ".safetensors", "checkpoints/")))


def flax(tree: Tree, rng: Rng) -> MadeTree:
    """A pickle of the authors' code, or the hyperparameters beside it."""
    if rng.random() < 0.3:
        return folder(tree, rng, "flags.json")
    name = next(name for name in tree.files if name.endswith(".pkl"))
    content, what, _ = pickled(tree.files[name], rng)
    return Tree(tree.name, {**tree.files, name: content}), f"{name}: {what}", False


def checkpoint(tree: Tree, rng: Rng) -> MadeTree:
    return folder(tree, rng, "checkpoints/")


# Minari

SPECS = (
    "os:system",
    "antigravity:make",
    "builtins:eval",
    "subprocess:Popen",
    "this:x",
    "pathlib:Path",
    "gymnasium.envs.classic_control:PendulumEnv",
)


def minari(tree: Tree, rng: Rng) -> MadeTree:
    name = next(name for name in tree.files if name.endswith("metadata.json"))
    way = rng.random()
    if way < 0.4:
        metadata = json.loads(tree.files[name])
        key = choose(rng, ("env_spec", "eval_env_spec"))
        try:
            spec = json.loads(metadata.get("env_spec") or "{}")
        except ValueError:
            spec = {}
        spec = {"id": "Pendulum-v1", "kwargs": {}, "additional_wrappers": [], **spec}
        hostile_entry = choose(rng, SPECS)
        what = choose(rng, ("entry_point", "wrapper", "id", "any"))
        if what == "entry_point":
            spec |= {
                "id": choose(rng, ("Evil-v0", "Pendulum-v1")),
                "entry_point": hostile_entry,
                "kwargs": {"command": "touch EXECUTED"},
            }
        elif what == "wrapper":
            module, _, attribute = hostile_entry.partition(":")
            wrapper = {
                "name": attribute,
                "entry_point": f"{module}:{attribute}",
                "kwargs": {"command": "touch EXECUTED"},
            }
            spec["additional_wrappers"] = [wrapper]
        elif what == "id":
            spec["id"] = choose(rng, ("os:Evil-v0", "antigravity:Evil-v0", "../x", "x" * 10_000, "Evil-v0"))
        else:
            spec, _ = mutate_json(spec, rng)
        metadata[key] = dump_json(spec)
        return (
            Tree(tree.name, {**tree.files, name: json.dumps(metadata).encode()}),
            f"{key}: {what} {hostile_entry}",
            False,
        )
    if way < 0.7:
        metadata, what = mutate_json(json.loads(tree.files[name]), rng)
        if isinstance(metadata, dict) and rng.random() < 0.5:
            part = choose(rng, ("observation_space", "action_space"))
            try:
                space, inner = mutate_json(json.loads(metadata[part]), rng)
                metadata[part], what = dump_json(space), f"{part}: {inner}"
            except (KeyError, TypeError, ValueError, RecursionError):
                pass
        return Tree(tree.name, {**tree.files, name: dump_json(metadata, rng).encode()}), f"metadata: {what}", False
    inner = next((name for name in tree.files if name.endswith(".hdf5")), None)
    if inner is None or rng.random() < 0.2:
        return folder(tree, rng)
    content, what, _ = hdf5(tree.files[inner], rng)
    return Tree(tree.name, {**tree.files, inner: content}), f"{inner}: {what}", False


# HDF5


def hdf5(data: bytes, rng: Rng) -> Made:
    """Bytes of the file, or its datasets, links, types and sizes."""
    if rng.random() < 0.5:
        return any_bytes(data, rng)
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "a") as file:
        names: list[str] = []
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        name, change = choose(rng, names), choose(rng, OF_HDF5)
        must = change(file, name, rng)
    return buffer.getvalue(), f"{name}: {change.__name__}", must


def declared_huge(file: h5py.File, name: str, rng: Rng) -> bool:
    """A dataset of many GB of which no byte is stored."""
    shape = (choose(rng, (10**9, 10**10)), *file[name].shape[1:])
    del file[name]
    file.create_dataset(name, shape, "f4", chunks=(1024, *shape[1:]))
    return True


def compressed_zeros(file: h5py.File, name: str, rng: Rng) -> bool:
    """2 GB in a few chunks, each of which is compressed a thousandfold."""
    del file[name]
    rows, content = 2**29, deflated_chunk()
    dataset = file.create_dataset(name, (rows,), "f4", chunks=(2**23,), compression="gzip")
    for start in range(0, rows, 2**23):
        dataset.id.write_direct_chunk((start,), content)
    return True


_CHUNK: list[bytes] = []


def deflated_chunk() -> bytes:
    import zlib

    if not _CHUNK:
        _CHUNK.append(zlib.compress(bytes(2**25), 9))
    return _CHUNK[0]


def external_link(file: h5py.File, name: str, rng: Rng) -> bool:
    del file[name]
    file[name] = h5py.ExternalLink(choose(rng, ("secret.hdf5", os.path.abspath("secret.hdf5"))), "/observations")
    return True


def external_storage(file: h5py.File, name: str, rng: Rng) -> bool:
    shape = file[name].shape
    del file[name]
    size = int(np.prod(shape)) * 4
    file.create_dataset(name, shape, "f4", external=[(choose(rng, (SECRET, "/etc/passwd")), 0, size)])
    return True


def virtual(file: h5py.File, name: str, rng: Rng) -> bool:
    shape = file[name].shape
    del file[name]
    layout = h5py.VirtualLayout(shape, "f4")
    layout[...] = h5py.VirtualSource("secret.hdf5", "observations", shape)
    file.create_virtual_dataset(name, layout)
    return True


def loop(file: h5py.File, name: str, rng: Rng) -> bool:
    """A name that leads to itself, or to the root, so that walking never ends."""
    del file[name]
    file[name] = choose(rng, (h5py.SoftLink(f"/{name}"), h5py.SoftLink("/"), h5py.SoftLink("/nowhere")))
    return False


def other_type(file: h5py.File, name: str, rng: Rng) -> bool:
    rows = file[name].shape[0] if file[name].shape else 1
    del file[name]
    way = int(rng.integers(6))
    if way == 0:
        file.create_dataset(name, data=["text"] * rows)
    elif way == 1:
        file.create_dataset(name, data=np.zeros(rows, np.complex64))
    elif way == 2:
        file.create_dataset(name, data=h5py.Empty("f4"))
    elif way == 3:
        file.create_dataset(name, data=np.zeros(rows, [("a", "f4"), ("b", "i4")]))
    elif way == 4:
        file.create_dataset(name, (rows,), h5py.vlen_dtype(np.float32))
    else:
        file.create_dataset(name, data=np.full(rows, np.nan))
    return False


def other_shape(file: h5py.File, name: str, rng: Rng) -> bool:
    del file[name]
    file.create_dataset(name, choose(rng, ((), (0,), (0, 3), (40, 0), (39,), (1,) * 20, (40, 3, 1))), "f4")
    return False


def group(file: h5py.File, name: str, rng: Rng) -> bool:
    del file[name]
    inner = file.create_group(name)
    for _ in range(int(2 ** rng.uniform(0, 8))):
        inner = inner.create_group("a")
    return False


def many_keys(file: h5py.File, name: str, rng: Rng) -> bool:
    del file[name]
    inner = file.create_group(name)
    for number in range(300):
        inner.create_dataset(f"k{number}", (40,), "f4")
    return False


OF_HDF5 = (
    declared_huge,
    compressed_zeros,
    external_link,
    external_storage,
    virtual,
    loop,
    other_type,
    other_type,
    other_shape,
    other_shape,
    group,
    many_keys,
)

# Addresses

WORDS = (
    "npz",
    "hdf5",
    "memmap",
    "sb3",
    "minari",
    "ogbench",
    "d4rl",
    "pendulum",
    "mixed",
    "data.npz",
    "buffer.pkl",
    "trust",
    "true",
    "false",
    "compact",
    "min_length",
    "storage",
    "memmap",
    "ram",
    "cache_dir",
    "name",
    "provenance",
    "max_bytes",
    "../..",
    "/",
    "~",
    "~nobody",
    "$HOME",
    "%s",
    "{}",
    "é",
    "\x00",
    "\n",
    " ",
    "x" * 300,
    "x" * 5000,
    "1",
    "-1",
    "1e9",
    "NaN",
    "null",
    "[]",
    '{"a": 1}',
    "[" * 3000,
    '"',
    "'",
    "\\",
    "C:",
    "file://",
    "hf://",
    "http://127.0.0.1:9/x",
    "*",
    "?",
)
JOINTS = (":", ",", "=", "", "/", "::", ",,", "=,", " ")

NOT_TRUE = (
    "no",
    "off",
    "0.0",
    '"none"',
    "False",
    "FALSE",
    "0",
    "1",
    "null",
    "None",
    "[]",
    "{}",
    '"true"',
    "True",
    "TRUE",
    "yes",
    "on",
    "t",
    "1.0",
    "-1",
    '"false"',
    "",
    " ",
    "[true]",
    "NaN",
    "nottrue",
    "t r u e",
    "falsetrue",
    "[]]",
    "'true'",
)
"""Values that are not the word true."""


def address(rng: Rng) -> tuple[str, bool]:
    """The text of an address, and whether it must be refused."""
    if rng.random() < 0.3:
        value = choose(rng, NOT_TRUE)
        more = choose(rng, ("", ",name=x", ",storage=ram", ",storage=memmap,cache_dir=cache"))
        return f"sb3:evil.pkl,trust={value}{more}", True
    if rng.random() < 0.4:
        options = [f",{choose(rng, WORDS)}={choose(rng, WORDS)}" for _ in range(int(rng.integers(1, 4)))]
        return choose(
            rng, ("npz:data.npz", "memmap:mapped", "hdf5:flat.hdf5", "sb3:evil.pkl", "minari:fuzz/mine-v0")
        ) + "".join(options), False
    return "".join(choose(rng, WORDS) + choose(rng, JOINTS) for _ in range(int(rng.integers(1, 7)))), False
