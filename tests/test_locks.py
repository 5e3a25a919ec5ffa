from __future__ import annotations

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from processes import Copy

from flowpolicies.locks import DEAD_AFTER_SECONDS, REBOOTED_AFTER_SECONDS, FolderInUseError, FolderLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / ".lock"


def hold(path: Path, log: Path) -> Copy:
    """Another process that holds the lock."""

    def forever() -> None:
        with FolderLock(path):
            print("holding", flush=True)
            time.sleep(60)

    copy = Copy(forever, log)
    copy.wait_until(lambda: "holding" in copy.output)
    return copy


def test_a_second_process_is_refused_and_learns_who_writes(path: Path, tmp_path: Path) -> None:
    other = hold(path, tmp_path / "log")
    since = json.loads(path.read_text())["since"]
    words = rf"process {other.pid} on {socket.gethostname()}, since {since}".replace("+", r"\+")
    with pytest.raises(FolderInUseError, match=words), FolderLock(path):
        pass
    other.send(signal.SIGKILL)
    assert other.code() == -signal.SIGKILL


def test_the_lock_of_a_killed_process_is_taken_over_with_a_word(path: Path, tmp_path: Path) -> None:
    other = hold(path, tmp_path / "log")
    other.send(signal.SIGKILL)
    other.code()
    said: list[str] = []
    with FolderLock(path, said.append):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert len(said) == 1
    assert f"left behind by process {other.pid} on" in said[0]
    assert not path.parent.exists() or not any(path.parent.iterdir())


def foreign(path: Path, **changes: Any) -> None:
    """A lock file of this process, with changes."""
    with FolderLock(path):
        content = json.loads(path.read_text())
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**content, **changes}))


def test_another_process_with_the_same_id_is_not_the_holder(path: Path) -> None:
    foreign(path, started="17")
    said: list[str] = []
    with FolderLock(path, said.append):
        pass
    assert "which has ended" in said[0]


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"host": "elsewhere"}, DEAD_AFTER_SECONDS),
        ({"boot": "another"}, REBOOTED_AFTER_SECONDS),
        ({"space": "pid:[1]"}, REBOOTED_AFTER_SECONDS),
    ],
)
def test_a_process_that_cannot_be_seen_counts_as_dead_after_a_while(
    path: Path, changes: dict[str, str], limit: float
) -> None:
    foreign(path, **changes)
    with pytest.raises(FolderInUseError, match=rf"cannot be seen from here.* dead after {limit:.0f} s .*delete '"):
        FolderLock(path).__enter__()
    os.utime(path, (time.time() - limit - 1,) * 2)
    said: list[str] = []
    with FolderLock(path, said.append):
        pass
    assert "gave no sign of life" in said[0]


def test_the_holder_gives_signs_of_life(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowpolicies.locks.HEARTBEAT_SECONDS", 0.01)
    with FolderLock(path):
        os.utime(path, (1, 1))
        end = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}'])
def test_a_file_that_says_nothing_is_no_lock(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    with FolderLock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_this_process_cannot_take_its_own_lock_twice(path: Path) -> None:
    with FolderLock(path), pytest.raises(FolderInUseError), FolderLock(path):
        pass


def test_a_forked_worker_does_not_release_the_lock(path: Path, tmp_path: Path) -> None:
    def enter_and_fork() -> None:
        with FolderLock(path):
            worker = os.fork()
            if worker:
                os.waitpid(worker, 0)
                print("held" if path.is_file() else "lost")

    parent = Copy(enter_and_fork, tmp_path / "log")
    assert parent.code() == 0
    assert parent.output == "held\n"


def test_after_an_error_the_lock_is_gone_and_so_is_a_folder_made_for_it(path: Path) -> None:
    with pytest.raises(RuntimeError, match="now"), FolderLock(path):
        raise RuntimeError("now")
    assert not path.parent.exists()


def test_all_folders_that_were_made_for_it_are_gone_and_no_others(tmp_path: Path) -> None:
    runs = [tmp_path / "made" / value / "seed0" / ".lock" for value in ("a", "b")]
    with pytest.raises(KeyError), FolderLock(runs[0]), FolderLock(runs[1]):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with FolderLock(runs[0]):
        (tmp_path / "made" / "a" / "kept").touch()
    assert [path.name for path in (tmp_path / "made" / "a").iterdir()] == ["kept"]
