"""`pytest tests/parity --golden-dir DIR` replays the recordings of another directory."""

from pathlib import Path

import pytest
from ports import PORTS, recorded_name

DEFAULT = Path(__file__).parents[1] / "golden"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`golden`: every recording; `ported`: those whose algorithm exists here."""
    folder = Path(metafunc.config.getoption("--golden-dir") or DEFAULT)
    files = sorted(folder.glob("*.npz"))
    if "golden" in metafunc.fixturenames:
        metafunc.parametrize("golden", files or [folder], ids=[file.stem for file in files] or ["empty"])
    if "ported" in metafunc.fixturenames:
        known = [file for file in files if recorded_name(file.stem) in PORTS]
        metafunc.parametrize("ported", known, ids=[file.stem for file in known])
