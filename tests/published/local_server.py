"""A web server on this machine that fails as real ones do, and archives for it to serve."""

from __future__ import annotations

import functools
import hashlib
import io
import re
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def tag(content: bytes) -> str:
    """The ETag that the server gives to a file."""
    return f'"{hashlib.md5(content).hexdigest()}"'


class Server(ThreadingHTTPServer):
    """Serves `files`. `faults` holds what happens instead at the next requests for a path; `seen` is what was asked.

    A fault is a status, 'cut' (it breaks off half-way), 'silent' or 'slow'.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.seen: list[tuple[str, str | None]] = []
        self.ranges = True
        threading.Thread(target=functools.partial(self.serve_forever, poll_interval=0.01), daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def log_message(self, *args: Any) -> None:
        """Nothing is logged."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Range"]))
        fault = next(iter(self.server.faults.get(self.path, [])), None)
        del self.server.faults.get(self.path, [])[:1]
        content = self.server.files.get(self.path, b"")
        start = int(re.sub(r"\D", "", self.headers["Range"] or "0"))
        if not self.server.ranges or self.headers["If-Range"] not in (None, tag(content)):
            start = 0
        if isinstance(fault, int) or self.path not in self.server.files:
            self.send_error(fault if isinstance(fault, int) else 404)
        elif start >= len(content) > 0:
            self.send_error(416)
        else:
            self.send(content[start:], start, len(content), tag(content), fault)

    def send(self, body: bytes, start: int, total: int, etag: str, fault: str | None) -> None:
        """Send a file, or its rest."""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        time.sleep(0.6 if fault == "silent" else 0)
        for i in range(0, len(body) // 2 if fault == "cut" else len(body), 20_000):
            self.wfile.write(body[i : i + 20_000])
            time.sleep(0.05 if fault == "slow" else 0)


def zip_of(path: Path, members: dict[Any, bytes]) -> Path:
    """A zip archive; a name can be a ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tar_of(path: Path, members: dict[Any, bytes]) -> Path:
    """A compressed tar archive; a name can be a TarInfo, as of a link."""
    with tarfile.open(path, "w:gz") as file:
        for name, content in members.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path
