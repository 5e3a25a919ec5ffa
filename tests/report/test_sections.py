"""What a report says about runs, and what it says is missing."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from finished_runs import TASK, make_run

from flowpolicies.cli import main
from flowpolicies.comparison.results import EpisodeResult, write_results
from flowpolicies.pages.blocks import CodeBlock, MediaBlock, NoticeBlock, Section, TableBlock, TextBlock
from flowpolicies.report.curves import curves_section, online_section
from flowpolicies.report.gather import Gathered, gather
from flowpolicies.report.looking import actions_section, diagnostics_section
from flowpolicies.report.losses import losses_section
from flowpolicies.report.results import runs_section, summary_section, tasks_section
from flowpolicies.report.settings import configuration_section, provenance_section
from flowpolicies.report.videos import videos_section
from flowpolicies.training.runs import RunFolder


@pytest.fixture(scope="module")
def gathered(runs: Path) -> Gathered:
    return gather([f"bc={runs}"])  # One label, so that the hostile one is not in the way.


@pytest.fixture(scope="module")
def pair(runs: Path) -> Gathered:
    fql = [f"fql={runs / f'fql-task{task}-seed{seed}'}" for task in (1, 2) for seed in (0, 1)]
    return gather([*fql, f"bc={runs / 'bc-task1-seed0'}", f"bc={runs / 'bc-task2-seed0'}"])


def table(section: Section, number: int = 0) -> list[list[str]]:
    """Texts of the cells of a table, its head first."""
    found = [block for block in section.blocks if isinstance(block, TableBlock)][number]
    return [[*found.columns], *([cell.text for cell in row] for row in found.rows)]


def texts(section: Section) -> str:
    return "\n".join(block.text for block in section.blocks if isinstance(block, TextBlock | CodeBlock))


def test_the_summary_says_who_is_best(pair: Gathered) -> None:
    section = summary_section(pair)
    head, fql, bc = table(section)
    assert head[-1] == "P(better than fql)"
    assert fql[:2] == ["fql", "4"]
    assert fql[2].startswith("82.5 [")  # 90 online on the first task, 70 and 80 offline on the second.
    assert bc == ["bc", "2", "40", "40", "0"]
    assert section.sentence.startswith("fql has the highest mean, 82.5 [")
    assert "cannot be said, as some tasks have a single run" in section.sentence
    assert "one run says nothing about other seeds" in texts(section)
    published = table(section, 1)
    assert ["fql", "2 of 5"] in [[row[0], row[-1]] for row in published]


def test_intervals_that_do_not_overlap_are_told(tmp_path: Path) -> None:
    for seed in range(3):
        make_run(tmp_path, "bc", 1, seed, [0.1 + 0.01 * seed])
        make_run(tmp_path, "fql", 1, seed, [0.5 + 0.01 * seed])
    assert summary_section(gather([tmp_path])).sentence.endswith("; its interval is above that of bc.")
    make_run(tmp_path, "bc", 1, 3, [0.95])
    assert "overlaps with that of bc" in summary_section(gather([tmp_path])).sentence
    both = gather([f"one={tmp_path / 'bc-task1-seed0'}", f"two={tmp_path / 'bc-task1-seed0'}"])
    assert len(both.labels) == 1  # A run is named once.


def test_the_matrix_of_tasks(pair: Gathered) -> None:
    section = tasks_section(pair)
    head, first, second = table(section)
    assert head == ["task", "fql", "bc"]
    assert first == ["cube-single-play-singletask-task1-v0", "90 [90, 90]", "40"]
    assert second[1].startswith("75 [")
    assert section.sentence == "The highest score of 2 tasks is that of fql in 2, bc in 0 (ties count for each)."


def test_the_switch_to_online_training(pair: Gathered) -> None:
    section = online_section(pair)
    (row,) = table(section)[1:]
    assert row[:-1] == ["fql", "cube-single-play-singletask-task1-v0", "2", "75", "50", "90"]
    assert row[-1].startswith("15 [")
    assert section.sentence.startswith(
        "Online training changes most for fql in cube-single-play-singletask-task1-v0: +15"
    )


def test_curves_are_those_of_the_evaluations(pair: Gathered) -> None:
    section = curves_section(pair)
    specs = {block.title: block.spec for block in section.blocks if block.kind == "chart"}
    assert list(specs) == [
        "Mean over the tasks that all labels have",
        *(f"cube-single-play-singletask-task{task}-v0" for task in (1, 2)),
    ]
    first = specs["cube-single-play-singletask-task1-v0"]
    points = [(row["label"], row["x"], round(row["mean"]), row["runs"]) for row in first["data"]["values"]]
    assert points == [
        *(("fql", 100, 30, 2), ("fql", 200, 75, 2), ("fql", 250, 50, 2), ("fql", 300, 90, 2)),
        *(("bc", 100, 10, 1), ("bc", 200, 40, 1)),
    ]
    assert [layer["data"]["values"] for layer in first["layer"] if layer.get("name") == "switch"] == [[{"x": 200}]]
    assert not any(layer.get("name") == "switch" for layer in specs["cube-single-play-singletask-task2-v0"]["layer"])
    assert section.sentence.startswith("The highest point is that of fql in cube-single-play-singletask-task1-v0: 90 %")


def test_curves_of_unequal_runs_are_told(tmp_path: Path) -> None:
    make_run(tmp_path, "bc", 1, 0, [0.1, 0.2])
    make_run(tmp_path, "bc", 1, 1, [0.9])
    assert "means of fewer runs than others" in texts(curves_section(gather([tmp_path])))


def test_runs_without_evaluations_are_named(tmp_path: Path) -> None:
    make_run(tmp_path, "bc", 1, 0, [0.1, 0.2])
    make_run(tmp_path, "iql", 1, 0, [])
    found = gather([tmp_path])
    assert "Without any evaluation, and so without a score: iql-task1-seed0." in texts(summary_section(found))
    section = runs_section(found)
    assert section.sentence == "1 run with scores from 20 to 20, and 1 run without."
    assert table(section)[-1] == ["iql-task1-seed0", "iql", "cube-single-play-singletask-task1-v0", "0", "-", "-", "-"]
    assert online_section(found).sentence.startswith("There is no switch to see")
    assert losses_section(found).sentence == "None of these runs has a log of losses."


def test_losses_and_logged_diagnostics(pair: Gathered) -> None:
    section = losses_section(pair)
    (chart,) = [block for block in section.blocks if block.kind == "chart"]
    (row, _) = chart.spec["data"]["values"]
    assert row["run"] == "fql-task1-seed0"
    assert (row["x"], row["value"]) == ([100, 200, 300], [1.5, 1.0, 0.5])  # Online steps come after the offline ones.
    assert "Without a log of losses, or without a score: fql-task2-seed0" in texts(section)
    broken = pair.runs[0].path / "progress.csv"
    before = broken.read_text()
    broken.write_text(before.replace("1.5", "nan"))
    assert losses_section(pair).sentence == "Some logged numbers are NaN or infinite: those of fql-task1-seed0."
    broken.write_text(before)
    section = diagnostics_section(pair, None)
    assert table(section) == [
        ["diagnostic", "fql-task1-seed0", "fql-task1-seed1"],
        ["value_range", "bad 2.5", "bad 2.5"],
    ]
    (notice, _) = [block for block in section.blocks if isinstance(block, NoticeBlock)]
    assert notice.head == "fql-task1-seed0: value_range is bad"
    assert "2.5 at step 200; look above 0.1, bad above 1." in notice.texts[0]
    assert "The critics diverge" in notice.texts[1]
    assert section.sentence.startswith("Of 2 readings 2 are bad and 0 worth a look: value_range of fql-task1-seed0")
    assert "Pass --diagnose" in texts(section)
    assert "Pass --diagnose" in texts(actions_section(pair, None))


def test_what_configurations_differ_in(pair: Gathered) -> None:
    section = configuration_section(pair)
    rows = {name: values for name, *values in table(section)}
    assert rows["setting"][0] == "fql-task1-seed0, fql-task1-seed1, fql-task2-seed0, fql-task2-seed1"
    assert rows["width"] == ["256", "128"]
    assert rows["algorithm"] == ["fql", "bc"]
    assert rows["note"][1] == "-"
    assert section.sentence == "The runs have 2 configurations, which differ in algorithm, width, note."


def test_provenance(pair: Gathered) -> None:
    section = provenance_section(pair, "flowpolicies report runs")
    assert table(section)[1][:3] == ["fql-task1-seed0", "0123456789ab", TASK.format(1)]
    assert section.sentence == "The runs were trained by 2 commits of flowpolicies: -, 0123456789ab."
    assert "flowpolicies report runs" in texts(section)


def videos_of(gathered: Gathered, given: Sequence[Path] = (), limit: float = 1.0) -> tuple[list[str], str]:
    section = videos_section(gathered, given, limit)
    return [block.title for block in section.blocks if isinstance(block, MediaBlock)], texts(section)


def test_videos_are_shown_up_to_a_limit_and_never_by_a_link(pair: Gathered, runs: Path, tmp_path: Path) -> None:
    assert videos_of(pair) == (["fql-task1-seed0: episode.gif"], "")
    shown, lacking = videos_of(pair, limit=1e-6)
    assert shown == []
    assert "fql-task1-seed0: episode.gif is left out: it has 0.0 MB, and all videos together may have 1e-06" in lacking
    secret, text = tmp_path / "secret.gif", tmp_path / "text.gif"
    secret.write_bytes((runs / "fql-task1-seed0" / "episode.gif").read_bytes())
    text.write_text("no picture")
    run = make_run(tmp_path / "runs", "bc", 1, 0, [0.1])
    os.symlink(secret, run / "link.gif")
    shown, lacking = videos_of(gather([run]), [text])
    assert shown == []
    assert "link.gif is left out: it is a symbolic link" in lacking
    assert "text.gif is left out: it is not a .gif file" in lacking
    assert videos_of(gather([run]), [secret])[0] == [str(secret)]


def test_results_files_have_scores_but_no_curves(tmp_path: Path) -> None:
    fixed: dict[str, Any] = {
        "run": "a",
        "label": "fql",
        "algorithm": "fql",
        "run_seed": 0,
        "environment": TASK.format(1),
    }
    fixed |= {"task": 1, "seed": 0, "length": 5, "score": None, "deterministic": False, "flowpolicies": "0.1.0"}
    rows = [EpisodeResult(episode=number, total=-1.0, success=float(number % 2), **fixed) for number in range(4)]
    write_results(tmp_path / "results.jsonl", rows)
    found = gather([tmp_path / "results.jsonl"])
    assert table(summary_section(found))[1][:3] == ["fql", "1", "50"]
    assert curves_section(found).sentence.startswith("There are no curves: these are results files")
    assert configuration_section(found).sentence == "Results files do not hold the configuration of runs."


def test_errors_name_what_to_do(runs: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*words: object) -> str:
        assert main(["report", *map(str, words)]) == 2
        return str(capsys.readouterr().err)

    run = runs / "fql-task1-seed0"
    assert "name the report with the ending .html" in error(run, "--out", "report.pdf")
    assert "--videos 'a.avi': reports show .mp4, .webm, .gif files" in error(run, "--videos", "a.avi")
    assert "there is no such file" in error(run, "--videos", "a.mp4")
    assert "is no label of these runs: fql." in error(run, "--baseline", "sac")
    empty = make_run(tmp_path, "iql", 1, 0, [])
    assert "none of these runs has an evaluation" in error(empty)
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    out = tmp_path / "report.html"
    out.write_text("an old report")
    assert "pip install 'flowpolicies[report]'" in error(run, "--out", out)
    assert out.read_text() == "an old report"


def test_damaged_records_of_others_do_not_break_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, "bc", 1, 0, [0.5])
    record = RunFolder(run).read_config()
    RunFolder(run).write_config({**record, "software": [1], "hardware": "x", "parts": {"a": 1}, "commands": [{}]})
    found = gather([run])
    assert table(provenance_section(found, ""))[1] == ["bc-task1-seed0", "-", TASK.format(1), "-"]
    assert configuration_section(found).sentence.startswith("All runs have the same configuration")


def test_returns_of_several_tasks_are_not_averaged(tmp_path: Path) -> None:
    for task in (1, 2):
        make_run(tmp_path, "bc", task, 0, [math.nan])
    make_run(tmp_path, "fql", 1, 0, [math.nan])
    found = gather([tmp_path])
    section = summary_section(found)
    assert table(section)[1][2:] == ["-10", "-10", "-"]  # Over task 1, the only one that both labels have.
    assert "leave out those that some label has no runs in: " + TASK.format(2) in texts(section)
    make_run(tmp_path, "fql", 2, 0, [math.nan])
    section = summary_section(gather([tmp_path]))
    assert section.sentence.startswith("These runs have no scores that can be averaged over tasks")
    assert table(section)[1][2:] == ["-", "-", "-"]
    assert "different scales and are not averaged" in texts(section)
    titles = [block.title for block in curves_section(gather([tmp_path])).blocks if block.kind == "chart"]
    assert len(titles) == 2  # None of the mean.
