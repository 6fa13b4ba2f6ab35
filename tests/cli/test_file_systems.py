"""Mounts that lack what disks have: modes, syncing, maps, locks, room, or the right to write."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from auravae_cli import LatentDataset
from auravae_cli.files import atomic, leftovers, mapping, scratch
from auravae_cli.operations import encode as encoding
from auravae_cli.store import shard_writer
from tests.cli.datasets import everything, picture, pictures, rows, write_folder

STORE = ["-o", "store", "--layout", "shards"]


def failing(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize(
    ("module", "call", "number"),
    [
        (atomic.os, "fchmod", errno.EPERM),
        (atomic.os, "fsync", errno.EINVAL),
        (mapping.mmap, "mmap", errno.ENODEV),
        (leftovers.fcntl, "flock", errno.ENOSYS),
    ],
    ids=["modes", "syncing", "maps", "locks"],
)
def test_comforts_are_no_necessities(auravae, work, monkeypatch, module, call, number):
    write_folder(work / "p", pictures(3))
    monkeypatch.setattr(shard_writer, "_WAITING_BYTES", 0)
    monkeypatch.setattr(mapping, "MOST_READ", 0)
    assert auravae("encode", "p", "-o", "plain", "--layout", "shards").code == 0
    monkeypatch.setattr(module, call, failing(number))
    for command in (["encode", "p", *STORE], ["encode", "p", "-o", "x"], ["verify", "store"]):
        result = auravae(*command)
        assert result.code == 0, result.err
    assert everything(Path("store")) == everything(Path("plain"))
    assert len(LatentDataset("store")[0]["latent"]) == 16
    assert auravae("flip", "store", "-H", "-o", "flipped").code == 0
    assert auravae("decode", "x", "-o", "y").code == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_a_full_disk_ends_a_batch_at_once(auravae, work, monkeypatch, number):
    write_folder(work / "p", pictures(6))
    written = []
    genuine = encoding.create_atomically

    def create(path, data):
        written.append(path)
        if len(written) == 3:
            monkeypatch.setattr(atomic.os, "fsync", failing(number))
        return genuine(path, data)

    monkeypatch.setattr(encoding, "create_atomically", create)
    result = auravae("encode", "p", "-o", "x")
    assert result.code == 1 and len(written) == 3
    assert f"{os.strerror(number)}; finished work is kept: run the same line again" in result.err
    monkeypatch.undo()
    monkeypatch.chdir(work)
    monkeypatch.setenv("AURAVAE_MODEL", "linear")
    assert len(list(Path("x").iterdir())) == 2  # nothing hidden is left either
    again = auravae("encode", "p", "-o", "x")
    assert again.code == 0 and again.text.count("up to date") == 2


def test_a_finished_store_where_nothing_can_be_written(auravae, work, monkeypatch):
    write_folder(work / "p", pictures(3))
    for command in (["encode", "p", *STORE], ["encode", "p", "-o", "x"]):
        assert auravae(*command).code == 0
    assert auravae("flip", "store", "-H", "-o", "flipped").code == 0
    for module, name in ((scratch, "_claim"), (leftovers.tempfile, "mkstemp")):
        monkeypatch.setattr(module, name, failing(errno.EROFS))
    for command in (["encode", "p", *STORE], ["encode", "p", "-o", "x"]):
        result = auravae(*command)
        assert result.code == 0 and "up to date" in result.text, result.err
    assert auravae("flip", "store", "-H", "-o", "flipped").code == 0
    (work / "p/new.png").write_bytes(picture(9))
    assert "Read-only file system" in auravae("encode", "p", *STORE).err


@pytest.fixture
def locked(work, monkeypatch):
    """A folder of which a part cannot be listed."""
    write_folder(work / "p", {"a.png": picture(1), "lost+found/b.png": picture(2)})
    genuine = os.scandir

    def scandir(path="."):
        if "lost+found" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return genuine(path)

    return lambda: monkeypatch.setattr(os, "scandir", scandir)


def test_a_folder_that_cannot_be_listed_costs_itself(auravae, work, locked):
    assert auravae("encode", "p/lost+found", *STORE).code == 0
    locked()
    result = auravae("encode", "p", *STORE)
    assert result.code == 1
    assert "failed: p/lost+found: cannot be listed: Permission denied" in result.err
    assert sorted(rows(Path("store"))) == ["a", "b"]
    result = auravae("encode", "p", *STORE, "--prune")
    assert result.code == 1 and "nothing is pruned as long as sources" in result.err
    assert sorted(rows(Path("store"))) == ["a", "b"]


def test_runs_side_by_side_do_not_mix_settings(auravae, work, monkeypatch):
    write_folder(work / "p", {"a.png": picture(1), "b.png": picture(2)})
    genuine = encoding.FileEncoder.finish

    def finish(self, batch):
        monkeypatch.setattr(encoding.FileEncoder, "finish", genuine)
        others.append(auravae("encode", "p", "-o", "x", "--resize", "8"))
        others.append(auravae("encode", "p/a.png", "-o", "x", "--resize", "8"))  # alone, and faster
        return genuine(self, batch)

    others = []
    monkeypatch.setattr(encoding.FileEncoder, "finish", finish)
    result = auravae("encode", "p", "-o", "x")
    assert others[0].code == 1 and "another run writes there with other settings" in others[0].err
    assert others[1].code == 0
    assert result.code == 1
    assert "x/a.safetensors exists already and is not the result of this input" in result.err
    assert sorted(path.name for path in Path("x").iterdir()) == ["a.safetensors", "b.safetensors"]


def test_equal_runs_side_by_side_are_no_failures(auravae, work, monkeypatch):
    write_folder(work / "p", {"a.png": picture(1), "b.png": picture(2)})
    genuine = encoding.FileEncoder.finish

    def finish(self, batch):
        monkeypatch.setattr(encoding.FileEncoder, "finish", genuine)
        assert auravae("encode", "p", "-o", "x").code == 0
        return genuine(self, batch)

    monkeypatch.setattr(encoding.FileEncoder, "finish", finish)
    assert auravae("encode", "p", "-o", "x").code == 0


def test_loose_latents_have_the_settings_of_stores(auravae, work, repository):
    """What last bits depend on counts as it does for a store; a checkpoint's name does not."""
    (work / "a.png").write_bytes(picture(1))
    weights = (repository / "auravae_cli/weights/linear.safetensors").read_bytes()
    (work / "mine.safetensors").write_bytes(weights)
    assert auravae("encode", "a.png", "-o", "x").code == 0
    assert "up to date" in auravae("encode", "a.png", "-o", "x", "-m", "mine.safetensors").text
    result = auravae("encode", "a.png", "-o", "x", "--symmetrize", "canonical")
    assert result.code == 1 and "is not the result of this input with these settings" in result.err
