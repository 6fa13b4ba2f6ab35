"""What the command-line tests share: the program in-process, and small pictures and latents."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from auravae_cli.cli.app import main

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """How a run of the program ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text."""
        return self.out.decode()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.text.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        """The only JSON line of standard output."""
        (row,) = self.rows
        return row

    @property
    def message(self) -> str:
        """Standard error without colours, frames and line breaks."""
        plain = re.sub(r"\x1b\[[0-9;]*m", "", self.err)
        return re.sub(r"[\s│╭╮╰╯─]+", " ", plain)


class Terminal(io.TextIOWrapper):
    """A stream that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="session", autouse=True)
def instant_model() -> Iterator[None]:
    """Most tests are about files, so the model that needs no torch serves them best."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AURAVAE_MODEL", "linear")
        yield


def run_main(*arguments: object, stdin: bytes = b"", terminals: str = "") -> Result:
    """Run `main` in this process; anything that it raises but SystemExit is a bug and passes.

    ``terminals`` names the streams that are on a terminal, such as ``"stdout stderr"``.
    """
    out, err = io.BytesIO(), io.BytesIO()

    def stream(name: str, buffer: io.BytesIO) -> io.TextIOWrapper:
        kind = Terminal if name in terminals.split() else io.TextIOWrapper
        return kind(buffer, "utf-8", write_through=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["auravae", *map(str, arguments)])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        patch.setattr(sys, "stdout", stream("stdout", out))
        patch.setattr(sys, "stderr", stream("stderr", err))
        with pytest.raises(SystemExit) as end:
            main()
        sys.stdout.flush()
        sys.stderr.flush()
        result = Result(end.value.code or 0, out.getvalue(), err.getvalue().decode())
    assert "Traceback" not in result.err
    return result


@pytest.fixture
def auravae(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The program, run in this process: ``auravae("encode", "a.jpg", stdin=b"")``."""
    monkeypatch.setenv("COLUMNS", "400")
    return run_main


@pytest.fixture(scope="session")
def program() -> tuple[list[str], dict[str, str]]:
    """The program's command line, and the environment that finds this checkout."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "400"}
    return [sys.executable, "-m", "auravae_cli"], environment


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let programs that are started here heed SIGINT, even where this one ignores it.

    What a shell starts in the background ignores it, and hands that on to all that it starts.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, made the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of photographs."""
    return REPOSITORY / "samples"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture
def picture() -> Callable[..., Path]:
    """Write a smooth, asymmetric picture: ``picture(path, height, width, shift)``."""

    def write(path: Path | str, height: int = 21, width: int = 30, shift: int = 0) -> Path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, columns = np.mgrid[:height, :width]
        channels = [5 * columns + shift, 7 * rows + 11, 3 * rows + 4 * columns]
        pixels = np.stack([128 + 100 * np.sin(c / 40) for c in channels], axis=-1)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def _latent_bytes(samples: Path) -> bytes:
    result = run_main("encode", "-", stdin=(samples / "coffee_alpha.png").read_bytes())
    assert result.code == 0
    return result.out


@pytest.fixture
def latent(work: Path, _latent_bytes: bytes) -> Path:
    """The file of a small, sound latent, in the current folder."""
    path = work / "z.safetensors"
    path.write_bytes(_latent_bytes)
    return Path(path.name)


@pytest.fixture
def pixels() -> Callable[[Path | str], np.ndarray]:
    """Read a picture as an array."""

    def read(path: Path | str) -> np.ndarray:
        with Image.open(path) as image:
            return np.asarray(image)

    return read


@pytest.fixture
def tree() -> Callable[[Path], dict[str, bytes]]:
    """Every file below a folder, hidden ones too, with its content."""

    def read(folder: Path) -> dict[str, bytes]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read
