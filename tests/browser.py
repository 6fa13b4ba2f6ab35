"""Chromium without a window, driven by chromedriver's own protocol (W3C WebDriver): no package.

Pages are opened from files, or from a server on loopback. Whatever the page logs and asks the network for is kept.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def _runs(program: str | None) -> bool:
    """Whether a program is there, with the libraries that it needs."""
    return (
        program is not None
        and not subprocess.run([program, "--version"], capture_output=True, check=False).returncode
    )


MISSING = (
    ""
    if _runs(CHROMIUM) and _runs(DRIVER)
    else "no Chromium here: apt-get install chromium chromium-driver"
)

_FLAGS = (
    *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
    "disable-dev-shm-usage",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"right": "\ue014", "left": "\ue012", "home": "\ue011", "end": "\ue010", "tab": "\ue004"}


class Browser:
    """A browser with one window of ``width`` x ``height``; to be closed."""

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        assert DRIVER is not None
        self._driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
        self._address = f"http://127.0.0.1:{self._port()}"
        arguments = [f"--{flag}" for flag in _FLAGS]
        arguments += [
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "about:blank",
        ]
        chrome = {
            "binary": CHROMIUM,
            "args": arguments,
            "perfLoggingPrefs": {"enableNetwork": True},
        }
        wanted = {
            "goog:chromeOptions": chrome,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        try:
            session = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        except BaseException:
            self._stop()
            raise
        self._session = f"/session/{session['sessionId']}"

    def _port(self) -> int:
        assert self._driver.stdout is not None
        for line in self._driver.stdout:
            if "started successfully on port" in line:
                return int(line.rstrip(".\n").rpartition(" ")[2])
        raise RuntimeError("chromedriver did not start")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._address + path, data, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        """Open a file, and wait until it has loaded and its pictures are decoded."""
        self._ask("POST", f"{self._session}/url", {"url": page.resolve().as_uri()})
        self.run("return Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")

    def visit(self, address: str) -> None:
        """Open a page of a server."""
        self._ask("POST", f"{self._session}/url", {"url": address})

    def choose(self, selector: str, *files: Path) -> None:
        """Choose files with an input of files."""
        self._send(selector, "\n".join(str(file.resolve()) for file in files))

    def click(self, selector: str) -> None:
        """Click on an element."""
        element = self._find(selector)
        self._ask("POST", f"{self._session}/element/{element}/click", {})

    def key(self, name: str) -> None:
        """Press a key, such as Tab, wherever the focus is."""
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=9
            )

    def wait(self, script: str, seconds: float = 60) -> Any:
        """What a script returns, as soon as that is true; it fails where it never is."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < end, script
            time.sleep(0.05)
        return found

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        body = {"script": script, "args": list(arguments)}
        return self._ask("POST", f"{self._session}/execute/sync", body)

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of Chromium's developer tools."""
        body = {"cmd": name, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", body)

    def prefer(self, **features: str) -> None:
        """Set media features, such as ``prefers_color_scheme="dark"``."""
        named = [{"name": n.replace("_", "-"), "value": v} for n, v in features.items()]
        self.command("Emulation.setEmulatedMedia", features=named)

    def resize(self, width: int, height: int) -> None:
        """Lay the page out as in a window of that size."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def type(self, selector: str, *keys: str) -> None:
        """Press keys, by their names in `KEYS`, on an element."""
        self._send(selector, "".join(KEYS[key] for key in keys))

    def _find(self, selector: str) -> str:
        found = {"using": "css selector", "value": selector}
        return str(self._ask("POST", f"{self._session}/element", found)[_ELEMENT])

    def _send(self, selector: str, text: str) -> None:
        element = self._find(selector)
        self._ask("POST", f"{self._session}/element/{element}/value", {"text": text})

    def drag(
        self, start: tuple[float, float], end: tuple[float, float], kind: str = "mouse"
    ) -> None:
        """Press at a place of the window, move, and let go; ``kind`` is mouse or touch."""

        def move(place: tuple[float, float], duration: int) -> dict[str, Any]:
            x, y = map(round, place)
            return {"type": "pointerMove", "x": x, "y": y, "duration": duration}

        steps = [
            move(start, 0),
            {"type": "pointerDown", "button": 0},
            move(end, 100),
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {
            "type": "pointer",
            "id": kind,
            "parameters": {"pointerType": kind},
            "actions": steps,
        }
        self._ask("POST", f"{self._session}/actions", {"actions": [pointer]})

    def screenshot(self, whole: bool = False) -> bytes:
        """The window, or the whole page, as PNG."""
        options = {"captureBeyondViewport": True} if whole else {}
        return base64.b64decode(self.command("Page.captureScreenshot", **options)["data"])

    def log(self) -> list[str]:
        """What the page logged since the last call."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "performance"})
        messages = (json.loads(entry["message"])["message"] for entry in entries)
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def close(self) -> None:
        """End the session and its processes."""
        try:
            self._ask("DELETE", self._session)
        finally:
            self._stop()

    def _stop(self) -> None:
        self._driver.terminate()
        self._driver.wait(10)
        assert self._driver.stdout is not None
        self._driver.stdout.close()
