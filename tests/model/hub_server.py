"""A model hub on 127.0.0.1: as much of its HTTP as `hf_hub_download` speaks, for one file."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LocalServer:
    """Answers on 127.0.0.1, with this handler, while it is entered as a context."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        """Stop answering; connections are refused from here on."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class HubServer(LocalServer):
    """Serves ``content`` as ``file`` of ``repo`` while it is entered as a context.

    ``break_after`` ends every answer at that byte of the file; ``breaks`` says how often. All
    requests are kept as (method, path, headers with lower-case names).
    """

    def __init__(
        self, repo: str, file: str, content: bytes, *, break_after: int | None = None
    ) -> None:
        self.path, self.content = f"/{repo}/resolve/main/{file}", content
        self.break_after, self.breaks = break_after, 1000
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(_handler(self))

    def environment(self, home: Path) -> dict[str, str]:
        """What makes the hub's client ask this server, and cache under ``home``."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def _answer(self, send_body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append((self.command, self.path, headers))
            if self.path != hub.path:
                self.send_response(404)
                self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            total = len(hub.content)
            asked = re.fullmatch(r"bytes=(\d+)-", headers.get("range", ""))
            start = min(int(asked[1]), total) if asked else 0
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
            self.send_header("Content-Length", str(total - start))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("X-Linked-Size", str(total))
            etag = f'"{hashlib.sha256(hub.content).hexdigest()}"'
            self.send_header("ETag", etag)
            self.send_header("X-Linked-Etag", etag)
            self.end_headers()
            if not send_body:
                return
            stop = total
            if hub.break_after is not None and hub.breaks > 0:
                hub.breaks -= 1
                stop = hub.break_after
            self.wfile.write(hub.content[start:stop])
            self.close_connection = True

    return Handler
