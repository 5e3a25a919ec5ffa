"""Downloads end at some time, and their content is that which was recorded, or said to be trusted."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest
from file_server import CONTENT, Server, answer, drip, refuse

from flowpolicies.artifacts import ArtifactError
from flowpolicies.data.downloads.download import download
from flowpolicies.data.downloads.files import read_record, record_path
from flowpolicies.data.downloads.transfer import SECONDS_VARIABLE, Transfer

HASH = hashlib.sha256(CONTENT).hexdigest()
OTHER = CONTENT[::-1]
EAGER = Transfer(attempts=3, backoff=0.0, progress=False)


def test_the_first_content_is_said_to_be_trusted(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    message = (
        rf"'{path}' was downloaded from '{server.url}'\. No SHA-256 .* trusted this once: .* {HASH} is recorded in"
    )
    with pytest.warns(UserWarning, match=message):
        download(server.url, path, transfer=EAGER)


@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_another_content_than_the_recorded_one_is_refused(server: Server, tmp_path: Path, how: str) -> None:
    """Also if the file is not there any more, or was changed."""
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    path.unlink() if how == "deleted" else path.write_bytes(b"changed")
    server.script = [answer(OTHER)]
    message = rf"has sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {HASH}, which '.*' recorded on .*second time"
    with pytest.raises(ConnectionError, match=message):
        download(server.url, path, transfer=EAGER)
    assert len(server.requests) == 3
    assert not path.exists()
    server.script = [answer()]
    assert download(server.url, path, transfer=EAGER).read_bytes() == CONTENT
    path.unlink()
    record_path(path).unlink()  # As the message advises.
    server.script = [answer(OTHER)]
    assert download(server.url, path, transfer=EAGER).read_bytes() == OTHER


@pytest.mark.parametrize("is_known", ["by argument", "by record"])
def test_a_resumed_part_is_checked_as_a_whole(server: Server, tmp_path: Path, is_known: str) -> None:
    path, sha256 = tmp_path / "data.npz", HASH if is_known == "by argument" else None
    if sha256 is None:
        download(server.url, path, transfer=EAGER).unlink()
    server.script = [answer(cut=98_304), refuse(404)]
    server.requests.clear()
    with pytest.raises(ConnectionError, match="404"):
        download(server.url, path, sha256=sha256, transfer=EAGER)
    part = tmp_path / ".data.npz.part"
    part.write_bytes(b"?" + part.read_bytes()[1:])
    server.script, expected = [answer()], [None, "bytes=98304-", "bytes=98304-", None]
    assert download(server.url, path, sha256=sha256, transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == expected
    record = read_record(path)
    assert record is not None
    assert record.sha256 == HASH


def test_ever_new_content_is_fetched_twice_only(server: Server, tmp_path: Path) -> None:
    server.script = [answer(CONTENT[:-number]) for number in range(1, 9)]
    with pytest.raises(ConnectionError, match="second time"):
        download(server.url, tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert len(server.requests) == 2


@pytest.mark.parametrize("header", [False, True])
def test_a_server_that_drips_is_given_up(server: Server, tmp_path: Path, header: bool) -> None:
    server.script = [drip(header=header)]
    limits = {"connect_timeout": 0.1, "stall_timeout": 0.2, "backoff": 0.0, "progress": False}
    start = time.monotonic()
    message = r"only \d+ bytes arrived in . s, and these may take . s in all\. The environment variable FLOWP"
    with pytest.raises(ConnectionError, match=message):
        download(server.url, tmp_path / "data.npz", transfer=Transfer(attempts=99, grace=0.5, **limits))
    assert time.monotonic() - start < 5
    server.script = [answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT


def test_the_environment_chooses_the_seconds(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.script = [drip()]
    monkeypatch.setenv(SECONDS_VARIABLE, "0.3")
    with pytest.raises(ConnectionError, match=r"may take 0 s in all"):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)
    monkeypatch.setenv(SECONDS_VARIABLE, "soon")
    with pytest.raises(ValueError, match=r"FLOWPOLICIES_DOWNLOAD_SECONDS is 'soon', and must be a number of seconds"):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)


@pytest.mark.parametrize("text", ["{}", "[" * 100, "[1]", '{"url": 3}', "\xff"])
def test_damaged_records_are_artifact_errors(server: Server, tmp_path: Path, text: str) -> None:
    path = download(server.url, tmp_path / "data.npz", transfer=EAGER)
    record_path(path).write_bytes(text.encode("latin1"))
    with pytest.raises(ArtifactError, match="it is not a record of a download"):
        download(server.url, path, transfer=EAGER)
