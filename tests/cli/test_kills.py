"""A kill at every single step of a run: the next run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from auravae_cli.files.storage import LocalStorage
from auravae_cli.store import shard_writer
from auravae_cli.store.manifest import iterate_manifests
from tests.cli.datasets import everything, picture, write_folder

STEPS = [  # all that changes a disk
    *((Path, name) for name in ("mkdir", "replace", "rmdir", "unlink", "write_bytes")),
    *((os, name) for name in ("fsync", "link", "unlink")),
    (tempfile, "mkdtemp"),
    (shard_writer.RowSpool, "add"),
    (shard_writer.RowSpool, "finish"),
]
FIRST = {"1.png": picture(1, 8, 8), "2.png": picture(2, 16, 8), "bad.png": b"x"}
SECOND = FIRST | {"2.png": picture(3, 24, 8), "bad.png": picture(4, 32, 8)}
THIRD = SECOND | {"2.png": picture(5, 40, 8)}


class Killed(BaseException):
    """As if the process had ended here: what follows changes nothing any more."""


def kill_at(patch, number):
    """Let the ``number``-th step, and every later one, do nothing but end the run."""
    steps = iter(range(1, number))

    def counted(genuine):
        def call(*arguments, **options):
            if next(steps, None) is None:
                raise Killed
            return genuine(*arguments, **options)

        return call

    for owner, name in STEPS:
        patch.setattr(owner, name, counted(getattr(owner, name)))


def source(files):
    """A folder that holds these files and no others, all of one time."""
    shutil.rmtree("photos", ignore_errors=True)
    for name in write_folder(Path("photos"), files) and files:
        os.utime(Path("photos", name), (1, len(files[name])))


def check_what_manifests_say(store):
    """A manifest is the truth at any moment: its files are there, and no others' bytes in them."""
    for manifest in iterate_manifests(LocalStorage(store)):
        for output in manifest.outputs:
            assert hashlib.sha256((store / output.name).read_bytes()).hexdigest() == output.sha256


@pytest.mark.parametrize(
    ("before", "killed", "after"),
    [({}, FIRST, FIRST), ({}, FIRST, THIRD), (FIRST, SECOND, SECOND), (FIRST, SECOND, THIRD)],
    ids=["first run", "first run, then changed", "second run", "second run, then changed"],
)
def test_a_kill_at_any_step_costs_nothing_in_the_end(
    auravae, work, monkeypatch, before, killed, after
):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # no power fails here

    def encode(store):
        return auravae("encode", "photos", "-o", store, "--layout", "shards").code

    source(after)
    encode("undisturbed")
    whole = everything(Path("undisturbed"))
    if before:
        source(before)
        encode("older")
    number, ended = 0, False
    while not ended:
        number += 1
        shutil.rmtree("store", ignore_errors=True)
        if before:
            shutil.copytree("older", "store")
        source(killed)
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, number)
            try:
                encode("store")
                ended = True
            except Killed:
                pass
        check_what_manifests_say(Path("store"))
        source(after)
        encode("store")
        assert everything(Path("store")) == whole, f"killed at step {number}"
    assert number > 20
