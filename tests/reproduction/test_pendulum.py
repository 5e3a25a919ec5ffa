from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest

from flowpolicies.data import load_dataset, make_env
from flowpolicies.reproduction import pendulum
from flowpolicies.reproduction.published import load_table

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the entry points of pyproject.toml, which an older editable installation does not have."""
    groups = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path / "entry_points-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: entry-points\nVersion: 0\n")
    lines = [f"[flowpolicies.{kind}]\npendulum = {groups[f'flowpolicies.{kind}']['pendulum']}" for kind in KINDS]
    (folder / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))


KINDS = ("datasets", "environments")


@pytest.mark.usefixtures("installed")
def test_the_dataset_is_generated_when_it_is_loaded() -> None:
    dataset = load_dataset("pendulum:mixed")
    assert len(dataset) == 20_000
    assert len(dataset.episode_ends) == 100
    starts = np.append(0, dataset.episode_ends[:-1] + 1)
    returns = np.add.reduceat(dataset.rewards.astype(np.float64), starts)
    assert returns.mean() == pytest.approx(-470, abs=5)
    env = make_env("pendulum:mixed")
    assert env.spec is not None
    assert env.spec.id == "Pendulum-v1"
    assert env.observation_space == dataset.observation_space


def test_the_controller_swings_up_and_balances() -> None:
    assert np.mean([sum(row.reward for row in pendulum.roll_out(0.0, 0.0, seed)) for seed in range(10)]) > -200


@pytest.mark.parametrize("call", [pendulum.load, pendulum.make_env])
def test_there_is_one_dataset(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="unknown dataset 'pendulum:mixd'; the only one is 'pendulum:mixed'"):
        call("mixd")


@pytest.mark.parametrize(("name", "bdpo"), [("pendulum", -1121), ("pendulum-tuned", -149)])
def test_tables_have_a_measured_number_for_every_algorithm(name: str, bdpo: float) -> None:
    table = load_table(name)
    assert {column for _, column in table.published} == set(table.columns)
    assert table.published["mixed", "bdpo"].mean == pytest.approx(
        {"pendulum": -1121, "pendulum-tuned": -149}[name], abs=1
    )
