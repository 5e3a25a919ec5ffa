"""A small dataset, a small policy, and functions that call the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tiny import pendulum_data, tiny

from flowpolicies.algorithms import BC
from flowpolicies.cli import main
from flowpolicies.training import RunFolder


class Answer(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Calls the command line in this process."""
    monkeypatch.setenv("COLUMNS", "100")  # Much wider, and help has two columns.
    monkeypatch.delenv("FLOWPOLICIES_DEBUG", raising=False)

    def run(*words: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return run


@pytest.fixture
def interrupt() -> Callable[..., Answer]:
    """Calls the command line in another process, and sends Ctrl-C when a run has its first checkpoint."""

    def run(folder: RunFolder, *words: str) -> Answer:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", "flowpolicies", *words]
        process = subprocess.Popen(command, **pipes, text=True, start_new_session=True)
        try:
            deadline = time.monotonic() + 60
            while folder.latest() is None and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return Answer(process.returncode, out, err)

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a file with random transitions of Pendulum."""
    return pendulum_data().save(tmp_path_factory.mktemp("data") / "pendulum.npz")


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Path of a policy file for Pendulum."""
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    tiny(BC, dataset=f"npz:{data}").policy.save(path)
    return path


@pytest.fixture
def tiny_run(data: Path, tmp_path: Path) -> tuple[str, ...]:
    """Flags of a short training run in `tmp_path / "run"`."""
    place = ("--dataset", f"npz:{data}", "--env", "Pendulum-v1", "--run-dir", str(tmp_path / "run"))
    sizes = ("--actor-hidden-dims", "16", "16", "--batch-size", "16", "--flow-steps", "2", "--device", "cpu")
    times = (
        "--steps",
        "10",
        "--eval-every",
        "5",
        "--eval-episodes",
        "1",
        "--checkpoint-every",
        "5",
        "--log-every",
        "5",
    )
    return (*place, *sizes, *times)
