"""`pytest tests/parity --golden-dir DIR` replays the recordings of another directory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from names import STAGED, port_of, recorded_name

DEFAULT = Path(__file__).parents[1] / "golden"


def _holds_several_updates(file: Path) -> bool:
    with np.load(file) as arrays:
        return any(key.startswith("multi/") for key in arrays.files)


KINDS: dict[str, Callable[[Path], bool]] = {
    "golden": lambda file: True,
    "ported": lambda file: port_of(file.stem) is not None,
    "consecutive": lambda file: port_of(file.stem) is not None and _holds_several_updates(file),
    "staged": lambda file: recorded_name(file.stem) in STAGED,
}
"""Name of a fixture -> whether it takes a file: every recording; those of joint updates; those of joint updates that
hold several in a row; those of updates in stages."""


def _known(stem: str) -> bool:
    try:
        return bool(recorded_name(stem))
    except LookupError:  # The test over all recordings reports it.
        return False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = Path(metafunc.config.getoption("--golden-dir") or DEFAULT)
    files = sorted(folder.glob("*.npz"))
    for kind in KINDS.keys() & set(metafunc.fixturenames):
        found = [file for file in files if kind == "golden" or (_known(file.stem) and KINDS[kind](file))]
        if kind == "golden":
            found = found or [folder]  # A directory without recordings is an error, not an empty list of tests.
        metafunc.parametrize(kind, found, ids=[file.stem for file in found])
