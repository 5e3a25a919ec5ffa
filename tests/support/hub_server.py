"""A server on this machine with as much of the Hugging Face Hub's interface as uploading and downloading models needs.

Small files are in commits, `.safetensors` are objects of Git LFS behind a redirect, as on the Hub. Users: `TOKEN` may
read and write everything, no token may read what is neither private nor gated.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_write"
READ_ONLY = "hf_read"


class Repository:
    """Commits, which are mappings of path to content, and branches."""

    def __init__(self, *, private: bool = False, gated: bool = False) -> None:
        self.private, self.gated = private, gated
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.messages: list[str] = []
        self.commit({}, "initial commit")

    def commit(self, files: Mapping[str, bytes], message: str, branch: str = "main") -> str:
        before = self.commits.get(self.branches.get(branch, ""), {})
        number = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits[number] = {**before, **files}
        self.branches[branch] = number
        self.messages.append(message)
        return number

    def find(self, revision: str) -> str | None:
        number = self.branches.get(revision, revision)
        return number if number in self.commits else None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            self.server.requests.append((self.command, path))
            if self.server.broken is not None:
                self.fail(self.server.broken, "Broken", "the server is on fire")
                return
            for pattern, method in ROUTES:
                if found := re.fullmatch(pattern, f"{self.command} {path}"):
                    getattr(self, method)(*found.groups())
                    return
        self.fail(404, "Unknown", f"the server of the tests has no {self.command} {path}")

    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def reply(self, content: bytes | Any = b"", code: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, error: str, message: str) -> None:
        self.reply(b"", status, X_Error_Code=error, X_Error_Message=message)

    def readable(self, name: str) -> Repository | None:
        """The repository, or None after the answer that the user may not see it."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.token() not in (TOKEN, READ_ONLY)):
            self.fail(401, "RepoNotFound", "Repository not found")
        elif repository.gated and self.token() != TOKEN:
            self.fail(403, "GatedRepo", "Access to this model is restricted")
        else:
            return repository
        return None

    def may_write(self) -> bool:
        if self.token() == TOKEN:
            return True
        if self.token():
            self.fail(403, "Forbidden", "this token does not allow writing")
        else:
            self.fail(401, "Unauthorized", "Invalid username or password.")
        return False

    def resolve(self, name: str, revision: str, path: str) -> None:
        if (repository := self.readable(name)) is None:
            return
        if (commit := repository.find(revision)) is None:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif (content := repository.commits[commit].get(path)) is None:
            self.reply(b"", 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        elif path.endswith(".safetensors"):
            oid = hashlib.sha256(content).hexdigest()
            self.server.objects[oid] = content
            linked = {"X_Linked_ETag": f'"{oid}"', "X_Linked_Size": str(len(content)), "X_Repo_Commit": commit}
            # Another host, as on the Hub: a client must not send its token there.
            self.reply(b"", 302, Location=f"{self.server.url.replace('127.0.0.1', 'localhost')}/cdn/{oid}", **linked)
        else:
            self.reply(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=commit)

    def cdn(self, oid: str) -> None:
        assert not self.token()
        self.reply(self.server.objects[oid], ETag=f'"{oid}"')

    def information(self, name: str, revision: str) -> None:
        if (repository := self.readable(name)) is not None:
            self.reply({"id": name, "sha": repository.find(revision), "siblings": []})

    def create(self) -> None:
        if not self.may_write():
            return
        wish = json.loads(self.body)
        name = f"{wish['organization']}/{wish['name']}"
        url = {"url": f"{self.server.url}/{name}"}
        if name in self.server.repositories:
            self.reply(url, 409)
            return
        private = wish.get("visibility") == "private" or wish.get("private", False)
        self.server.repositories[name] = Repository(private=private)
        self.reply(url)

    def branch(self, name: str, branch: str) -> None:
        if not self.may_write() or (repository := self.readable(name)) is None:
            return
        if branch in repository.branches:
            self.reply(b"", 409)
            return
        repository.branches[branch] = repository.branches["main"]
        self.reply(b"")

    def validate(self) -> None:
        content = json.loads(self.body)["content"]
        self.server.validated.append(content)
        self.reply({"errors": [], "warnings": []})

    def preupload(self, name: str, revision: str) -> None:
        if not self.may_write() or (repository := self.readable(name)) is None:
            return
        if repository.find(revision) is None:
            self.fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        paths = [entry["path"] for entry in json.loads(self.body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
        self.reply({"files": [{"path": path, "uploadMode": modes[path], "shouldIgnore": False} for path in paths]})

    def batch(self, name: str) -> None:
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.objects:
                entry["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{entry['oid']}"}}
        self.reply({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.server.objects[oid] = self.body
        self.reply(b"")

    def commit(self, name: str, revision: str) -> None:
        if not self.may_write() or (repository := self.readable(name)) is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        summary = next(line["value"]["summary"] for line in lines if line["key"] == "header")
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        proposed = "create_pr" in self.path
        commit = repository.commit(files, summary, "refs/pr/1" if proposed else revision)
        answer = {"success": True, "commitOid": commit, "commitUrl": f"{self.server.url}/{name}/commit/{commit}"}
        self.reply({**answer, "pullRequestUrl": f"{self.server.url}/{name}/discussions/1" if proposed else None})


_REPO = "([^/]+/[^/]+)"
ROUTES = (
    (rf"(?:GET|HEAD) /{_REPO}/resolve/([^/]+(?:/pr/\d+)?)/(.+)", "resolve"),
    (r"(?:GET|HEAD) /cdn/(\w+)", "cdn"),
    (rf"GET /api/models/{_REPO}/revision/(.+)", "information"),
    (r"POST /api/repos/create", "create"),
    (rf"POST /api/models/{_REPO}/branch/(.+)", "branch"),
    (r"POST /api/validate-yaml", "validate"),
    (rf"POST /api/models/{_REPO}/preupload/(.+)", "preupload"),
    (rf"POST /{_REPO}\.git/info/lfs/objects/batch", "batch"),
    (r"PUT /lfs/(\w+)", "store"),
    (rf"POST /api/models/{_REPO}/commit/(.+)", "commit"),
)


class HubServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.RLock()
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.validated: list[str] = []
        self.broken: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, home: Any) -> dict[str, str]:
        """Environment variables of a process that uses this server, with its cache and tokens in a folder."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


@contextmanager
def running_hub() -> Iterator[HubServer]:
    with HubServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()
