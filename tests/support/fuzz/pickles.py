"""Pickles that run code, write files, or need much memory, as somebody who shares a file could make them.

They are written opcode by opcode, because `pickle.dumps` makes only some of these forms. What they run creates the file
`SENTINEL` in the present folder.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

from fuzz.mutators import Rng, choose

SENTINEL = "EXECUTED"
COMMAND = f"touch {SENTINEL}"
CODE = f"open({SENTINEL!r}, 'w').close()"

CALLS: tuple[tuple[str, str, tuple[Any, ...]], ...] = (
    ("os", "system", (COMMAND,)),
    ("posix", "system", (COMMAND,)),
    ("nt", "system", (COMMAND,)),
    ("subprocess", "Popen", (["touch", SENTINEL],)),
    ("subprocess", "check_output", (["touch", SENTINEL],)),
    ("builtins", "eval", (CODE,)),
    ("builtins", "exec", (CODE,)),
    ("__builtin__", "eval", (CODE,)),
    ("builtins", "open", (SENTINEL, "w")),
    ("builtins", "__import__", ("antigravity",)),
    ("importlib", "import_module", ("antigravity",)),
    ("io", "open", (SENTINEL, "w")),
    ("pathlib", "Path.touch", (SENTINEL,)),
    ("codecs", "open", (SENTINEL, "w")),
    ("runpy", "run_module", ("this",)),
    ("timeit", "timeit", (CODE,)),
    ("cProfile", "run", (CODE,)),
    ("pdb", "run", (CODE,)),
    ("pty", "spawn", (["touch", SENTINEL],)),
    ("shutil", "rmtree", (".",)),
    ("shutil", "copy", ("/etc/passwd", SENTINEL)),
    ("os", "mkdir", (SENTINEL,)),
    ("os", "remove", ("policy.safetensors",)),
    ("socket", "create_connection", (("127.0.0.1", 9),)),
    ("urllib.request", "urlopen", ("http://127.0.0.1:9/",)),
    ("webbrowser", "open", ("http://127.0.0.1:9/",)),
    ("numpy", "save", (SENTINEL, [1])),
    ("numpy", "load", ("evil.npy", None, True)),
    ("numpy", "memmap", (SENTINEL, "uint8", "w+", 0, (1,))),
    ("numpy.testing._private.utils", "runstring", (CODE, {})),
    ("numpy.f2py.crackfortran", "myeval", (CODE,)),
    ("torch", "load", ("evil.pt",)),
    ("torch", "save", ([1], SENTINEL)),
    ("torch.storage", "_load_from_bytes", (b"evil",)),
    ("torch.hub", "load", ("nobody/nothing", "x")),
    ("torch.serialization", "load", ("evil.pt",)),
    ("torch.utils.data.datapipes.utils.decoder", "basichandlers", ("pickle", b"evil")),
    ("stable_baselines3.common.save_util", "load_from_pkl", ("evil.pkl",)),
    ("stable_baselines3.common.save_util", "json_to_data", ("{}",)),
    ("flowpolicies.files", "write_json", (SENTINEL, {})),
    ("flowpolicies.plugins", "load", ("x",)),
    ("cloudpickle.cloudpickle", "_make_function", ()),
    ("cloudpickle.cloudpickle", "subimport", ("antigravity",)),
    ("types", "CodeType", ()),
    ("gymnasium", "make", ("antigravity:Env-v0",)),
    ("gymnasium.envs.registration", "load_env_creator", ("os:system",)),
    ("operator", "attrgetter", ("__class__",)),
    ("operator", "methodcaller", ("touch", SENTINEL)),
    ("functools", "reduce", ()),
    ("builtins", "getattr", ("", "join")),
    ("builtins", "globals", ()),
    ("builtins", "compile", (CODE, "x", "exec")),
    ("tempfile", "mkdtemp", ()),
    ("logging", "FileHandler", (SENTINEL,)),
    ("zipfile", "ZipFile", (SENTINEL, "w")),
    ("sqlite3", "connect", (SENTINEL,)),
    ("ctypes", "CDLL", ("libc.so.6",)),
    ("multiprocessing.util", "spawnv_passfds", (b"/bin/touch", [b"touch", SENTINEL.encode()], ())),
    ("antigravity", "webbrowser", ()),
)
"""(module, name, arguments) of what is called."""


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def plain(value: Any) -> bytes:
    """A value of plain data without protocol and STOP."""
    return pickle.dumps(value, 2)[2:-1]


def by_stack(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x04" + text(module) + text(name) + b"\x93" + plain(arguments) + b"R"


def by_global(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + plain(arguments) + b"R"


def by_inst(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"(" + b"".join(map(plain, arguments)) + f"i{module}\n{name}\n".encode()


def by_object(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"(" + f"c{module}\n{name}\n".encode() + b"".join(map(plain, arguments)) + b"o"


def by_new(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    return b"\x80\x02" + f"c{module}\n{name}\n".encode() + plain(arguments) + b"\x81"


def by_state(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    """A state that replaces `__setstate__` of a harmless object by the function, and then calls it."""
    harmless = b"\x80\x04" + text("collections") + text("OrderedDict") + b"\x93)R"
    state = b"}" + text("__setstate__") + text(module) + text(name) + b"\x93sb"
    return harmless + state + plain(arguments) + b"b"


def by_partial(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    function = text(module) + text(name) + b"\x93"
    return b"\x80\x04" + text("functools") + text("partial") + b"\x93" + function + b"\x85R)R"


def by_walk(module: str, name: str, arguments: tuple[Any, ...]) -> bytes:
    """The function through an attribute of a package that every reader knows, such as numpy.os.system."""
    return b"\x80\x04" + text("numpy") + text(f"{module}.{name}") + b"\x93" + plain(arguments) + b"R"


FORMS: tuple[Callable[[str, str, tuple[Any, ...]], bytes], ...] = (
    by_stack,
    by_stack,
    by_global,
    by_inst,
    by_object,
    by_new,
    by_state,
    by_partial,
    by_walk,
)


def big_bytes() -> bytes:
    return b"\x80\x04\x8e" + (2**40).to_bytes(8, "little")


def big_memo() -> bytes:
    return b"\x80\x04Nr" + (2**31 - 1).to_bytes(4, "little")


def big_array() -> bytes:
    """A NumPy array of 40 GB, whose content would follow."""
    array = b"\x80\x04" + text("numpy._core.multiarray") + text("_reconstruct") + b"\x93"
    array += text("numpy") + text("ndarray") + b"\x93" + plain((0,)) + plain(b"b") + b"\x87R"
    kind = text("numpy") + text("dtype") + b"\x93" + plain(("f4", False, True)) + b"R"
    return array + b"(" + plain(1) + plain((10**10,)) + kind + plain(False) + plain(b"") + b"tb"


def big_zeros() -> bytes:
    return by_stack("numpy", "zeros", (2 * 10**9,))


def doubling() -> bytes:
    """A list of lists of lists, whose text would have 2^60 entries."""
    return b"\x80\x02]" + b"q\x00" + b"h\x00h\x00\x86q\x00" * 60


def deep() -> bytes:
    return b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999


LARGE = (big_bytes, big_memo, big_array, big_zeros, doubling, deep)


def hostile(rng: Rng) -> tuple[bytes, str]:
    """A pickle that must not be read, and its name."""
    if rng.random() < 0.1:
        large = choose(rng, LARGE)
        return large() + b".", large.__name__
    call, form = choose(rng, CALLS), choose(rng, FORMS)
    inner = form(*call)
    name = f"{call[0]}.{call[1]} {form.__name__}"
    if rng.random() < 0.3:  # Where data are expected, the call is hidden among them.
        proto, body = (inner[:2], inner[2:]) if inner[:1] == b"\x80" else (b"", inner)
        return proto + b"}" + text("observations") + body + b"s.", name + " in a dict"
    return inner + b".", name


def hostile_torch(rng: Rng) -> tuple[bytes, str]:
    """A file of `torch.save` with such a pickle."""
    payload, name = hostile(rng)
    if rng.random() < 0.2:  # The format before torch 1.6 is a row of pickles.
        return payload, f"bare {name}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue(), name
