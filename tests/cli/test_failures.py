"""One bad input fails alone, with its name and the reason; nothing half-written stays behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

LONG = "n" * 300


@pytest.fixture
def bad_inputs(work, picture, samples):
    """Inputs that cannot be encoded, and a part of the reason that each must give."""
    photo = (samples / "coffee.jpg").read_bytes()
    Path("cut.jpg").write_bytes(photo[:9000])
    Path("text.jpg").write_text("This is a text.\n")
    Path("empty.jpg").write_bytes(b"")
    Path("zeros.png").write_bytes(bytes(4096))
    picture("big.png", 400, 300)
    Path("dangling.jpg").symlink_to("nowhere.jpg")
    return {
        "cut.jpg": "damaged picture",
        "text.jpg": "not a picture",
        "empty.jpg": "empty",
        "zeros.png": "not a picture",
        "big.png": "--max-pixels",
        "dangling.jpg": "No such file",
        "missing.jpg": "No such file",
        f"{LONG}.jpg": "name too long",
        "bad.jpg/x.jpg": "",
    }


def test_bad_pictures_do_not_stop_a_batch(auravae, work, picture, tree, bad_inputs):
    Path("bad.jpg").mkdir()
    picture("first.png")
    picture("last.png")
    names = ["first.png", *bad_inputs, "last.png"]
    result = auravae("encode", *names, "--max-pixels", "110000", "--batch-size", "2", "-o", "out")
    assert result.code == 1
    for name, reason in bad_inputs.items():
        (line,) = [x for x in result.err.splitlines() if x.startswith(f"failed: {name}: ")]
        assert reason.lower() in line.lower()
    assert sorted(tree(work / "out")) == ["first.safetensors", "last.safetensors"]
    assert result.text.splitlines() == [
        "first.png -> out/first.safetensors",
        "last.png -> out/last.safetensors",
    ]
    assert f"2 done, {len(bad_inputs)} failed" in result.err


@pytest.mark.parametrize("limit", [50_000, 20_000])  # Pillow speaks beyond twice the limit
def test_too_many_pixels_names_the_option(auravae, work, picture, limit):
    picture("big.png", 200, 300)
    result = auravae("encode", "big.png", "--max-pixels", limit)
    assert result.code == 1
    assert f"more than the limit of {limit}" in result.err and "--max-pixels" in result.err


def test_as_many_pixels_as_allowed(auravae, work, picture):
    picture("big.png", 200, 300)
    assert auravae("encode", "big.png", "--max-pixels", 60_000).code == 0


def test_a_folder_named_like_a_picture(auravae, work, picture, tree):
    Path("in/x.jpg").mkdir(parents=True)
    picture("in/a.png")
    assert auravae("encode", "in", "in/x.jpg", "-o", "out").code == 0
    assert list(tree(work / "out")) == ["a.safetensors"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(auravae, work, picture):
    picture("a.png").chmod(0)
    picture("b.png")
    result = auravae("encode", "a.png", "b.png")
    assert result.code == 1
    assert "failed: a.png: cannot be read: Permission denied" in result.err
    assert Path("b.safetensors").exists()


@pytest.mark.parametrize("command", [["decode"], ["flip", "-H"]])
def test_bad_latents_do_not_stop_a_batch(auravae, latent, work, tree, command):
    data = latent.read_bytes()
    Path("cut.safetensors").write_bytes(data[:-100])
    Path("more.safetensors").write_bytes(data + b"\0\0")
    Path("text.safetensors").write_text("This is a text.\n")
    Path("empty.safetensors").write_bytes(b"")
    bad = {
        "cut.safetensors": "cut off",
        "more.safetensors": "2 bytes follow",
        "text.safetensors": "not a safetensors file",
        "empty.safetensors": "empty",
        "missing.safetensors": "No such file",
    }
    result = auravae(*command, *bad, latent, "-o", "out")
    assert result.code == 1
    for name, reason in bad.items():
        (line,) = [x for x in result.err.splitlines() if x.startswith(f"failed: {name}: ")]
        assert reason in line
    assert len(tree(work / "out")) == 1


@pytest.mark.parametrize("command", ["encode", "decode", "flip", "roundtrip"])
@pytest.mark.parametrize("place", ["below a file", "a name too long", "a folder"])
def test_places_that_cannot_be_written(auravae, latent, work, picture, tree, command, place):
    picture("a.png")
    suffix = ".safetensors" if command in ("encode", "flip") else ".png"
    source = "a.png" if command in ("encode", "roundtrip") else latent
    output = {
        "below a file": "a.png/out",
        "a name too long": f"out/{LONG}{suffix}",
        "a folder": "out",
    }[place]
    if place == "a folder":
        Path("out", Path(source).stem + suffix).mkdir(parents=True)
    before = tree(work)
    for extra in ([], ["--overwrite"]):
        options = ["-H"] if command == "flip" else []
        result = auravae(command, source, *options, "-o", output, *extra)
        assert result.code == 1
        assert f"failed: {source}: " in result.err
        assert result.out == b""
    assert tree(work) == before


def test_a_result_whose_name_is_too_long(auravae, work, picture, tree):
    name = "n" * 245
    picture(f"{name}.png")
    picture("a.png")
    result = auravae("encode", f"{name}.png", "a.png")
    assert result.code == 1
    assert "File name too long" in result.err
    assert sorted(tree(work)) == ["a.png", "a.safetensors", f"{name}.png"]


def test_a_full_disk_leaves_nothing(auravae, latent, work, tree, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    before = tree(work)
    for command in (["decode"], ["flip", "-H"]):
        result = auravae(*command, latent)
        assert result.code == 1
        assert "No space left on device" in result.err
    assert tree(work) == before


def test_too_little_memory_is_a_failure(auravae, work, picture, monkeypatch):
    picture("a.png")
    picture("b.png", 40, 40)

    def encode(self, images):
        if images.shape[2] == 24:
            raise MemoryError
        return original(self, images)

    from auravae_cli import Codec

    original = Codec.encode_unit
    monkeypatch.setattr(Codec, "encode_unit", encode)
    result = auravae("encode", "a.png", "b.png")
    assert result.code == 1
    assert "failed: a.png: not enough memory" in result.err
    assert Path("b.safetensors").exists()


def test_a_bug_keeps_its_traceback(auravae, work, picture, monkeypatch):
    from auravae_cli import Codec

    def broken(self, images):
        raise ZeroDivisionError("a bug")

    picture("a.png")
    monkeypatch.setattr(Codec, "encode_unit", broken)
    with pytest.raises(ZeroDivisionError):
        auravae("encode", "a.png")
