from __future__ import annotations

from pathlib import Path

import pytest

from flowpolicies.cli.app import _parse
from flowpolicies.reproduction.demo import DemoRun, DemoSettings, make_runs, run_all
from flowpolicies.training.runs import RunFolder


def test_every_command_is_understood() -> None:
    runs = make_runs(DemoSettings(tasks=(1, 3)), Path("data"))
    assert [run.folder.path.name for run in runs] == ["bc", "qflow-task1", "qflow-task3"]
    for words in (command for run in runs for command in run.commands):
        _parse(list(words))


def run(*codes: str) -> DemoRun:
    return DemoRun(RunFolder(Path("a")), tuple((code,) for code in codes), 10, Path("a/model.zip"))


@pytest.mark.usefixtures("program")
def test_commands_of_a_run_run_one_after_the_other() -> None:
    run_all([run("print('first')", "print('second')")], 2)
    assert Path("a.log").read_text() == "first\nsecond\n"


@pytest.mark.usefixtures("program")
def test_a_command_that_fails_is_shown_and_the_next_one_not_begun() -> None:
    with pytest.raises(RuntimeError, match=r"a failed with exit code 3; the end of a\.log:\nfirst"):
        run_all([run("print('first'); sys.exit(3)", "print('second')")], 1)
    assert Path("a.log").read_text() == "first\n"
