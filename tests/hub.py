"""A small Hugging Face hub on 127.0.0.1, and checkpoints that ask it through the real client, in another process."""

import fcntl
import hashlib
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from typing_extensions import Self

import flux_rewards

PACKAGE = str(Path(flux_rewards.__file__).parents[1])


@dataclass
class Repository:
    """What one repository offers.

    Attributes:
        files: By path.
        branches: Names of its newest commit.
        gated: Only who has this token gets its files.
        status: What every request is answered with, instead.
        faults: By path, what becomes of the next downloads of it: ``"cut"`` in the middle, ``"short"`` by a byte that
            no header speaks of, or a status.
    """

    files: dict[str, bytes]
    branches: tuple[str, ...] = ("main",)
    gated: str | None = None
    status: int | None = None
    faults: dict[str, list[Any]] = field(default_factory=dict)
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def push(self, files: Mapping[str, bytes]) -> None:
        """A new commit with these files changed."""
        self.older[self.commit] = self.files
        self.files = {**self.files, **files}

    def at(self, revision: str) -> tuple[str, dict[str, bytes]]:
        """The commit that a revision means, and its files."""
        return (revision, self.older[revision]) if revision in self.older else (self.commit, self.files)

    @property
    def commit(self) -> str:
        """The newest commit, named as git would: by content."""
        digest = hashlib.sha1(usedforsecurity=False)
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()


class Hub:
    """The hub. What it is asked for is in `requests`, as ``"GET /path"``."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.addresses: dict[str, bytes] = {}
        self.address_faults: dict[str, list[Any]] = {}
        self.requests: list[str] = []
        self.authorizations: set[str] = set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.hub = self
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()

    def add(self, name: str, files: Mapping[str, bytes | str] | Path, **options: Any) -> Repository:
        """A repository with these files, or with all files of a folder."""
        if isinstance(files, Path):
            files = {path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*")}
        content = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        self.repositories[name] = Repository(content, **options)
        return self.repositories[name]

    def downloads(self, name: str) -> list[str]:
        """The files of a repository that were sent."""
        begin = f"GET /{name}/resolve/"
        sent = [request.removeprefix(begin) for request in self.requests if request.startswith(begin)]
        return sorted({request.partition("/")[2] for request in sent})

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """Of a process that knows this hub only, keeps what it gets at `home`, and has no token."""
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS"))
        }
        ours = {"HF_ENDPOINT": self.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": PACKAGE}
        return {**kept, **ours, "HF_HUB_DISABLE_TELEMETRY": "1", "NO_COLOR": "1", "COLUMNS": "1000", **more}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub


_ERRORS = {"GatedRepo": 403, "RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        assert isinstance(self.server, _Server)
        return self.server.hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.hub.authorizations.add(self.headers.get("Authorization", ""))
        if path in self.hub.addresses:
            self.send_content(self.hub.addresses[path], {}, self.hub.address_faults.get(path, []))
        elif path.startswith("/api/models/"):
            self.about(*path.removeprefix("/api/models/").split("/", 2))
        elif "/resolve/" in path:
            owner, name, _, revision, file = path[1:].split("/", 4)
            self.resolve(owner, name, revision, file)
        else:
            self.refuse("RepoNotFound")

    def repository(self, owner: str, name: str, revision: str) -> Repository | None:
        """The repository that is asked for, where it may be told of; otherwise the error has been sent."""
        found = self.hub.repositories.get(f"{owner}/{name}")
        if found is None:
            self.refuse("RepoNotFound", 401)  # so the hub hides private ones
        elif found.status is not None:
            self.send(found.status, b"", {"Retry-After": "7"} if found.status == 429 else {})
        elif revision not in (*found.branches, found.commit, *found.older):
            self.refuse("RevisionNotFound")
        else:
            return found
        return None

    def about(self, owner: str, name: str, rest: str = "revision/main") -> None:
        kind, _, revision = rest.partition("/")
        found = self.repository(owner, name, revision)
        if found is None:
            return
        commit, files = found.at(revision)
        if kind == "tree":
            entries = [
                {"type": "file", "path": path, "size": len(content), "oid": _etag(content)}
                for path, content in files.items()
            ]
            self.send_json(entries)
        else:
            siblings = [{"rfilename": path} for path in files]
            self.send_json({"id": f"{owner}/{name}", "sha": commit, "siblings": siblings})

    def resolve(self, owner: str, name: str, revision: str, file: str) -> None:
        found = self.repository(owner, name, revision)
        if found is None:
            return
        commit, files = found.at(revision)
        if found.gated is not None and self.headers.get("Authorization") != f"Bearer {found.gated}":
            self.refuse("GatedRepo", 403 if "Authorization" in self.headers else 401)
        elif file not in files:
            self.refuse("EntryNotFound", commit=commit)
        else:
            facts = {"ETag": f'"{_etag(files[file])}"', "X-Repo-Commit": commit}
            self.send_content(files[file], facts, found.faults.get(file, []))

    def send_content(self, content: bytes, headers: Mapping[str, str], faults: list[Any]) -> None:
        fault = faults.pop(0) if faults and self.command == "GET" else None
        if callable(fault):
            fault()
        if isinstance(fault, int):
            self.send(fault, b"", headers)
            return
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        body = content[start:-1] if fault == "short" else content[start:]
        more = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self.send(206 if start else 200, body, {**headers, **more}, cut=fault == "cut")

    def refuse(self, code: str, status: int | None = None, commit: str | None = None) -> None:
        headers = {"X-Error-Code": code, **({"X-Repo-Commit": commit} if commit else {})}
        # A proxy may repeat what it was sent; no message may.
        headers["X-Error-Message"] = f"{code}: {self.headers.get('Authorization', 'nobody')} may not"
        self.send(status or _ERRORS[code], b"", headers)

    def send_json(self, value: Any) -> None:
        self.send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes, headers: Mapping[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        self.close_connection = self.close_connection or cut


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


# Waits between the client's tries are left out; all else is as it is.
_DRIVER = """
import json, sys, time
from pathlib import Path
time.sleep = lambda seconds: None
from flux_rewards.errors import FluxRewardsError
from flux_rewards.models.address import fetch_address
from flux_rewards.models.checkpoint import Checkpoint

def run(what, arguments, options):
    if what == "fetch_address":
        found = fetch_address(**arguments)
    else:
        found = getattr(Checkpoint(**arguments), what)
        found = found(*options.pop("given", []), **options) if callable(found) else found
    if isinstance(found, Path):
        files = [found] if found.is_file() else sorted(entry for entry in found.rglob("*") if entry.is_file())
        return {"path": str(found), "files": [entry.name for entry in files]}
    return {"value": found.label if isinstance(found, Checkpoint) else found}

answers = []
for what, arguments, options in json.load(sys.stdin):
    try:
        answers.append(run(what, arguments, options))
    except FluxRewardsError as error:
        told = {"error": type(error).__name__, "message": str(error), "retryable": error.retryable}
        answers.append({**told, "retry_after": error.retry_after})
print(json.dumps(answers))
"""


def ask(environment: Mapping[str, str], cases: Iterable[Sequence[Any]]) -> tuple[list[dict[str, Any]], str]:
    """Run methods of checkpoints in a process of its own; what they return or raise, and what the terminal shows.

    Args:
        environment: Of the process.
        cases: Of each the method, the arguments of `Checkpoint` (a mapping, or the source) and, where it takes some,
            keyword arguments of the method; ``{"given": [...]}`` for positional ones.
    """
    lines = []
    for what, arguments, *options in cases:
        lines.append([what, {"source": arguments} if isinstance(arguments, str) else arguments, *(options or [{}])])
    terminal, stderr = pty.openpty()
    fcntl.ioctl(stderr, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))
    shown: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(terminal, shown))
    reader.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _DRIVER],
            input=json.dumps(lines),
            env=dict(environment),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        os.close(stderr)
        reader.join()
        os.close(terminal)
    text = b"".join(shown).decode(errors="replace")
    assert done.returncode == 0, text
    return json.loads(done.stdout), text


def _drain(terminal: int, shown: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # so Linux tells that the other end is closed
            return
        if not piece:
            return
        shown.append(piece)
