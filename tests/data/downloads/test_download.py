"""Downloads from a local server that makes the mistakes of servers and networks."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from file_server import CONTENT, Handler, Server, answer, refuse

from flowpolicies.data.downloads import download as module
from flowpolicies.data.downloads import files
from flowpolicies.data.downloads.download import download
from flowpolicies.data.downloads.transfer import Transfer

HASH = hashlib.sha256(CONTENT).hexdigest()
EAGER = Transfer(attempts=3, backoff=0.0, progress=False)
HASTY = Transfer(stall_timeout=0.3, attempts=3, backoff=0.0, progress=False)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_download_is_whole_and_recorded(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "new" / "data.npz"
    assert download(server.url, path, transfer=EAGER) == path
    assert path.read_bytes() == CONTENT
    record = json.loads((tmp_path / "new" / "data.npz.download.json").read_text())
    assert {key: record[key] for key in ("url", "size", "sha256")} == {
        "url": server.url,
        "size": len(CONTENT),
        "sha256": HASH,
    }
    assert record["date"].endswith("+00:00")
    assert names(path.parent) == ["data.npz", "data.npz.download.json"]
    assert server.requests[0][1]["Accept-Encoding"] == "identity"


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    for _ in range(3):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)
    download(server.url, tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert len(server.requests) == 1


def test_what_came_before_a_broken_connection_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=98_304), answer(cut=294_912), answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=98304-", "bytes=294912-"]
    assert server.requests[1][1]["If-Range"] == '"v1"'


def test_attempts_that_bring_new_bytes_are_not_counted(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=49_152 * (part + 1)) for part in range(10)] + [answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert len(server.requests) == 11 > EAGER.attempts


def test_a_failed_download_goes_on_in_the_next_call(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=98_304), refuse(503)]
    message = (
        rf"cannot download '{server.url}': the server answered 503 Service Unavailable\. 0\.1 MB are kept: the next "
        rf"attempt continues there\. Try again later, or put the file at '{tmp_path}/data\.npz' by hand\."
    )
    with pytest.raises(ConnectionError, match=message):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)
    assert len(server.requests) == 1 + EAGER.attempts - 1
    assert not (tmp_path / "data.npz").exists()
    server.script = [answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges()[-1] == "bytes=98304-"


def test_a_download_that_was_killed_before_its_renaming_needs_no_further_bytes(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".data.npz.part").write_bytes(CONTENT)
    notes = {"url": server.url, "validator": '"v1"', "total": len(CONTENT)}
    (tmp_path / ".data.npz.part.json").write_text(json.dumps(notes))
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize(
    "notes", ["{", "[]", '{"url": "http://elsewhere/data.npz", "validator": "v", "total": 9}', None]
)
def test_a_beginning_that_may_be_of_another_file_is_not_used(server: Server, tmp_path: Path, notes: str | None) -> None:
    (tmp_path / ".data.npz.part").write_bytes(b"x" * 1000)
    if notes is not None:
        (tmp_path / ".data.npz.part.json").write_text(notes)
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None]


def test_a_stalled_connection_is_given_up_and_resumed(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=200_000, stall=True), answer()]
    start = time.monotonic()
    assert download(server.url, tmp_path / "data.npz", transfer=HASTY).read_bytes() == CONTENT
    assert time.monotonic() - start < 5
    assert server.ranges()[1] in {f"bytes={size}-" for size in range(180_224, 200_001)}


def test_a_server_that_never_says_more_is_named(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=0, stall=True)]
    with pytest.raises(ConnectionError, match=r"no data arrived for 0\.3 s\. Try again later"):
        download(server.url, tmp_path / "data.npz", transfer=HASTY)
    assert len(server.requests) == HASTY.attempts


def test_a_server_without_ranges_sends_everything_again(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=393_216, ranges=False), answer(ranges=False)]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=393216-"]


def test_without_a_validator_the_beginning_is_used_only_under_a_pinned_hash(server: Server, tmp_path: Path) -> None:
    server.script = [answer(tag=None, cut=98_304), answer(tag=None)]
    download(server.url, tmp_path / "a.npz", transfer=EAGER)
    assert server.ranges() == [None, None]
    server.requests.clear()
    download(server.url, tmp_path / "b.npz", sha256=HASH, transfer=EAGER)
    assert server.ranges() == [None, "bytes=98304-"]
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes() == CONTENT


@pytest.mark.parametrize("if_range", [True, False])
def test_a_file_that_changes_between_attempts_is_not_mixed(server: Server, tmp_path: Path, if_range: bool) -> None:
    """Even if the server knows ranges but not If-Range, because the ETag differs."""
    changed = CONTENT[::-1]
    server.script = [answer(cut=98_304), answer(changed, tag='"v2"', if_range=if_range)]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == changed
    assert len(server.requests) == (2 if if_range else 3)


def test_a_file_that_became_shorter_is_fetched_from_its_start(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=294_912), answer(CONTENT[:1000], if_range=False)]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT[:1000]
    assert server.ranges() == [None, "bytes=294912-", None]


def test_another_range_than_the_one_asked_for_is_not_used(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=98_304), answer(shift=16), answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=98304-", None]


def test_another_length_than_before_is_not_used(server: Server, tmp_path: Path) -> None:
    """As a server answers that sends no ETag with ranges."""
    longer = CONTENT + b"?"
    server.script = [answer(cut=98_304), answer(longer, tag=None, if_range=False), answer(longer)]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == longer
    assert server.ranges() == [None, "bytes=98304-", None]


def test_a_rest_that_is_cut_without_a_word_is_completed(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=98_304), answer(length=False, cut=196_608), answer()]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=98304-", "bytes=196608-"]


def test_a_rest_that_comes_in_pieces_is_completed(server: Server, tmp_path: Path) -> None:
    """Even if the first answer was sent in chunks and did not state the size of the file."""

    def chunk_and_break_off(handler: Handler) -> None:
        handler.send_response(200)
        for header in (("Transfer-Encoding", "chunked"), ("ETag", '"v1"')):
            handler.send_header(*header)
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (98_304, CONTENT[:98_304]))

    def give_a_piece(handler: Handler) -> None:
        first = int(handler.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        piece = CONTENT[first : first + 250_000]
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {first}-{first + len(piece) - 1}/{len(CONTENT)}")
        handler.send_header("Content-Length", str(len(piece)))
        handler.end_headers()
        handler.wfile.write(piece)

    server.script = [chunk_and_break_off, give_a_piece]
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=98304-", "bytes=348304-"]


def test_a_length_that_is_not_said_is_accepted_when_the_hash_is_right(server: Server, tmp_path: Path) -> None:
    server.script = [answer(length=False, cut=7000), answer(length=False)]
    path = download(server.url, tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == ["data.npz", "data.npz.broken-1", "data.npz.download.json"]


def test_corrupted_content_is_set_aside_and_fetched_again(server: Server, tmp_path: Path) -> None:
    corrupt = CONTENT[:5000] + b"?" + CONTENT[5001:]
    server.script = [answer(corrupt), answer()]
    path = download(server.url, tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert path.read_bytes() == CONTENT
    assert (tmp_path / "data.npz.broken-1").read_bytes() == corrupt
    assert names(tmp_path) == ["data.npz", "data.npz.broken-1", "data.npz.download.json"]


def test_a_file_that_is_wrong_on_the_server_is_refused_after_a_second_look(server: Server, tmp_path: Path) -> None:
    server.script = [answer(CONTENT[:-1])]
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    message = (
        rf"received file has sha256 {found}, expected {HASH}, for the second time; .* 'data\.npz\.broken-2'\. Try again"
    )
    with pytest.raises(ConnectionError, match=message):
        download(server.url, tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert len(server.requests) == 2
    assert names(tmp_path) == ["data.npz.broken-1", "data.npz.broken-2"]


def test_a_log_in_page_is_not_taken_for_the_file(server: Server, tmp_path: Path) -> None:
    def check(path: Path) -> None:
        if path.read_bytes().startswith(b"<html>"):
            raise ValueError("it is a web page")

    server.script = [answer(b"<html>Welcome to the hotel's network</html>"), answer()]
    assert download(server.url, tmp_path / "data.npz", check=check, transfer=EAGER).read_bytes() == CONTENT
    server.script, other = [answer(b"<html>")], tmp_path / "other.npz"
    with pytest.raises(ConnectionError, match=r"is not the requested file \(it is a web page\), .* kept as 'other"):
        download(server.url, other, check=check, transfer=EAGER)
    other.write_bytes(b"<html>")
    server.script = [answer()]
    with pytest.warns(
        UserWarning,
        match=r"other\.npz' is not the requested file \(it is a web page\); it was renamed to 'other\.npz\.brok",
    ):
        assert download(server.url, other, check=check, transfer=EAGER).read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "requests"), [(404, 1), (403, 1), (500, 3), (429, 3)])
def test_refusals_are_final_and_failures_are_not(server: Server, tmp_path: Path, code: int, requests: int) -> None:
    server.script = [refuse(code)]
    with pytest.raises(ConnectionError, match=rf"cannot download '{server.url}': the server answered {code} "):
        download(server.url, tmp_path / "data.npz", transfer=EAGER)
    assert len(server.requests) == requests
    assert names(tmp_path) == []


def test_no_server_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.npz"
    message = rf"cannot download '{url}': .*Connection refused\. Try again later, or put the file at '{tmp_path}/data"
    with pytest.raises(ConnectionError, match=message):
        download(url, tmp_path / "data.npz", transfer=EAGER)
    monkeypatch.setattr(module.time, "sleep", None)  # An invalid address is not tried twice.
    with pytest.raises(ConnectionError, match=r"cannot download 'data\.npz': Invalid URL 'data\.npz'"):
        download("data.npz", tmp_path / "data.npz", transfer=EAGER)


def test_the_environment_s_proxy_is_used(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/data.npz"))
    monkeypatch.setenv("no_proxy", "")
    download("http://data.invalid/a/data.npz", tmp_path / "data.npz", sha256=HASH, transfer=EAGER)
    assert [path for path, _ in server.requests] == ["http://data.invalid/a/data.npz"]


def test_progress_goes_on_where_the_download_does(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script = [answer(cut=245_760), answer()]
    download(server.url, tmp_path / "data.npz", transfer=Transfer(backoff=0, progress=True))
    shown = capsys.readouterr().err
    assert "data.npz:  48%" in shown
    assert "data.npz: 100%" in shown
    download(server.url, tmp_path / "other.npz", transfer=Transfer(backoff=0))
    assert capsys.readouterr().err == ""  # Standard error is not a terminal here.


def _ask(arguments: tuple[str, Path]) -> int:
    return len(download(*arguments, transfer=Transfer(progress=False)).read_bytes())


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_ten_at_once_download_once(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    def slowly(handler: Handler) -> None:
        time.sleep(0.3)
        answer()(handler)

    server.script = [slowly]
    monkeypatch.setattr(files, "sha256_of", None)  # The processes that waited do not read the file again.
    jobs = [(server.url, tmp_path / "data.npz")] * 10
    if kind == "threads":
        with ThreadPoolExecutor(10) as threads:
            sizes = list(threads.map(_ask, jobs))
    else:
        with multiprocessing.get_context("fork").Pool(10) as pool:
            sizes = pool.map(_ask, jobs, chunksize=1)
    assert sizes == [len(CONTENT)] * 10
    assert len(server.requests) == 1


def test_a_process_that_dies_with_the_lock_blocks_nobody(server: Server, tmp_path: Path) -> None:
    server.script = [answer(cut=98_304, stall=True), answer()]
    context: Any = multiprocessing.get_context("fork")
    patient = Transfer(stall_timeout=60, progress=False)
    process = context.Process(
        target=download, args=(server.url, tmp_path / "data.npz"), kwargs={"transfer": patient}, daemon=True
    )
    process.start()
    part = tmp_path / ".data.npz.part"
    while not (part.exists() and part.stat().st_size):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    assert download(server.url, tmp_path / "data.npz", transfer=EAGER).read_bytes() == CONTENT
    assert server.ranges()[1] is not None
