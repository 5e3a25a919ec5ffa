"""Files in D4RL's layout, in the folder where D4RL keeps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from flowpolicies_d4rl.names import find_task


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder in the place of D4RL's, with downloads turned off."""
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("FLOWPOLICIES_OFFLINE", "1")
    return tmp_path / "d4rl"


@pytest.fixture
def put(data_dir: Path) -> Callable[..., dict[str, Any]]:
    """A function that writes the file of a dataset and returns its columns, which are random unless given."""

    def write(name: str, sizes: tuple[int, int] = (29, 8), rows: int = 40, **columns: Any) -> dict[str, Any]:
        generator = np.random.default_rng(0)
        timeouts = np.zeros(rows, bool)
        timeouts[[9, 24]] = True
        whole = {
            "observations": generator.normal(size=(rows, sizes[0])).astype(np.float32),
            "actions": np.clip(generator.normal(size=(rows, sizes[1])), -1, 1).astype(np.float32),
            "rewards": np.zeros(rows, np.float32),
            "terminals": np.zeros(rows, bool),
            "timeouts": timeouts,
        } | columns
        path = data_dir / Path(find_task(name).file).name
        path.parent.mkdir(exist_ok=True)
        # Without this a second file of the same name would be taken for a damaged download.
        path.with_name(f"{path.name}.download.json").unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            for key, column in whole.items():
                if column is not None:
                    file[key] = column
        return whole

    return write
