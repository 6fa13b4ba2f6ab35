"""Every write, sync, rename and name of a run fails in turn: no lie, no loss, and the next run mends it."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from auravae_cli.exchange import export, import_files
from auravae_cli.files import leftovers
from auravae_cli.files.storage import LocalStorage
from auravae_cli.store.manifest import iterate_manifests
from auravae_cli.store.names import PENDING
from tests.cli.datasets import everything, picture, write_folder
from tests.disk import Disk, Killed, lay_out

Files = dict[str, bytes]
IMPORT = ["import", "in", "--from", "npz", "-o", "out/x"]
COMMITS = [
    f"auravae_cli.{name}"
    for name in (
        "files.atomic",
        "files.leftovers",
        "files.scratch",
        "store.commit",
        "store.shard_writer",
    )
]
STORE = ["--layout", "shards", "--shard-size", "2"]
SHARDS = {"a": {(2, 2): 2}, "sub/b": {(2, 2): 1}}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the disk of the test needs /proc")


@dataclass(frozen=True)
class Scenario:
    """A command that writes below ``out``, and its code if all goes well.

    ``prepare`` makes its sources; with ``changed`` they are others, of an older run.
    """

    command: list[str]
    prepare: Callable[..., None]
    code: int = 0
    is_changed: bool = False


def latents(make_store, auravae, changed):
    make_store(shards=SHARDS, failures={"a": 1})


def arrays(make_store, auravae, changed):
    make_store(shards=SHARDS, failures={})
    assert auravae("export", "store", "--to", "npz", "-o", "in").code == 0


def pictures(make_store, auravae, changed, names=""):
    files = {f"{names}{number}.png": picture(number + changed, 8, 8 * number) for number in (1, 2)}
    for name in write_folder(Path("in"), files | {"bad.png": b"x"}).iterdir():
        os.utime(name, (1, 1 + changed))


def more_pictures(make_store, auravae, changed):
    """Before: others, whose rows are kept; one of one shape that goes, and one of the other."""
    pictures(make_store, auravae, changed, "new" * (not changed))
    if not changed:
        Path("in/1.png").write_bytes(picture(9, 8, 24))  # instead of one of 8 x 8


SCENARIOS = {
    "encode to files": Scenario(["encode", "in", "-o", "out/x"], pictures, 1),
    "encode again": Scenario(["encode", "in", "-o", "out/x", *STORE], pictures, 1, is_changed=True),
    "encode more": Scenario(
        ["encode", "in", "-o", "out/x", "--layout", "shards"], more_pictures, 1, is_changed=True
    ),
    "flip a store": Scenario(["flip", "store", "-H", "-o", "out/x"], latents),
    "export kohya": Scenario(["export", "store", "--to", "kohya", "-o", "out/x"], latents),
    "export edm2": Scenario(["export", "store", "--to", "edm2", "-o", "out/x"], latents),
    "export webdataset": Scenario(
        ["export", "store", "--to", "webdataset", "-o", "out/x"], latents
    ),
    "import to files": Scenario(IMPORT, arrays),
    "import to a store": Scenario([*IMPORT, *STORE], arrays),
}
MOST = SCENARIOS.keys() - {"encode again"}  # which "encode more" is, and more


class Stage:
    """A scenario, run again and again from the same start."""

    def __init__(self, scenario: Scenario, auravae: Any, make_store: Any) -> None:
        self.scenario, self.auravae = scenario, auravae
        if scenario.is_changed:
            scenario.prepare(make_store, auravae, True)
            self.start({})
            self.run()
            shutil.rmtree("in")
        self.before = self.found() if scenario.is_changed else {}
        scenario.prepare(make_store, auravae, False)
        self.start(self.before)
        assert self.run().code == scenario.code
        self.whole = self.found()
        assert self.whole and self.whole != self.before

    def start(self, files: Files) -> None:
        """Let ``out`` hold these and nothing else; as for a new process, no folder was swept."""
        shutil.rmtree("out", ignore_errors=True)
        Path("out").mkdir()
        lay_out(Path("out"), files)
        leftovers._sweep_once.cache_clear()

    def run(self) -> Any:
        return self.auravae(*self.scenario.command)

    def found(self) -> Files:
        return everything(Path("out"))

    def check_that_nothing_lies(self, found: Files) -> None:
        """What can be seen is whole: from before or as it will be; and so is what a manifest names."""
        for name, content in found.items():
            if not any(part.startswith(".") for part in name.split("/")) and PENDING not in name:
                assert content in (self.before.get(name), self.whole.get(name)), name
        for manifest in iterate_manifests(LocalStorage(Path("out/x"))):
            for output in manifest.outputs:
                content = Path("out/x", output.name).read_bytes()
                assert hashlib.sha256(content).hexdigest() == output.sha256

    def check_that_the_next_run_mends_it(self) -> None:
        leftovers._sweep_once.cache_clear()
        assert self.run().code == self.scenario.code
        assert self.found() == self.whole


@pytest.fixture
def stage(request, auravae, make_store, work, monkeypatch):
    monkeypatch.setattr(export, "_WRITERS", 1)
    monkeypatch.setattr(import_files, "_WRITERS", 1)
    with Disk(work).watched():  # which does not wait for the true one
        return Stage(SCENARIOS[request.param], auravae, make_store)


def each(*names):
    """Run a test on the stages of these scenarios."""
    return pytest.mark.parametrize("stage", names, indirect=True)


def visible(files: Files) -> Files:
    return {name: data for name, data in files.items() if "/." not in f"/{name}"}


def check_failures(stage: Stage, number: int, fails: Callable[[str, int, int], bool]) -> None:
    """Run with every step failing in turn: ``fails(kind, count, step)`` says what fails at a step."""
    step, failed = 0, True
    while failed:
        step, failed = step + 1, False

        def at(kind, count, step=step):
            nonlocal failed
            if fails(kind, count, step):
                failed = True
                raise OSError(number, os.strerror(number))

        stage.start(stage.before)
        with Disk(Path("out"), at).watched():
            result = stage.run()
        found = stage.found()
        stage.check_that_nothing_lies(found)
        if os.strerror(number) not in result.err + result.text:
            assert result.code == stage.scenario.code
            assert visible(found) == stage.whole, f"step {step} failed, and nothing was said"
        with Disk(Path("out")).watched():
            stage.check_that_the_next_run_mends_it()
    assert step > 10


@each(*sorted(MOST))
def test_the_disk_fails_once_at_each_step(stage):
    check_failures(stage, errno.EIO, lambda kind, count, step: count == step)


@each("encode again", "export edm2")
def test_the_disk_is_full_from_each_step_on(stage):
    takes_room = ("mkdir", "open", "write", "fsync", "link")
    check_failures(
        stage, errno.ENOSPC, lambda kind, count, step: count >= step and kind in takes_room
    )


def check_power_failures(stage: Stage, *, names_survive: bool) -> None:
    """End a run at every step in turn, and go on with what the disk had synced until then."""
    step, ended = 0, False
    while not ended:
        step += 1

        def at(kind, count, step=step):
            if count >= step:
                raise Killed

        stage.start(stage.before)
        with Disk(Path("out"), at).watched() as disk:
            try:
                stage.run()
                ended = True
            except Killed:
                pass
        left = disk.after_power_failure(names_survive=names_survive)
        stage.start(left)
        stage.check_that_nothing_lies(left)
        if ended:
            assert visible(left) == stage.whole, "said to be done, and not on the disk"
        with Disk(Path("out")).watched():
            stage.check_that_the_next_run_mends_it()
    assert step > 10


@each(*sorted(MOST))
def test_the_power_fails_at_each_step(stage):
    check_power_failures(stage, names_survive=False)


@each("encode again", "export kohya")
def test_the_power_fails_and_names_come_before_contents(stage):
    check_power_failures(stage, names_survive=True)


@pytest.fixture
def no_collection():
    """No cycles are collected: closing a generator among them counts as a call, of whatever runs then."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@each("import to a store", "export edm2")
def test_memory_runs_out_at_each_call_of_a_commit(stage):
    """Each call of a function of ours makes a frame, and finds no room for it."""
    number, ended = 0, False
    while not ended:
        number += 1
        left, ended = iter(range(number - 1)), True

        def trace(frame, event, argument, left=left):
            nonlocal ended
            if frame.f_globals.get("__name__") in COMMITS and next(left, None) is None and ended:
                ended = False
                raise MemoryError

        stage.start(stage.before)
        with Disk(Path("out")).watched(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "_trace_hook", trace)
            before = sys.gettrace()
            sys.settrace(trace)
            try:
                result = stage.run()
            finally:
                sys.settrace(before)
        found = stage.found()
        stage.check_that_nothing_lies(found)
        if "not enough memory" not in result.err + result.text:
            assert result.code == stage.scenario.code
            assert visible(found) == stage.whole, f"call {number} failed, and nothing was said"
        with Disk(Path("out")).watched():
            stage.check_that_the_next_run_mends_it()
    assert number > 10
