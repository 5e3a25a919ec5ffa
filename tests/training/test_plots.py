from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from flowpolicies.training import EvaluationRow, plot_learning_curves
from flowpolicies.training.plots import COLORS, Point, curve, plot_panels


def row(phase: Any, step: int, success: float, mean_return: float = -1.0) -> EvaluationRow:
    low, high = success - 0.1, success + 0.1
    return EvaluationRow(phase, step, 50, success, low, high, mean_return, mean_return - 1, mean_return + 1, 8.0)


ROWS = [row("offline", 100, 0.2), row("offline", 200, 0.4), row("online", 50, 0.6), row("online", 100, 0.8)]


def test_a_plot_is_written_whole_and_leaves_global_state_alone(tmp_path: Path) -> None:
    parameters = dict(mpl.rcParams)
    path = plot_learning_curves({"FQL": ROWS, "BC": ROWS[:2]}, tmp_path / "new" / "curve.png", title="cube")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000
    assert list(path.parent.iterdir()) == [path]
    assert dict(mpl.rcParams) == parameters


def test_the_ending_names_the_format(tmp_path: Path) -> None:
    path = plot_learning_curves({"FQL": ROWS}, tmp_path / "curve.svg")
    text = path.read_text()
    assert "<svg" in text


def test_what_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    text = plot_learning_curves({"FQL": ROWS, "BC": ROWS}, tmp_path / "a.svg", title="cube-single").read_text()
    labels = ("Success rate (%)", "Gradient steps (offline), then environment steps (online)", "offline", "online")
    assert all(f">{label}<" in text for label in (*labels, "FQL", "BC", "cube-single"))
    text = plot_learning_curves({"FQL": ROWS[:2]}, tmp_path / "b.svg", metric="return").read_text()
    assert ">Return (sum of rewards)<" in text
    assert ">Gradient steps<" in text
    assert ">FQL<" not in text  # One curve needs no legend.


def test_the_legend_says_what_the_bands_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    one, three = [row("offline", 100, 0.2), row("offline", 200, 0.4)], [row("offline", 100, x) for x in (0.2, 0.4, 0.9)]
    for curves, text in (
        ({"FQL": one}, "95 % interval over the episodes of an evaluation"),
        ({"FQL": three}, "95 % bootstrap interval over 3 seeds"),
        ({"FQL": three, "BC": one}, "95 % bootstrap interval over up to 3 seeds, of single runs over episodes"),
    ):
        found = plot_learning_curves(curves, tmp_path / "a.svg").read_text()
        assert f">shaded: {text}<" in found
        assert "fewer seeds" not in found
    # Where one seed ended early, the mean of the others may rise or fall although none of them does.
    found = plot_learning_curves({"FQL": [*three, *one[1:]]}, tmp_path / "a.svg").read_text()
    assert ">some points are of fewer seeds<" in found


def test_an_algorithm_with_one_evaluation_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    text = plot_learning_curves({"FQL": ROWS, "BC": ROWS[1:2]}, tmp_path / "a.svg").read_text()
    assert ">BC (one evaluation)<" in text
    assert ">FQL<" in text


def test_tasks_have_panels_and_labels_one_color(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")
    panels = {"task 1": {"FQL": ROWS, "BC": ROWS}, "task 2": {"BC": ROWS}}
    text = plot_panels(panels, tmp_path / "a.svg").read_text()
    assert all(text.count(f">{label}<") == 1 for label in ("task 1", "task 2", "FQL", "BC"))
    first, second = (text.partition('id="axes_2"')[i].partition('id="legend_1"')[0].lower() for i in (0, 2))
    assert COLORS[0].lower() in first
    assert COLORS[1].lower() in second  # As in the first panel.
    assert COLORS[0].lower() not in second


def test_online_steps_follow_offline_ones() -> None:
    points = curve(ROWS, "success", switch=200)
    assert [point.x for point in points] == [100, 200, 250, 300]
    assert points[0] == Point(100, 0.2, 0.1, 0.30000000000000004)
    assert curve(ROWS, "return", switch=200)[0] == Point(100, -1, -2, 0)


def test_rows_at_one_step_are_seeds() -> None:
    (point,) = curve([row("offline", 100, success) for success in (0.2, 0.4, 0.9)], "success", switch=100)
    assert point.mean == pytest.approx(0.5)
    assert 0.2 <= point.low < 0.5 < point.high <= 0.9


def test_the_return_is_drawn_where_success_is_unknown(tmp_path: Path) -> None:
    unknown = [r._replace(success=math.nan, low=math.nan, high=math.nan) for r in ROWS]
    path = plot_learning_curves({"FQL": unknown}, tmp_path / "a.png")
    assert path.stat().st_size > 20_000
    with pytest.raises(ValueError, match=r"did not report success; pass metric='return'"):
        plot_learning_curves({"FQL": unknown}, tmp_path / "b.png", metric="success")
    assert not (tmp_path / "b.png").exists()


def test_nothing_cannot_be_plotted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no evaluations to plot"):
        plot_learning_curves({"FQL": []}, tmp_path / "a.png")


def test_many_curves_differ_in_style(tmp_path: Path) -> None:
    groups = {f"algorithm {i}": [row("offline", 100 * n, 0.1 * i) for n in (1, 2)] for i in range(9)}
    assert plot_learning_curves(groups, tmp_path / "a.png").stat().st_size > 20_000
    assert np.isfinite([point.mean for group in groups.values() for point in curve(group, "success", 0)]).all()
