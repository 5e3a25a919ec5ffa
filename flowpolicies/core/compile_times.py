"""How long compiling took on this machine, kept beside what torch has compiled, so that `auto` knows its price."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import torch
from torch.utils._pytree import tree_leaves

VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
"""Torch's environment variable for the folder of its compiled code."""
FILE = "flowpolicies_compile_times.json"
COLD, WARM = 60.0, 0.3
"""Seconds that compiling takes where it was never measured, and the share of the time that it takes again."""


def cache_dir() -> Path:
    """Folder of compiled code: that of torch's environment variable, or else one of the user's that stays."""
    folder = Path(os.environ.get(VARIABLE, ""))
    # Torch itself sets the variable, to a folder below /tmp, as soon as its compiler is imported.
    if folder.name and not (folder.name.startswith("torchinductor_") and folder.parent == Path(tempfile.gettempdir())):
        return folder
    return Path("~/.cache/flowpolicies/inductor").expanduser()


@contextmanager
def cache_folder() -> Iterator[None]:
    """Within the block, torch keeps compiled code in `cache_dir()`. Torch's own default is below /tmp, which is emptied
    when the machine starts, and where other users may put files."""
    before = os.environ.get(VARIABLE)
    with suppress(OSError, RuntimeError):  # Without a home that can be written to, torch's default stays.
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


@final
class CompileTimes:
    """Seconds of first calls of compiled functions, by a hash of the function's name, its inputs and the machine."""

    def __init__(self, variant: Hashable) -> None:
        self._variant = variant
        self._hashes: dict[Hashable, str] = {}
        self._known: dict[str, float] | None = None

    def expected(self, key: Hashable, inputs: Sequence[Any]) -> float:
        """Seconds that compiling is expected to take."""
        if self._known is None:
            self._known = _read()
        known = self._known.get(self._hash(key, inputs))
        return COLD if known is None else known

    def record(self, key: Hashable, inputs: Sequence[Any], seconds: float) -> None:
        """Keeps what compiling took. A failure to write is not one of the training's, so nothing is raised."""
        times, name = _read(), self._hash(key, inputs)
        # The next time torch finds the code in its cache; how long that takes is known once it has happened.
        times[name] = round(seconds if name in times else WARM * seconds, 2)
        with suppress(OSError):
            temporary = cache_dir() / f"{FILE}.{os.getpid()}"
            temporary.write_text(json.dumps(times, indent=1))
            os.replace(temporary, cache_dir() / FILE)

    def _hash(self, key: Hashable, inputs: Sequence[Any]) -> str:
        if key not in self._hashes:
            shapes = [(tuple(leaf.shape), str(leaf.dtype)) for leaf in tree_leaves(inputs) if torch.is_tensor(leaf)]
            machine = (torch.__version__, platform.node(), torch.backends.cpu.get_cpu_capability())
            words = repr((self._variant, key, shapes, machine))
            self._hashes[key] = hashlib.sha256(words.encode()).hexdigest()[:16]
        return self._hashes[key]


def _read() -> dict[str, float]:
    """The times in the file; none if there is no such file, or a damaged one."""
    with suppress(OSError, ValueError):
        found = json.loads((cache_dir() / FILE).read_text())
        if isinstance(found, dict) and all(isinstance(value, float) for value in found.values()):
            return found
    return {}
