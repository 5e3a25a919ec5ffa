from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flowpolicies.reproduction import jobs
from flowpolicies.reproduction.jobs import Job, Outcome, run_side_by_side


def job(name: str, code: str) -> Job:
    return Job(name, ((code,),), Path("logs") / f"{name}.log")


@pytest.mark.usefixtures("program")
def test_all_are_run_and_reported_at_most_so_many_at_a_time() -> None:
    code = "import time, pathlib; pathlib.Path('NAME.start').touch(); time.sleep(.3); pathlib.Path('NAME.end').touch()"
    todo = [job(str(i), code.replace("NAME", str(i))) for i in range(3)]
    outcomes: list[Outcome] = []

    def report(outcome: Outcome) -> None:
        running = len(list(Path().glob("*.start"))) - len(list(Path().glob("*.end")))
        assert running <= 2
        outcomes.append(outcome)

    run_side_by_side(todo, 2, report)
    assert {outcome.job.name for outcome in outcomes} == {"0", "1", "2"}
    for outcome in outcomes:
        start, end = (Path(f"{outcome.job.name}.{event}").stat().st_mtime for event in ("start", "end"))
        assert outcome.code == 0
        assert outcome.seconds >= end - start


@pytest.mark.usefixtures("program")
def test_a_failure_does_not_stop_the_others_and_its_output_is_kept() -> None:
    codes: dict[str, int] = {}
    todo = [job("bad", "print('before'); sys.exit(3)"), job("good", "print('fine')")]
    run_side_by_side(todo, 1, lambda outcome: codes.update({outcome.job.name: outcome.code}))
    assert codes == {"bad": 3, "good": 0}
    assert Path("logs/bad.log").read_text() == "before\n"


@pytest.mark.usefixtures("program")
def test_ctrl_c_interrupts_each_once_and_waits() -> None:
    code = """
import pathlib, signal, time
count = 0
def handle(number, frame):
    global count
    count += 1
    pathlib.Path('NAME.count').write_text(str(count))
signal.signal(signal.SIGINT, handle)
pathlib.Path('NAME.ready').touch()
while count == 0:
    time.sleep(.01)
time.sleep(.3)
pathlib.Path('NAME.saved').touch()
"""
    todo = [job(name, code.replace("NAME", name)) for name in ("a", "b", "never")]

    def interrupt() -> None:
        deadline = time.monotonic() + 30
        while not (Path("a.ready").exists() and Path("b.ready").exists()) and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_side_by_side(todo, 2, lambda outcome: None)
    assert Path("a.saved").exists()
    assert Path("b.saved").exists()
    assert Path("a.count").read_text() == "1"
    assert not Path("never.ready").exists()


def test_the_order_to_end_of_a_cluster_is_a_ctrl_c(tmp_path: Path) -> None:
    code = f"""
import pathlib, subprocess, sys
from flowpolicies.reproduction import jobs
def start(words, log, environment):
    pathlib.Path({str(tmp_path / "ready")!r}).touch()
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
jobs.start = start
try:
    jobs.run_side_by_side([jobs.Job("x", ((),), pathlib.Path("x.log"))], 1, print)
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.1)  # The job is entered right after it was started.
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert out == "interrupted\n"


def test_none_at_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        run_side_by_side([], 0, print)


@pytest.mark.usefixtures("program")
def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; print(os.environ['OMP_NUM_THREADS'])"
    run_side_by_side([job("x", code)], 3, lambda outcome: None)
    assert Path("logs/x.log").read_text() == "2\n"


@pytest.mark.usefixtures("program")
def test_processor_time_is_that_of_the_job_and_not_its_duration() -> None:
    spent: dict[str, float] = {}
    busy = "import time\nwhile time.process_time() < 0.3: pass"
    todo = [Job("busy", ((busy,), (busy,)), Path("busy.log")), job("idle", "import time; time.sleep(0.8)")]
    run_side_by_side(todo, 2, lambda outcome: spent.update({outcome.job.name: outcome.core_seconds}))
    assert spent["busy"] >= 0.6
    assert 0 < spent["idle"] < 0.6
