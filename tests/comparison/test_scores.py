from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from finished_runs import TASK, make_run, make_runs

from flowpolicies.comparison.figures import draw_comparison, pooled_curve
from flowpolicies.comparison.results import EpisodeResult, write_results
from flowpolicies.comparison.runs import name_runs
from flowpolicies.comparison.scores import compare, mixed_settings, read_scores


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path / "runs")


def episodes(label: str, seed: int, successes: list[float], **changes: Any) -> list[EpisodeResult]:
    fields = {"algorithm": label, "run_seed": seed, "environment": TASK.format(1), "task": 1, "seed": 0, "score": None}
    fields |= {"run": f"runs/{label}{seed}", "label": label, "length": 1, "deterministic": False, "flowpolicies": "1"}
    return [
        EpisodeResult(**{**fields, "episode": i, "success": success, "total": -1.0, **changes})
        for i, success in enumerate(successes)
    ]


def test_runs_are_grouped_by_algorithm_and_task(runs: Path) -> None:
    comparison = compare(read_scores([runs]))
    assert comparison.metric == "success"
    assert list(comparison.table) == ["bc", "fql"]
    assert comparison.common == [TASK.format(1), TASK.format(2)]
    np.testing.assert_allclose(comparison.groups("fql"), [[60, 65, 70], [70, 75, 80]])
    means = compare(read_scores([runs], last=2))
    np.testing.assert_allclose(means.groups("fql")[0], [40, 42.5, 45])
    assert compare(read_scores([runs]), "return").groups("fql")[0][0] == pytest.approx(-140)


def test_labels_make_groups(runs: Path) -> None:
    words = [f"mine={runs / 'fql-task1-seed0'}", runs / "fql-task1-seed1", runs / "bc-task1-seed0"]
    assert list(compare(read_scores(words)).table) == ["mine", "fql", "bc"]
    assert [run.label for run in name_runs([f"all={runs}"])] == ["all"] * 12
    with pytest.raises(ValueError, match=r"both hold a run of 'all' in '.*task1-v0' with seed 0\. Give"):
        read_scores([f"all={runs}"])


def test_results_files_are_scored_by_their_episodes(tmp_path: Path, runs: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_results(path, [*episodes("qflow", 0, [1.0, 0.0]), *episodes("qflow", 1, [1.0, 1.0])])
    comparison = compare(read_scores([path, runs]))
    np.testing.assert_allclose(comparison.groups("qflow"), [[50, 100]])
    assert comparison.common == [TASK.format(1)]
    write_results(path, episodes("qflow", 0, [1.0, 1.0], success=None))
    found = read_scores([path, runs])
    assert compare(found).metric == "return"
    assert not compare(read_scores([runs]), "return").is_on_one_scale
    with pytest.raises(ValueError, match=r"a\.jsonl' does not report success in %\. All runs have: return"):
        compare(found, "success")


def test_runs_without_evaluations_and_damaged_ones(tmp_path: Path) -> None:
    path = make_run(tmp_path, "bc", 1, 0, [])
    with pytest.raises(ValueError, match=r"has no evaluations\. Evaluate it with `flowpolicies evaluate"):
        read_scores([path])
    with pytest.raises(ValueError, match="no evaluations of its online phase"):
        read_scores([make_run(tmp_path, "bc", 1, 1, [0.5])], phase="online")
    with pytest.raises(FileNotFoundError, match="is not the folder of a run"):
        read_scores([tmp_path / "nothing"])
    with pytest.raises(ValueError, match="no run is named"):
        read_scores([])


def test_settings_that_differ_within_a_group_are_named(tmp_path: Path) -> None:
    paths = [
        make_run(tmp_path, "fql", 1, seed, [0.5], alpha=alpha, tau=1) for seed, alpha in enumerate((1.0, 3.0, 1.0))
    ]
    other = make_run(tmp_path, "fql", 2, 0, [0.5], alpha=10.0)  # Values differ between tasks in the papers too.
    assert mixed_settings(read_scores([*paths, other])) == {"fql": {"alpha": [1.0, 3.0]}}


def test_curves_over_tasks_and_the_figure(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    scores = read_scores([runs])
    points = pooled_curve([one for one in scores if one.label == "fql"], "success", 200)
    assert [point.x for point in points] == [100, 200]
    assert points[1].mean == pytest.approx(70)
    assert 65 < points[1].low < 70 < points[1].high < 75
    text = draw_comparison(compare(scores), "bc", tmp_path / "a.svg").read_text()
    panels = ("Interquartile mean and mean", "Performance profile", "Mean over tasks during training")
    better = "Probability of a better run than bc"
    assert all(f">{title}<" in text for title in (*panels, better, "fql", "bc"))
    assert ">shaded: 95 % stratified bootstrap intervals over runs, 2 common tasks<" in text
    alone = draw_comparison(compare(read_scores([runs / "bc-task1-seed0"])), "bc", tmp_path / "b.svg").read_text()
    assert better not in alone
    assert all(f">{title}<" in alone for title in panels)
