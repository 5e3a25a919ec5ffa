from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.comparison.results import EpisodeResult, check_ending, read_results, write_results
from flowpolicies.data.tasks import parse_tasks, task_of, with_task

ROW = EpisodeResult(
    run="runs/fql",
    label="fql",
    algorithm="fql",
    run_seed=3,
    environment="ogbench:cube-single-play-singletask-task2-v0",
    task=2,
    seed=0,
    episode=0,
    total=-12.5,
    length=80,
    success=1.0,
    score=None,
    deterministic=False,
    flowpolicies="0.2.0",
)


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_results(path, [ROW, ROW])
    assert read_results(path) == [ROW, ROW]
    first = json.loads(path.read_text().splitlines()[0])
    assert first["schema"] == "results/v1"
    assert first["return"] == -12.5


def test_files_can_be_joined_and_have_further_keys(tmp_path: Path) -> None:
    line = json.dumps({**ROW.to_json(), "wind": 3})
    (tmp_path / "both.jsonl").write_text(f"{line}\n\n{line}\n")
    assert read_results(tmp_path / "both.jsonl") == [ROW, ROW]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": "results/v2"},
            r"line 2: its schema is 'results/v2', .* reads 'results/v1'\. Another version",
        ),
        ({"schema": None}, r"line 2: its schema is None, .*`flowpolicies evaluate RUN --out FILE.jsonl` writes such"),
        ({"success": "yes"}, r"line 2: 'success' must be int or float or null, got 'yes'"),
        ({"episode": True}, r"'episode' must be int, got True"),
        ({"deterministic": 1}, r"'deterministic' must be bool, got 1"),
    ],
)
def test_rows_of_another_schema_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps({**ROW.to_json(), **part}) + "\n" for part in ({}, change)))
    with pytest.raises(ArtifactError, match=message):
        read_results(path)


def test_missing_keys_and_other_files_are_refused(tmp_path: Path) -> None:
    path, row = tmp_path / "other.jsonl", ROW.to_json()
    del row["length"]
    for text, message in (
        (json.dumps(row), "the row has no 'length'"),
        ("[1]", "schema is None"),
        ("", "it has no rows"),
    ):
        path.write_text(text)
        with pytest.raises(ArtifactError, match=message):
            read_results(path)
    path.write_text('{"schema": "results/v1", ')
    with pytest.raises(ArtifactError, match="line 1"):
        read_results(path)
    with pytest.raises(ValueError, match=r"with the ending \.jsonl"):
        check_ending(tmp_path / "results.json")


def test_tasks_of_addresses() -> None:
    plain, third = ("ogbench:cube-single-play-singletask-v0", "ogbench:cube-single-play-singletask-task3-v0")
    assert with_task(plain, 3) == with_task(with_task(plain, 1), 3) == third
    assert (task_of(plain), task_of(third), task_of("Pendulum-v1")) == (None, 3, None)
    assert with_task(f"{plain},sparse=true", 3) == f"{third},sparse=true"
    assert parse_tasks(["1-3", "5"]) == parse_tasks(["1,2", "3,5,1"]) == (1, 2, 3, 5)
    for word in ("3-1", "a", "", "-2"):
        with pytest.raises(ValueError, match="--tasks takes numbers and ranges"):
            parse_tasks([word])
    with pytest.raises(ValueError, match="'Pendulum-v1' has no numbered tasks"):
        with_task("Pendulum-v1", 2)
