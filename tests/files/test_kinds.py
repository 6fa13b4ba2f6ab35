"""Files are recognised by their first bytes, whatever they are called."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from auravae_cli.files.kinds import kind_of, kind_of_file
from auravae_cli.model.spec.registry import WEIGHTS_PATH, model_files


@pytest.mark.parametrize(
    ("form", "name"),
    [
        *((form, f"a {form}") for form in ("JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP")),
        ("AVIF", "an AVIF"),
        ("JPEG2000", "a JPEG 2000"),
        ("PPM", "a PNM"),
    ],
)
def test_pictures(form, name):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    found = kind_of(buffer.getvalue())
    assert found is not None and found.is_picture
    assert str(found) == f"{name} picture: `auravae encode` makes a latent of it"


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b'{"a":1,"format":"auravae-store"}', "name the store's folder instead"),
        (b'{"failures":0, "format": "auravae-shard"}', "name the store's folder instead"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "`git lfs pull`"),
        (b"  <!DOCTYPE html>", "download the file again"),
        (b"PK\x03\x04" + bytes(26) + b"readme.txt", "unpack it first"),
        (b"\x10\0\0\0\0\0\0\0{" + b'"decoder.weight":{}', "weights of a model go to --model"),
    ],
)
def test_what_is_neither_picture_nor_latent(start, said):
    assert said in str(kind_of(start))


def test_weights_of_our_models_are_no_latents():
    for file in WEIGHTS_PATH.glob("*.safetensors"):
        if file.stem in model_files():
            assert str(kind_of_file(file)) == "the weights of a model: name the file with --model"


def test_the_unknown_is_not_named(tmp_path):
    assert kind_of(b"") is kind_of(b"just a text") is kind_of(bytes(100)) is None
    assert kind_of_file(tmp_path) is kind_of_file(tmp_path / "missing") is None
