import math
from pathlib import Path

import numpy as np
import pytest

from flowpolicies.artifacts import ArtifactError
from flowpolicies.policies import Evaluation
from flowpolicies.training import EvaluationRow, read_evaluations
from flowpolicies.training.evaluations import append_evaluation

ROW = EvaluationRow("online", 7, 2, 0.5, 0.1, 0.9, -1.5, -2.0, -1.0, 8.0)


def test_rows_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    assert read_evaluations(path) == []
    append_evaluation(path, ROW)
    append_evaluation(path, ROW._replace(phase="offline", step=9))
    assert read_evaluations(path) == [ROW, ROW._replace(phase="offline", step=9)]
    assert path.read_text().startswith("phase,step,episodes,success,low,high,return,return_low,return_high,length\n")


def test_a_row_has_the_intervals_of_its_evaluation() -> None:
    episodes = Evaluation(np.array([1.0, 3.0]), np.array([4, 6]), np.array([1.0, 0.0]), deterministic=False)
    row = EvaluationRow.of("offline", 3, episodes)
    assert row[:4] == ("offline", 3, 2, 0.5)
    assert (row.low, row.high) == episodes.success_rate()[1:]
    assert (row.mean_return, row.return_low, row.return_high) == episodes.mean_return()
    assert row.length == 5


def test_unknown_success_is_nan(tmp_path: Path) -> None:
    unknown = Evaluation(np.ones(2), np.ones(2), None, deterministic=False)
    append_evaluation(tmp_path / "a.csv", EvaluationRow.of("offline", 3, unknown))
    (row,) = read_evaluations(tmp_path / "a.csv")
    assert math.isnan(row.success)
    assert row.mean_return == 1


def test_another_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(ValueError, match=r"has the columns step, loss; an evaluations file has phase, step"):
        read_evaluations(tmp_path / "a.csv")


def test_a_file_that_is_not_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "evaluations.csv"
    path.write_bytes(b"phase,st\rep\n\x00\xff\r\r1,2\n")
    with pytest.raises(ArtifactError, match=r"evaluations\.csv"):
        read_evaluations(path)
