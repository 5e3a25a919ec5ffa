"""The check of links to other servers (`make links`), against a server of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import external_links
import pytest
from external_links import NOT_ASKED, addresses, fault, faults


class Answers(BaseHTTPRequestHandler):
    """Answers with the status that the path names; /once with 503 at first and 200 from then on."""

    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        status = self.path[1:] if self.path != "/once" else "503" if self.asked.count("/once") == 1 else "200"
        self.send_response(int(status))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a running server, without the slash at its end."""
    Answers.asked = []
    running = HTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_addresses_are_found_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "docs" / "vendor").mkdir(parents=True)
    (tmp_path / "docs" / "vendor" / "a.md").write_text("https://left.example/out")
    (tmp_path / "docs" / "a.md").write_text(
        "See [a](https://a.example/b#c), https://d.example/e.\n\n`https://f.example`"
    )
    (tmp_path / "README.md").write_text('"https://a.example/b"; http://127.0.0.1:8000')
    expected = {
        "https://a.example/b": ["README.md:1", "docs/a.md:1"],
        "https://d.example/e": ["docs/a.md:1"],
        "https://f.example": ["docs/a.md:3"],
    }
    assert addresses(tmp_path) == expected


def test_an_address_that_is_gone_is_a_fault_at_once(server: str) -> None:
    assert fault(f"{server}/200", wait=0) is None
    assert "404" in str(fault(f"{server}/404", wait=0))
    assert Answers.asked == ["/200", "/404"]


def test_a_server_that_is_busy_is_asked_again(server: str) -> None:
    assert fault(f"{server}/once", wait=0) is None
    assert "500" in str(fault(f"{server}/500", wait=0))
    assert Answers.asked.count("/500") == external_links.TRIES


def test_only_servers_known_for_it_may_refuse_programs(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "403" in str(fault(f"{server}/403", wait=0))
    monkeypatch.setattr(external_links, "BROWSERS_ONLY", ("127.0.0.1",))
    assert fault(f"{server}/403", wait=0) is None


def test_faults_name_the_places(server: str) -> None:
    found = {f"{server}/410": ["README.md:3"], f"{server}/200": ["README.md:4"], next(iter(NOT_ASKED)): ["a.md:1"]}
    (line,) = faults(found)
    assert line.startswith(f"{server}/410: 410 ")
    assert line.endswith("(README.md:3)")
    assert sorted(Answers.asked) == ["/200", "/410"]


def test_addresses_that_are_not_asked_are_still_named() -> None:
    named = addresses()
    assert len(named) > 40
    assert NOT_ASKED.keys() - named.keys() == set()
