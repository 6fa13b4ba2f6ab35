"""A latent in hand: an array, a tensor, a picture, a file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import auravae_cli as auravae
from auravae_cli import HV, H, Latent, act, load_codec, read_latents, stack
from auravae_cli.errors import OutputError

PHOTO = Path(__file__).parents[2] / "samples" / "coffee.jpg"


@pytest.fixture(scope="module")
def codec():
    return load_codec("linear")


@pytest.fixture(scope="module", params=["float16", "bfloat16", "float32"])
def latent(request, codec):
    return codec.encode_image(PHOTO, dtype=request.param)


def test_it_tells_what_it_is(latent):
    assert isinstance(latent, Latent)
    assert latent.shape == (16, 34, 50) and str(latent.irreps) == "12xee+2xoe+2xeo"
    first, second = repr(latent.flip("h")).splitlines()
    assert first == f"<Latent [16, 34, 50] {latent.dtype.name}, of a picture of 399 x 267 pixels"
    assert second == f" by model linear, flipped by h, from {PHOTO}>"


def test_flips_by_name(latent):
    for by in ("hv", HV):
        flipped = latent.flip(by)
        assert isinstance(flipped, Latent) and flipped.records[0].orientation == HV
        assert np.array_equal(flipped.values, latent.act(HV).values)
        assert np.array_equal(act(by, latent).values, flipped.values)
    array = act("h", latent.values, "12xee+2xoe+2xeo")
    assert np.array_equal(array, latent.flip("h").values)
    assert np.array_equal(latent.flip("v").flip("v").values, latent.values)
    with pytest.raises(ValueError, match="expected e, h, v or hv"):
        latent.flip("x")
    with pytest.raises(ValueError, match=r"act\(g, latent, irreps\)"):
        act("h", latent.values)


def test_a_file_gives_the_same(latent, tmp_path):
    path = latent.save(tmp_path / "new" / "z.safetensors")
    again = read_latents(path)
    assert repr(again) == repr(latent) and np.array_equal(again.values, latent.values)
    assert again.to_bytes() == path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        latent.save(path)
    latent.flip("h").save(path, overwrite=True)
    assert read_latents(path).records[0].orientation == H


def test_arrays_and_tensors(latent, tmp_path):
    read = read_latents(latent.save(tmp_path / "z.safetensors"))
    for one in (latent, read):  # the file's values are read-only
        array, tensor = np.asarray(one), one.to_torch()
        assert array.dtype.kind == "f" and str(tensor.dtype) == f"torch.{one.dtype.name}"
        assert np.array_equal(array.astype(np.float32), tensor.float().numpy())
        assert torch.equal(torch.from_dlpack(one), tensor)
        tensor += 1  # a copy
    assert np.array_equal(np.asarray(read), np.asarray(latent))
    assert np.asarray(latent, np.float64).dtype == np.float64
    assert np.array_equal(np.asarray(latent, np.float32), latent.to_float32())


def test_previews(latent):
    preview = latent.preview()
    assert preview.size == (399, 267)
    with Image.open(io.BytesIO(latent._repr_png_())) as image:
        assert image.size == (399, 267)
    mirrored = np.asarray(latent.flip("h").preview())
    assert np.array_equal(mirrored, np.asarray(preview)[:, ::-1])
    shard = stack([latent, latent.flip("h")])
    assert isinstance(shard, Latent) and isinstance(shard.row(1), Latent)
    assert "2 pictures" in repr(shard) and shard.preview().width > 800


def test_lists_of_pictures(codec):
    pictures = [np.full((h, w, 3), 9, np.uint8) for h, w in ((16, 24), (8, 8), (16, 24))]
    latents = codec.encode_images(pictures, dtype="float32")
    assert [latent.shape[1:] for latent in latents] == [(2, 3), (1, 1), (2, 3)]
    assert [picture.shape for picture in codec.decode_latents(latents)] == [
        picture.shape for picture in pictures
    ]


def test_pixels_of_another_range_are_refused(codec):
    unit = np.random.default_rng(0).random((2, 3, 8, 16), np.float32)
    for kind in (np.asarray, torch.from_numpy):
        with pytest.raises(ValueError, match=r"in \[0, 1\].*images \* 2 - 1.*check=False"):
            codec.encode(kind(unit))
        with pytest.raises(ValueError, match=r"images / 127.5 - 1"):
            codec.encode(kind(255 * unit))
        assert codec.encode(kind(unit), check=False).shape == (2, 16, 1, 2)
        assert codec.encode(kind(unit * 2.4 - 1.2)).shape == (2, 16, 1, 2)  # resizing overshoots
        assert codec.encode(kind(0 * unit)).shape == (2, 16, 1, 2)  # grey
    with pytest.raises(ValueError, match="int64 pixels"):
        codec.encode(unit.astype(np.int64))


def test_uint8_pixels_are_taken_as_such(codec):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])
    expected = np.asarray(codec.encode_image(pixels, dtype="float32"))
    for found in (codec.encode(planes)[0], codec.encode(torch.from_numpy(planes))[0].numpy()):
        assert np.array_equal(found, expected)


def test_bright_pictures_pass_through_every_other_call(codec, tmp_path):
    bright = np.random.default_rng(0).integers(130, 256, (16, 16, 3), np.uint8)
    Image.fromarray(bright).save(tmp_path / "a.png")
    (outcome,) = auravae.roundtrip_files(str(tmp_path / "a.png"), flips=["h"], model=codec)
    assert outcome.status == "done" and list(outcome.details["flips"]) == ["h"]
    (encoded,) = auravae.encode_files(str(tmp_path / "a.png"), model=codec)
    (flipped,) = auravae.flip_files(encoded.output, "v")
    assert flipped.output == str(tmp_path / "a.v.safetensors")
