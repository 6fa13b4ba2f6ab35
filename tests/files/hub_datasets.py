"""A hub of datasets on 127.0.0.1: as much of its HTTP as huggingface_hub's file system speaks."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.model.hub_server import COMMIT, LocalServer


class HubOfDatasets(LocalServer):
    """Serves ``files`` of the dataset ``repo``, and takes commits, while it is entered as a context.

    ``failures`` answers that many requests with 503; ``commits`` counts those that were taken.
    """

    def __init__(self, repo: str) -> None:
        self.repo, self.files, self.failures, self.commits = repo, dict[str, bytes](), 0, 0
        self.lock = threading.Lock()
        super().__init__(_handler(self))

    def entry(self, path: str) -> dict[str, Any] | None:
        """What the hub says of a file or a folder."""
        content = self.files.get(path)
        if content is not None:
            oid = hashlib.sha1(content).hexdigest()
            return {"type": "file", "path": path, "size": len(content), "oid": oid}
        if any(name.startswith(f"{path}/") for name in self.files):
            return {"type": "directory", "path": path, "size": 0, "oid": "0" * 40}
        return None

    def tree(self, folder: str, recursive: bool) -> list[dict[str, Any]]:
        """The entries below a folder."""
        start, paths = f"{folder}/" if folder else "", set[str]()
        for name in self.files:
            if name.startswith(start):
                parts = name[len(start) :].split("/")
                depth = len(parts) if recursive else 1
                paths |= {start + "/".join(parts[:n]) for n in range(1, depth + 1)}
        return [entry for path in sorted(paths) if (entry := self.entry(path))]


def _handler(hub: HubOfDatasets) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._handle()

        def do_GET(self) -> None:
            self._handle()

        def do_POST(self) -> None:
            self._handle()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with hub.lock:
                if hub.failures:
                    hub.failures -= 1
                    self._send(503, {"error": "busy"})
                    return
                self._route(urlsplit(self.path), body)

        def _route(self, url: Any, body: bytes) -> None:
            path, api = unquote(url.path), f"/api/datasets/{hub.repo}"
            if path.startswith(f"/datasets/{hub.repo}/resolve/main/"):
                self._file(path.removeprefix(f"/datasets/{hub.repo}/resolve/main/"))
            elif path in (api, f"{api}/revision/main"):
                self._send(200, {"id": hub.repo, "sha": COMMIT, "siblings": []})
            elif path == f"{api}/paths-info/main":
                wanted = (
                    json.loads(body)["paths"]
                    if body[:1] == b"{"
                    else parse_qs(body.decode())["paths"]
                )
                self._send(200, [entry for name in wanted if (entry := hub.entry(name))])
            elif path.startswith(f"{api}/tree/main"):
                folder = path.removeprefix(f"{api}/tree/main").strip("/")
                found = hub.tree(folder, "recursive=true" in url.query.lower())
                self._send(200, found) if found or not folder else self._missing()
            elif path == f"{api}/preupload/main":
                files = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in json.loads(body)["files"]
                ]
                self._send(200, {"files": files})
            elif path == f"{api}/commit/main":
                lines = [json.loads(line) for line in body.splitlines()]
                if any(
                    line["key"] == "deletedFile" and line["value"]["path"] not in hub.files
                    for line in lines
                ):
                    self._missing()
                    return
                for line in lines:
                    if line["key"] == "file":
                        hub.files[line["value"]["path"]] = base64.b64decode(
                            line["value"]["content"]
                        )
                    elif line["key"] == "deletedFile":
                        hub.files.pop(line["value"]["path"])
                hub.commits += 1
                self._send(
                    200,
                    {
                        "commitOid": COMMIT,
                        "commitUrl": f"{hub.endpoint}/datasets/{hub.repo}/commit/{COMMIT}",
                        "success": True,
                    },
                )
            else:
                self._missing()

        def _file(self, name: str) -> None:
            content = hub.files.get(name)
            if content is None:
                self._missing()
                return
            start, stop = 0, len(content)
            if span := self.headers.get("Range"):
                first, _, last = span.removeprefix("bytes=").partition("-")
                start, stop = int(first), min(stop, int(last or stop) + 1)
            part = content[start:stop]
            self._send(206 if span else 200, part)

        def _missing(self) -> None:
            self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})

        def _send(self, code: int, content: Any, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(code)
            more = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            for name, value in {
                "Content-Length": str(len(data)),
                **more,
                **(headers or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    return Handler
