"""The worked examples of docs/examples.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

REPOSITORY = Path(__file__).parents[1]
PAGE = (REPOSITORY / "docs" / "examples.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
PHOTOS = ("astronaut.jpg", "coffee.jpg", "coffee_alpha.png", "rocket.webp")

pytestmark = pytest.mark.skipif(not shutil.which("bash"), reason="no bash")


def blocks(section: str) -> list[tuple[str, str]]:
    """The language and the text of every block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``photos``: small pictures of two shapes, one with a caption."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(PHOTOS):
        with Image.open(REPOSITORY / "samples" / name) as image:
            small = image.convert("RGB").crop((100, 60, 196, 124 + 32 * (number % 2)))
        small.save(tmp_path / "photos" / f"{Path(name).stem}.jpg", quality=95)
    (tmp_path / "photos" / "coffee.txt").write_text("a cup of coffee")
    return tmp_path


@pytest.fixture
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One in which ``auravae`` is this checkout, with the model that is instant."""
    programs = tmp_path_factory.mktemp("bin")
    program = programs / "auravae"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m auravae_cli "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "AURAVAE_MODEL": "linear",
        "OMP_NUM_THREADS": "1",
    }


@pytest.mark.parametrize("title", SECTIONS)
def test_every_block_runs_as_it_stands(folder, environment, title):
    found = blocks(SECTIONS[title])
    assert {language for language, _ in found} == {"sh", "python"}
    for language, text in found:
        command = ["bash", "-eu", "-o", "pipefail"] if language == "sh" else [sys.executable]
        code, said = run([*command, "-c", text], folder, environment)
        assert code == 0, f"{text}\n{said}"


def run(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """The exit code and the output; what it left running in the background is ended."""
    log = folder.parent / "said.txt"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return code, log.read_text()


def test_there_are_three_and_no_block_is_left_out():
    assert len(SECTIONS) == 3
    assert sum(len(blocks(text)) for text in SECTIONS.values()) == PAGE.count("```") / 2
