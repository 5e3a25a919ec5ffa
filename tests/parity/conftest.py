"""`pytest tests/parity --golden-dir DIR` replays the recordings of another directory."""

from collections.abc import Callable
from pathlib import Path

import pytest
from names import STAGED, port_of, recorded_name

DEFAULT = Path(__file__).parents[1] / "golden"

KINDS: dict[str, Callable[[str], bool]] = {
    "golden": lambda stem: True,
    "ported": lambda stem: port_of(stem) is not None,
    "staged": lambda stem: recorded_name(stem) in STAGED,
}
"""Name of a fixture -> whether it takes a file: every recording; those of one joint update; those of several stages."""


def _known(stem: str) -> bool:
    try:
        return bool(recorded_name(stem))
    except LookupError:  # The test over all recordings reports it.
        return False


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folder = Path(metafunc.config.getoption("--golden-dir") or DEFAULT)
    files = sorted(folder.glob("*.npz"))
    for kind in KINDS.keys() & set(metafunc.fixturenames):
        found = [file for file in files if kind == "golden" or (_known(file.stem) and KINDS[kind](file.stem))]
        if kind == "golden":
            found = found or [folder]  # A directory without recordings is an error, not an empty list of tests.
        metafunc.parametrize(kind, found, ids=[file.stem for file in found])
