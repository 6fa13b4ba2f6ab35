"""Pipes and devices in the places of files: nothing waits for them, and nothing replaces them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from auravae_cli import LatentDataset
from auravae_cli.errors import StoreError
from auravae_cli.files.storage import open_storage
from auravae_cli.operations.watch import Watcher
from auravae_cli.store.certificate import CERTIFICATE_FILE
from tests.cli.datasets import picture, pictures, write_folder, write_tar

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")

VICTIM = "a.2x3.safetensors"


@pytest.fixture(autouse=True)
def in_time():
    """Whoever opens a pipe that nobody writes to would wait for ever."""

    def late(*_):
        raise TimeoutError("it waits for a pipe")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def pipe(path):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


READERS = {
    "flip": ["flip", "STORE", "-H", "-o", "out"],
    "decode": ["decode", "STORE", "--any-model", "-m", "linear", "-o", "out"],
    "export": ["export", "STORE", "--to", "npz", "-o", "out"],
    "info": ["info", "STORE"],
    "show": ["show", "STORE", "--index", "0"],
    "verify": ["verify", "STORE"],
    "verify quick": ["verify", "STORE", "--quick"],
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "device", "folder"])
def test_a_manifest_names_regular_files_only(auravae, work, make_store, command, kind):
    store = make_store()
    (store / VICTIM).unlink()
    if kind == "pipe":
        pipe(store / VICTIM)
    elif kind == "folder":
        (store / VICTIM).mkdir()
    else:
        target = pipe("pipe").resolve() if "pipe" in kind else "/dev/zero"
        (store / VICTIM).symlink_to(target)
    arguments = [str(store) if part == "STORE" else part for part in READERS[command]]
    result = auravae(*arguments)
    assert result.code == 1
    assert VICTIM in result.message
    assert "no file, but" in result.message or "missing" in result.message
    with pytest.raises(StoreError, match="missing"):
        LatentDataset(store)


FILES = ["store.json", "a.manifest.json", "b.failures.jsonl", CERTIFICATE_FILE]


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("name", FILES)
def test_what_a_store_says_is_in_regular_files(auravae, work, make_store, command, name):
    store = make_store()
    pipe(store / name)
    arguments = [str(store) if part == "STORE" else part for part in READERS[command]]
    result = auravae(*arguments)
    assert "Traceback" not in result.err
    if name == "store.json":  # else it is a folder of shards
        assert result.code == 1 or not command.startswith("verify")
    if command.startswith("verify") and name == FILES[2]:
        assert "no file, but a folder, pipe or device" in result.message


@pytest.mark.parametrize("name", FILES)
def test_a_store_with_a_pipe_is_not_gone_on_with_in_silence(auravae, work, name):
    write_tar(work / "in" / "a.tar", pictures(2))
    command = ["encode", "in", "--layout", "shards", "-o", "store"]
    assert auravae(*command).code == 0
    pipe(work / "store" / name)
    result = auravae(*command)
    assert (result.code == 1) == (name == "store.json")
    assert result.code == 0 or "no file, but a folder, pipe or device" in result.message


@pytest.mark.parametrize("odd", ["photo.jpg", "b.txt", "b.tar", "sub/photo.png"])
@pytest.mark.parametrize("layout", [[], ["--layout", "shards"]])
def test_sources_are_regular_files(auravae, work, odd, layout):
    write_folder(work / "in", {"a.png": picture(1), "b.png": picture(2)})
    pipe(work / "in" / odd)
    Path("in/zero.png").symlink_to("/dev/zero")
    assert auravae("encode", "in", "-o", "out", *layout).code == 0
    assert auravae("eval", "in", "-o", "eval").code == 0
    watcher = Watcher(["in"], frozenset([".png", ".jpg"]), frozenset())
    watcher.look()
    assert {source.path.name for source in watcher.look()} == {"a.png", "b.png"}


@pytest.mark.parametrize("name", ["dataset.json", "sub/x.npy"])
def test_files_of_others_are_regular_files(auravae, work, name):
    write_folder(work, {"a.png": picture(1, 16, 16)})
    assert auravae("encode", "a.png").code == 0
    assert auravae("export", "a.safetensors", "--to", "edm2", "-o", "in").code == 0
    pipe(work / "in" / name)
    result = auravae("import", "in", "--from", "edm2", "--assume-model", "linear", "-o", "out")
    assert (result.code == 1) == (name == "dataset.json")
    assert result.code == 0 or "no file, but a folder, pipe or device" in result.message


RESULTS = {
    "encode": (["encode", "a.png"], "a.safetensors"),
    "decode": (["decode", "z.safetensors"], "z.png"),
    "flip": (["flip", "z.safetensors", "-H"], "z.safetensors"),
    "roundtrip": (["roundtrip", "a.png", "--flip", "h"], "a.png"),
    "sheet": (["roundtrip", "a.png", "--flip", "h"], "a.sheet.png"),
    "export": (["export", "z.safetensors", "--to", "npz"], "z.npz"),
    "import": (["import", "z.npy", "--from", "npy", "--assume-model", "linear"], "z.safetensors"),
    "eval": (["eval", "a.png"], "summary.json"),
}


@pytest.mark.parametrize("command", RESULTS)
@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_result_replaces_what_is_no_file(auravae, work, latent, command, overwrite):
    write_folder(work, {"a.png": picture(1)})
    assert auravae("export", latent, "--to", "npy", "-o", ".").code == 0
    arguments, name = RESULTS[command]
    place = pipe(work / "out" / name)
    result = auravae(*arguments, "-o", "out", *overwrite)
    assert result.code == 1
    assert "no file, but a pipe or device" in result.message
    assert place.is_fifo()


def test_a_storage_opens_regular_files_only(work):
    pipe("pipe")
    Path("folder").mkdir()
    storage = open_storage(".")
    for name in ("pipe", "folder"):
        for use in (storage.read, storage.open, storage.map):
            with pytest.raises(StoreError, match=f"{name}: no file, but a folder, pipe or device"):
                use(name)
