"""Downloaded files and files that were copied by hand are recorded, checked, replaced, or only read."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from file_server import CONTENT, Server, answer, refuse

from flowpolicies.data.downloads import download as module
from flowpolicies.data.downloads import files, transfer
from flowpolicies.data.downloads.download import download
from flowpolicies.data.downloads.files import quarantine, read_record, record_path
from flowpolicies.data.downloads.transfer import Transfer

HASH = hashlib.sha256(CONTENT).hexdigest()
EAGER = Transfer(attempts=3, backoff=0.0, progress=False)


def test_a_changed_file_is_noticed_set_aside_and_fetched_again(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    path.write_bytes(CONTENT[:-1] + b"?")
    message = (
        rf"'{path}' is not what it was on .* \(sha256 {HASH}\); it was renamed to 'data\.npz\.broken-1', and is "
        "downloaded again"
    )
    with pytest.warns(UserWarning, match=message):
        download(server.url, path, transfer=EAGER)
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "data.npz.broken-1").read_bytes() == CONTENT[:-1] + b"?"
    old = read_record(tmp_path / "data.npz.broken-1")
    assert old is not None
    assert old.sha256 == HASH


def test_a_change_that_size_and_time_hide_is_found_by_a_full_check(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    times = path.stat()
    path.write_bytes(b"?" + CONTENT[1:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    download(server.url, path, transfer=EAGER)
    assert len(server.requests) == 1
    with pytest.warns(UserWarning, match="downloaded again"):
        download(server.url, path, full=True, transfer=EAGER)
    assert path.read_bytes() == CONTENT


def test_a_copied_file_is_read_once_and_then_known(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    os.utime(path, ns=(0, 10**9))
    download(server.url, path, transfer=EAGER)
    monkeypatch.setattr(module, "is_intact", None)  # The record has the new time, so the file is not read.
    download(server.url, path, transfer=EAGER)
    assert len(server.requests) == 1


def test_another_size_is_seen_without_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"123")
    record = files.FileRecord(url="", size=4, sha256="", mtime_ns=0, date="")
    monkeypatch.setattr(files, "sha256_of", None)
    assert not files.is_intact(path, record, full=True)


def test_a_file_put_there_by_hand_is_recorded_and_a_wrong_one_replaced(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(b"by hand")
    assert download(server.url, path, transfer=EAGER).read_bytes() == b"by hand"
    record = read_record(path)
    assert record is not None
    assert record.sha256 == hashlib.sha256(b"by hand").hexdigest()
    assert server.requests == []
    with pytest.warns(UserWarning, match=rf"has sha256 {record.sha256}, expected {HASH}; it was renamed to"):
        download(server.url, path, sha256=HASH, transfer=EAGER)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_nothing_is_asked_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    if by == "environment":
        monkeypatch.setenv("FLOWPOLICIES_OFFLINE", "1")
    offline = True if by == "argument" else None
    path = tmp_path / "data.npz"
    message = (
        rf"no file '{path}', and downloads are off \(.* FLOWPOLICIES_OFFLINE .*\)\. "
        rf"Put the file of '{server.url}' there"
    )
    with pytest.raises(FileNotFoundError, match=message):
        download(server.url, path, offline=offline, transfer=EAGER)
    path.write_bytes(CONTENT)
    assert download(server.url, path, offline=offline, transfer=EAGER) == path
    path.write_bytes(b"changed")
    with pytest.raises(
        ValueError, match=r"is not what it was .* downloads are off, so it was not replaced.*delete 'data\.n"
    ):
        download(server.url, path, offline=offline, transfer=EAGER)
    assert path.read_bytes() == b"changed"
    record_path(path).unlink()
    assert download(server.url, path, offline=offline, transfer=EAGER) == path
    assert server.requests == []


def test_zero_and_nothing_do_not_mean_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", ""):
        monkeypatch.setenv("FLOWPOLICIES_OFFLINE", value)
        download(server.url, tmp_path / f"{value}.npz", transfer=EAGER)
    assert len(server.requests) == 2


def test_a_folder_that_cannot_be_written_to_is_only_read(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(CONTENT)
    monkeypatch.setattr(os, "access", lambda *_: False)
    download(server.url, path, sha256=HASH, transfer=EAGER)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.npz"]
    path.write_bytes(b"changed")
    with pytest.raises(ValueError, match=rf"expected {HASH}, and its folder cannot be written to"):
        download(server.url, path, sha256=HASH, transfer=EAGER)
    assert path.read_bytes() == b"changed"


def test_a_folder_that_cannot_be_written_to_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "data.npz", tmp_path / "file" / "folder" / "data.npz"):
        with pytest.raises(OSError, match=rf"^'{path}' is to be downloaded, but its folder cannot be written to"):
            download(server.url, path, transfer=EAGER)
    assert server.requests == []


def test_forgetting_the_record_is_no_advice_under_a_pinned_hash(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"so it was not replaced\. Put the right file there\.$"):
        download(server.url, tmp_path / "data.npz", sha256=HASH, offline=True, transfer=EAGER)


def test_a_damaged_record_is_explained(server: Server, tmp_path: Path) -> None:
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    record_path(path).write_text("{}")
    with pytest.raises(ValueError, match=r"data\.npz\.download\.json': it is not a record of a download .* Delete it"):
        download(server.url, path, transfer=EAGER)


def test_the_error_of_a_failed_download_says_where_the_broken_file_is(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(CONTENT[:-1])
    server.script = [refuse(404)]
    message = rf"404 Not Found\. '{path}' has sha256 .*, expected {HASH}; it was renamed to 'data\.npz\.broken-1'\. Try"
    with pytest.warns(UserWarning, match="downloaded again"), pytest.raises(ConnectionError, match=message):
        download(server.url, path, sha256=HASH, transfer=EAGER)


def test_broken_files_are_numbered(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "a").write_text(str(number))
        assert quarantine(tmp_path / "a") == tmp_path / f"a.broken-{number}"
    assert (tmp_path / "a.broken-1").read_text() == "1"


def test_a_full_disk_is_named_before_it_is_full(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=rf"'{server.url}' needs 0\.00 GB, but '{tmp_path}' has 0\.00 GB free"):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)
    assert len(server.requests) == 1


def test_a_disk_that_gets_full_on_the_way_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    server.script = [answer(length=False)]
    monkeypatch.setattr(transfer, "os", SimpleNamespace(fsync=fail, environ=os.environ))
    path = tmp_path / "data.npz"
    message = rf"cannot write '{tmp_path}/\.data\.npz\.part' .*: No space left on device\. .* put the file at '{path}'"
    with pytest.raises(OSError, match=message):
        download(server.url, path, transfer=EAGER)


@pytest.mark.parametrize("name", ["x" * 300, "é" * 200, "folder/" * 1000 + "x", "x" * 300 + "/y"])
def test_a_path_that_no_file_system_has_is_a_missing_file(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*, a path of [\d,]+ characters"):
        files.existing_file(name, "an .npz file")
