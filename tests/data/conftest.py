"""A server on this machine to download from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_server import Server, running_server

from flowpolicies.data.downloads.download import OFFLINE_VARIABLE


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY", OFFLINE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    with running_server() as server:
        yield server
