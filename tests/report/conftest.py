"""Run folders to report, one page about them, and a browser."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from finished_runs import make_run

from flowpolicies.cli import main
from flowpolicies.training.evaluations import EvaluationRow
from flowpolicies.training.runs import RunFolder

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
"""A value of a configuration that would run a script in a page that does not escape it."""
GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""An animated picture of one pixel."""


def make_reported_runs(parent: Path) -> Path:
    """Runs of two algorithms on two tasks; fql is fine-tuned on the first task, and has a video and a log."""
    for seed in (0, 1):
        for task in (1, 2):
            make_run(parent, "bc", task, seed, [0.1, 0.4 + 0.1 * seed], width=128)
            make_run(parent, "fql", task, seed, [0.3, 0.7 + 0.1 * seed], width=256, note=HOSTILE)
        folder = RunFolder(parent / f"fql-task1-seed{seed}")
        for step, success in ((50, 0.5), (100, 0.9)):
            folder.add_evaluation(EvaluationRow("online", step, 50, success, 0.4, 1.0, -9.0, -10.0, -8.0, 9.0))
        columns = "time/offline_steps,time/total_timesteps,train/critic/loss,diagnosis/value_range"
        rows = ["100,,1.5,0.05,0", "200,,1.0,2.5,2", ",100,0.5,,"]
        folder.progress.write_text("\n".join([f"{columns},diagnosis/value_range_judgement", *rows]) + "\n")
    (parent / "fql-task1-seed0" / "episode.gif").write_bytes(GIF)
    software = {"flowpolicies_commit": "0123456789abcdef", "torch": HOSTILE}
    change_record(parent / "fql-task1-seed0", software=software, commands=[f"flowpolicies train {HOSTILE}"])
    for task in (1, 2):
        change_record(parent / f"bc-task{task}-seed1", algorithm=HOSTILE)  # Which makes it a label.
    (parent / "bc-task2-seed1").rename(parent / HOSTILE.replace("/", ""))
    return parent


def change_record(run: Path, **entries: Any) -> None:
    folder = RunFolder(run)
    folder.write_config({**json.loads(folder.config.read_text()), **entries})


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_reported_runs(tmp_path_factory.mktemp("reported"))


@pytest.fixture(scope="session")
def report(runs: Path) -> Path:
    """The page about the runs."""
    pytest.importorskip("vl_convert", reason="no vl-convert-python: pip install 'flowpolicies[report]'")
    path = runs.parent / "report.html"
    assert main(["report", str(runs), "--out", str(path), "--baseline", "bc", "--debug"]) == 0
    return path


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium that is installed on this machine."""
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Opened:
    """A page in the browser, with the errors of its console and the addresses that it has asked for."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.problems.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        drawn = "[...document.querySelectorAll('.chart')].every(chart => chart.querySelector('svg'))"
        self.page.wait_for_function(drawn, timeout=60_000)


@pytest.fixture(scope="session")
def open_page(browser: Any) -> Callable[..., Opened]:
    def opened(path: Path, width: int = 1280, scheme: str = "light") -> Opened:
        return Opened(browser, path, width, scheme)

    return opened
