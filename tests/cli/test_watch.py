"""encode --watch: a process that stays, and folders in which things happen."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auravae_cli.latents.latent_file import read_latents

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
PATIENCE = 60  # seconds; a busy machine starts programs slowly


class Resident:
    """The program at work on folders; its JSON lines as they come."""

    def __init__(self, program: tuple[list[str], dict[str, str]], *arguments: object) -> None:
        command, environment = program
        self.process = subprocess.Popen(
            [*command, "encode", "--watch", "--interval", "0.05", "--json", *map(str, arguments)],
            env={**environment, "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout and self.process.stderr
        self.hello = self.process.stderr.readline()
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._lines.put(line)

    def next(self) -> dict[str, Any]:
        """The next outcome; where none comes, the test says what every thread was at."""
        try:
            return json.loads(self._lines.get(timeout=PATIENCE))
        except queue.Empty:
            self.process.send_signal(signal.SIGABRT)
            code = self.process.wait(PATIENCE)
            pytest.fail(f"nothing came; exit code {code}:\n{self.process.stderr.read()}")

    def is_silent(self, seconds: float = 0.4) -> bool:
        """Whether nothing comes for a while."""
        time.sleep(seconds)
        return self._lines.empty()

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code after a signal, and what came on stderr since the first line."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE), self.process.stderr.read()

    def close(self) -> None:
        """End it for good."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def start(interruptible, program, work) -> Callable[..., Resident]:
    """Start the program in an empty folder; it is ended after the test."""
    started = []

    def run(*arguments: object) -> Resident:
        started.append(Resident(program, *arguments))
        return started[-1]

    yield run
    for resident in started:
        resident.close()


def is_said(err, outcomes):
    """Whether the last words tell these outcomes; the time in the model, too, on a busy machine."""
    time = r"(, [\d.]+ s in the model \(predicted [\d.]+ s\))?"
    return re.fullmatch(rf"stopped: {re.escape(outcomes)}{time}\n", err)


def test_pictures_are_encoded_as_they_appear(start, picture):
    picture("in/old.png")
    resident = start("in", "-o", "out")
    assert resident.hello == "watching in with linear on cpu; stop with Ctrl-C\n"
    assert (resident.next()["source"], Path("out/old.safetensors").exists()) == ("in/old.png", True)
    picture("in/sub/new.png", 24, 16, shift=5)
    row = resident.next()
    assert row["status"] == "done"
    assert row["output"] == "out/sub/new.safetensors"
    assert read_latents(Path("out/sub/new.safetensors")).values.shape == (16, 3, 2)
    assert resident.is_silent()
    code, err = resident.end(signal.SIGINT)
    assert code == 0
    assert is_said(err, "2 done")


def test_a_picture_that_is_still_being_written_waits(start, picture, work):
    content = picture("whole.png", 200, 300).read_bytes()
    Path("in").mkdir()
    resident = start("in")
    with Path("in/slow.png").open("wb") as file:
        for part in range(8):
            file.write(content[part * len(content) // 8 : (part + 1) * len(content) // 8])
            file.flush()
            time.sleep(0.02)
    row = resident.next()
    if row["status"] == "failed":  # a pause as long as the interval: the rest brings it back
        row = resident.next()
    assert row["status"] == "done"
    assert read_latents(Path("in/slow.safetensors")).records[0].image_size == (200, 300)
    assert resident.end()[0] == 0


def test_a_half_written_file_fails_once_and_is_done_when_it_is_whole(start, picture):
    content = picture("whole.png", 64, 64).read_bytes()
    Path("in").mkdir()
    resident = start("in")
    Path("in/a.png").write_bytes(content[: len(content) // 2])
    assert resident.next()["status"] == "failed"
    assert resident.is_silent()
    Path("in/a.png").write_bytes(content)
    assert resident.next()["status"] == "done"
    code, err = resident.end()
    assert code == 0
    assert is_said(err, "1 done, 1 failed")


def test_bad_pictures_and_deletions_end_nothing(start, picture):
    Path("in").mkdir()
    resident = start("in", "-o", "out")
    Path("in/bad.jpg").write_bytes(b"no picture")
    row = resident.next()
    assert (row["source"], row["status"]) == ("in/bad.jpg", "failed")
    assert row["reason"]
    Path("in/bad.jpg").unlink()
    picture("in/gone.png").unlink()
    picture("in/good.png")
    rows = [resident.next()]
    if rows[0]["source"] == "in/gone.png":  # it was quicker than the deletion
        rows.append(resident.next())
    assert (rows[-1]["source"], rows[-1]["status"]) == ("in/good.png", "done")
    Path("in").rename("elsewhere")
    assert resident.is_silent()
    Path("elsewhere").rename("in")
    assert resident.is_silent()  # nothing is done twice
    picture("in/late.png")
    assert resident.next()["source"] == "in/late.png"
    assert resident.end()[0] == 0


def test_what_was_finished_before_is_skipped_and_what_was_not_is_done(start, picture, auravae):
    picture("in/a.png")
    picture("in/b.png", shift=3)
    assert auravae("encode", "in/a.png").code == 0
    resident = start("in")
    rows = [resident.next(), resident.next()]
    assert [(row["source"], row["status"]) for row in rows] == [
        ("in/a.png", "skipped"),
        ("in/b.png", "done"),
    ]
    assert resident.end()[0] == 0


def test_a_changed_picture_keeps_its_latent_unless_told_otherwise(start, picture):
    picture("in/a.png")
    resident = start("in")
    first = resident.next()
    picture("in/a.png", 40, 40)
    row = resident.next()
    assert (first["status"], row["status"]) == ("done", "failed")
    assert "--overwrite" in row["reason"]
    assert resident.end()[0] == 0
    other = start("in", "--overwrite")
    assert other.next()["status"] == "done"
    picture("in/a.png", 48, 40)
    assert other.next()["details"]["image_size"] == [48, 40]
    assert other.end()[0] == 0


def test_two_pictures_never_take_turns_at_one_latent(start, picture):
    picture("in/a.png")
    resident = start("in", "-o", "out", "--overwrite")
    assert resident.next()["status"] == "done"
    picture("in/a.bmp")
    row = resident.next()
    assert (row["source"], row["status"]) == ("in/a.bmp", "failed")
    assert row["reason"] == "out/a.safetensors is the result of in/a.png; rename one"
    assert resident.end()[0] == 0


def test_people_get_lines_at_once(program, work, picture):
    """On a pipe, too, where other commands may wait until a block is full."""
    picture("in/a.png")
    command, environment = program
    arguments = [*command, "encode", "--watch", "in", "--quiet"]
    with subprocess.Popen(
        [*arguments[:-1]],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "in/a.png -> in/a.safetensors\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folders"),
        (["missing"], "expected a folder that exists"),
        (["a.png"], "expected a folder that exists"),
        ([".", "-o", "x.safetensors"], "expected a folder"),
        ([".", "-o", "-"], "expected a folder"),
        ([".", "--layout", "shards", "-o", "store"], "no store"),
        ([".", "--num-shards", "2"], "no store, list, dry run or part"),
        ([".", "--files-from", "list.txt"], "no store, list, dry run or part"),
    ],
)
def test_what_cannot_be_watched_is_wrong_usage(auravae, work, picture, arguments, message):
    picture("a.png")
    result = auravae("encode", "--watch", *arguments)
    assert result.code == 2
    assert message in result.message


def test_nothing_is_written_behind_a_link_out_of_the_inbox(start, picture, work):
    picture("in/a.png")
    picture("elsewhere/b.png", shift=5)
    Path("in/more").symlink_to(work / "elsewhere")
    resident = start("in")
    rows = {row["source"]: row for row in (resident.next(), resident.next())}
    assert rows["in/a.png"]["status"] == "done"
    assert rows["in/more/b.png"]["status"] == "failed"
    assert "a link leads out of in" in rows["in/more/b.png"]["reason"]
    assert resident.is_silent()  # and told once
    assert resident.end()[0] == 0
    assert [path.name for path in Path("elsewhere").iterdir()] == ["b.png"]
    resident = start("in", "-o", "out")  # it is read, as elsewhere
    assert {resident.next()["output"] for _ in range(2)} == {
        "out/a.safetensors",
        "out/more/b.safetensors",
    }
    assert [path.name for path in Path("elsewhere").iterdir()] == ["b.png"]
