"""What a case may do: an audit hook that watches, and bounds on memory and time."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import resource
import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flowpolicies

MAX_SECONDS = 2.0
"""Processor time in seconds that reading an artifact may take."""
MAX_BYTES = 2**30
"""Memory in bytes that a case may allocate beyond what the process had before."""
MAX_WALL_SECONDS = 60.0
"""Time in seconds after which a case that does not even compute, or computes far too long, is killed."""

FORBIDDEN = re.compile(
    r"os\.(system|exec|posix_spawn|spawn|fork|forkpty|kill|killpg|remove|rename|rmdir|mkdir|link|symlink|chmod|chown"
    r"|truncate|putenv|unsetenv|startfile|chflags|setxattr|removexattr|utime|add_dll_directory|lockf)"
    r"|subprocess\.|pty\.|socket\.|urllib\.|http\.|ftplib\.|smtplib\.|poplib\.|imaplib\.|nntplib\.|telnetlib\."
    r"|webbrowser\.|ctypes\.(dlopen|dlsym|call_function)|shutil\.|tempfile\.|sqlite3\.|signal\.|code\.__new__"
    r"|sys\.(addaudithook|setprofile|settrace)|resource\.setrlimit|fcntl\.|mmap\.__new__write|syslog\.|winreg\."
)
"""Events that no reading of an artifact may raise."""

CLASSES = re.compile(
    r"(numpy(\.[\w.]*)? (ndarray|dtype|_reconstruct|_frombuffer|scalar|Generator|PCG64|__bit_generator_ctor"
    r"|__generator_ctor|SeedSequence|__pyx_unpickle_\w+|bool_?|float\d+|int\d+|uint\d+))"
    r"|collections (OrderedDict|deque|defaultdict)"
    r"|torch (\w*Storage|Size|device|Generator|Tensor|\w*float\w*|u?int\d+|bool|dtype)|torch\._utils _rebuild\w+"
    r"|torch\.storage (Typed|Untyped)Storage|torch\.nn\.[\w.]* \w+|torch\.optim\.[\w.]* \w+"
    r"|flowpolicies\.(?!files|plugins|cli|training)[\w.]* \w+|stable_baselines3\.(?!common\.save_util)[\w.]* \w+"
    r"|gymnasium\.spaces[\w.]* \w+"
    r"|builtins (set|frozenset|slice|complex|bytearray|range|type|dict|list|tuple|object)|copyreg _reconstructor"
    r"|_codecs encode|functools partial|pathlib \w+|jax.* .*|flax.* .*"
)
"""Classes of pickles that may be looked up; what is called of them is judged by the other events."""

_MAKERS = tuple(module.__file__ for module in (collections, dataclasses, typing))
"""Modules of Python that execute text to make classes, and to read their annotations."""


class Watch:
    """Audit hook that notes what a case does besides reading its own files."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._roots: tuple[str, ...] | None = None
        self._allowed: re.Pattern[str] | None = None
        here = (Path(flowpolicies.__file__).parents[1], sys.prefix, sys.base_prefix, "/proc/self", "/proc/cpuinfo")
        self._system = tuple({os.path.realpath(path) for path in here} | {"/dev/null", "/dev/urandom", "/sys/"})
        sys.addaudithook(self._hook)

    @contextmanager
    def on(self, root: Path, allowed: str | None) -> Iterator[None]:
        """Watches the block, which may read below `root`, and raise the events that match `allowed`."""
        self.seen = []
        self._allowed = None if allowed is None else re.compile(allowed)
        self._roots = (os.fspath(root), os.path.realpath(root))
        try:
            yield
        finally:
            self._roots = None

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if self._roots is None:
            return
        roots, self._roots = self._roots, None  # The hook does not watch itself.
        try:
            told = self._judge(event, args, roots)
            if told is not None and not (self._allowed is not None and self._allowed.search(told)):
                self.seen.append(told[:300])
        finally:
            self._roots = roots

    def _judge(self, event: str, args: tuple[Any, ...], roots: tuple[str, ...]) -> str | None:
        if event == "open":
            return self._judge_open(args, roots)
        if event == "import":
            return f"import {args[0]}"
        if event in ("exec", "compile") and sys._getframe(3).f_code.co_filename in _MAKERS:
            return None
        if event == "exec":
            return f"exec {getattr(args[0], 'co_filename', args[0])}"
        if event == "compile":
            return None if args[1] == "<unknown>" else f"compile {args[1]}"  # ast.literal_eval of NumPy's headers.
        if event == "pickle.find_class":
            name = f"{args[0]} {args[1]}"
            return None if CLASSES.fullmatch(name) else f"pickle.find_class {name}"
        return f"{event} {args!r}" if FORBIDDEN.match(event) else None

    def _judge_open(self, args: tuple[Any, ...], roots: tuple[str, ...]) -> str | None:
        path, _, flags = args
        if isinstance(path, int) or path is None:
            return None
        path = os.path.realpath(os.fsdecode(path))
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) if flags else False
        if writes and path != "/dev/null":
            return f"open for writing {path}"
        if path.startswith(roots) or path.startswith(self._system):
            return None
        return f"open outside {path}"


def limit_memory() -> None:
    """Lets this process allocate `MAX_BYTES` more than it has."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
