"""A server on this machine that does what servers and networks do wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 2000

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers the n-th request as entry n of `server.script` says; the last entry stands for all further ones."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        with self.server.lock:
            number = len(self.server.requests)
            self.server.requests.append((self.path, dict(self.headers)))
        self.server.script[min(number, len(self.server.script) - 1)](self)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.requests, self.script = threading.Lock(), [], [answer()]
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data.npz"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


def answer(
    content: bytes = CONTENT,
    *,
    tag: str | None = '"v1"',
    ranges: bool = True,
    if_range: bool = True,
    length: bool = True,
    cut: int | None = None,
    stall: bool = False,
    shift: int = 0,
) -> Behaviour:
    """An answer with `content`; after `cut` bytes of it the connection breaks off, or nothing more comes (`stall`).

    `shift` moves the range that is sent, and said to be sent, away from the one that was asked for.
    """

    def first_byte(handler: Handler) -> int:
        wish = handler.headers.get("Range") if ranges else None
        changed = if_range and handler.headers.get("If-Range") not in (None, tag)
        return 0 if wish is None or changed else int(wish.removeprefix("bytes=").removesuffix("-")) + shift

    def behave(handler: Handler) -> None:
        first = first_byte(handler)
        if first >= len(content):
            refuse(416, f"bytes */{len(content)}")(handler)
            return
        handler.send_response(206 if first else 200)
        if first:
            handler.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if length:
            handler.send_header("Content-Length", str(len(content) - first))
        if tag:
            handler.send_header("ETag", tag)
        handler.end_headers()
        handler.wfile.write(content[first:] if cut is None else content[first : max(cut, first)])
        handler.wfile.flush()
        if stall:
            handler.server.released.wait(10)

    return behave


def drip(content: bytes = CONTENT, *, pause: float = 0.05, header: bool = False) -> Behaviour:
    """An answer whose content, or whose header, comes one byte at a time, for as long as the server runs."""

    def behave(handler: Handler) -> None:
        if header:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        else:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.send_header("ETag", '"v1"')
            handler.end_headers()
        for byte in content:
            if handler.server.released.wait(pause):
                return
            handler.wfile.write(b"x" if header else bytes([byte]))
            handler.wfile.flush()

    return behave


def refuse(code: int, content_range: str | None = None) -> Behaviour:
    """An answer without content."""

    def behave(handler: Handler) -> None:
        handler.send_response(code)
        if content_range:
            handler.send_header("Content-Range", content_range)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return behave


@contextmanager
def running_server() -> Iterator[Server]:
    """A server with a whole answer for everybody."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.released.set()
        server.shutdown()
