from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiny import pendulum_data

from flowpolicies.data import load_dataset, open_writer, save_dataset


def test_npz(tmp_path: Path) -> None:
    dataset = pendulum_data(60)
    path = save_dataset(dataset, f"npz:{tmp_path}/new/data.npz")
    assert path == tmp_path / "new" / "data.npz"
    assert load_dataset(f"npz:{path}").fingerprint == dataset.fingerprint
    other = pendulum_data(60, seed=1)
    with pytest.raises(FileExistsError, match=r"data\.npz' exists\. Pass overwrite=True \(--overwrite\)"):
        open_writer(f"npz:{path}")
    save_dataset(other, f"npz:{path}", overwrite=True)
    assert load_dataset(f"npz:{path}").fingerprint == other.fingerprint


def test_other_addresses_are_explained() -> None:
    for address in ("data.npz", ":x", "npz:"):
        with pytest.raises(ValueError, match=rf"'{address}' does not have the form 'writer:name'\. Write 'npz:"):
            open_writer(address)
    with pytest.raises(ValueError, match=r"unknown dataset writer 'minary' \(known: .*npz\)\. Did you mean 'minari'\?"):
        open_writer("minary:x-v0")
    with pytest.raises(ValueError, match=r"'npz:x\.hdf5' must end in \.npz"):
        open_writer("npz:x.hdf5")


def test_options_are_checked_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="authr"):
        open_writer(f"npz:{tmp_path}/x.npz", authr="x")
    pytest.importorskip("minari")
    with pytest.raises(TypeError, match="authr"):
        open_writer("minari:x-v0", authr="x", data_dir=tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("flowpolicies_minari")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(
        ImportError, match=r'writer \'minari\' cannot be imported .* pip install "flowpolicies\[minari\]"'
    ):
        open_writer("minari:x-v0")
