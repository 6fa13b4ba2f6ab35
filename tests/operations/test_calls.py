"""What the calls refuse, and that they take what is loaded already."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import auravae_cli as auravae
from auravae_cli import EvaluationFiles, H, UsageError


@pytest.fixture
def photo(tmp_path, monkeypatch):
    """A small picture in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)).save("a.png")
    return "a.png"


@pytest.fixture(scope="module")
def codec():
    """The model that needs no torch."""
    return auravae.load_codec("linear")


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda codec: auravae.encode_files([], model=codec), None),
        (lambda codec: auravae.encode_files("a.png", model=codec, device="cpu"), "model"),
        (lambda codec: auravae.encode_files("a.png", "s3://bucket/x", model=codec), "output"),
        (lambda codec: auravae.decode_files("a.png", model=codec, bits=12), "bits"),
        (lambda codec: auravae.decode_files("s3://bucket/x", model=codec), "output"),
        (lambda codec: auravae.flip_files("a.png", auravae.E), "by"),
        (lambda codec: auravae.encode_store("a.png", "-", model=codec), "output"),
        (lambda codec: auravae.encode_store("a.png", "a.png", model=codec), "output"),
        (lambda codec: auravae.encode_store("-", "store", model=codec), None),
        (lambda codec: auravae.encode_store("nothing*", "store", model=codec), None),
        (lambda codec: auravae.encode_store("a.png", "s", model=codec, on_ray=True), "model"),
        (lambda codec: auravae.flip_store(".", "./inside", H), "output"),
        (lambda codec: auravae.export_latents(".", "out", "nonsense"), None),
        (lambda codec: auravae.export_latents(".", "s3://bucket/x", "npy"), "output"),
        (lambda codec: auravae.export_latents(".", "out", "npy", arch="flux"), "arch"),
        (lambda codec: auravae.import_files(".", "out", "npy"), None),
        (lambda codec: auravae.watch_folders("nothing", stop=threading.Event()), "watch"),
        (lambda codec: auravae.evaluate("nothing*", [codec]), None),
        (
            lambda codec: auravae.evaluate(
                "a.png", [codec], symmetrized=True, files=EvaluationFiles(certificate=Path("c"))
            ),
            "certificate",
        ),
    ],
)
def test_contradictions_name_the_argument(photo, codec, call, argument):
    with pytest.raises(UsageError) as raised:
        call(codec)
    assert raised.value.argument == argument
    assert isinstance(raised.value, ValueError)


def test_watching_tells_what_it_made_and_ends_when_it_is_told_to(photo, codec):
    stop, told = threading.Event(), []

    def progress(outcome, done, total):
        told.append((outcome.output, done, total))
        stop.set()

    started = []
    Path("in").mkdir()
    Path(photo).rename("in/a.png")
    auravae.watch_folders(
        "in",
        "out",
        stop=stop,
        interval=0.01,
        model=codec,
        started=started.append,
        progress=progress,
    )
    assert told == [(str(Path("out", "a.safetensors")), 1, 1)]
    assert started == [codec]


def test_a_part_of_the_work_is_every_nth_job(photo, codec):
    for name in "bcd":
        Path(f"{name}.png").write_bytes(Path(photo).read_bytes())
    parts = [auravae.encode_files(".", "out", model=codec, part=(i, 3)) for i in range(3)]
    assert [[outcome.source for outcome in part] for part in parts] == [
        ["a.png", "d.png"],
        ["b.png"],
        ["c.png"],
    ]
    assert [part[0].status for part in parts] == ["done"] * 3


def test_a_file_url_names_the_same_place_in_every_call(photo, codec, tmp_path):
    here = tmp_path.as_uri()
    auravae.encode_files(f"{here}/a.png", f"{here}/z.safetensors", model=codec)
    auravae.encode_store("a.png", f"{here}/store", model=codec)
    auravae.export_latents(f"{here}/z.safetensors", f"{here}/npy", "npy", flipped=False)
    auravae.import_files(f"{here}/npy", f"{here}/back", "npy", assume_model="linear")
    auravae.flip_store(f"{here}/store", f"{here}/flipped", H)
    auravae.roundtrip_files("a.png", f"{here}/two", model=codec)
    with pytest.raises(UsageError, match="the store itself"):
        auravae.flip_store(f"{here}/store", f"{here}/store/inside", H)
    made = {path.name for path in tmp_path.iterdir()}
    assert made >= {"z.safetensors", "store", "npy", "back", "flipped", "two"}
    assert "file:" not in made
