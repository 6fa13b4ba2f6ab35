"""encode: samples, options, and what stands in the latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auravae_cli import load_codec, read_latents
from auravae_cli.latents.dtypes import STORED_DTYPES

SIZES = {  # upright (height, width), as samples/SOURCES.md states them
    "astronaut.jpg": (384, 384),
    "camera_grey.png": (208, 208),
    "chelsea_exif6.jpg": (300, 240),
    "coffee.jpg": (267, 399),
    "coffee_alpha.png": (128, 160),
    "hubble_16bit_rgb.png": (120, 120),
    "retina_16bit.png": (144, 144),
    "rocket.webp": (320, 480),
}


def test_every_sample_is_covered(samples):
    assert sorted(SIZES) == sorted(p.name for p in samples.iterdir() if p.suffix != ".md")


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_samples_come_back_in_their_exact_size(auravae, work, samples, pixels, name, size):
    encoded = auravae("encode", samples / name, "-o", "z.safetensors", "--json")
    assert encoded.code == 0
    assert encoded.row["details"]["image_size"] == list(size)
    assert auravae("decode", "z.safetensors", "-o", "back.png").code == 0
    assert pixels("back.png").shape == (*size, 3)


def test_exif_orientation_is_applied_and_recorded(auravae, work, samples, pixels):
    auravae("encode", samples / "chelsea_exif6.jpg", "-o", "z.safetensors")
    assert read_latents(Path("z.safetensors")).records[0].exif_orientation == 6
    auravae("decode", "z.safetensors", "-o", "back.png")
    with Image.open(samples / "chelsea_exif6.jpg") as image:
        stored = np.asarray(image).astype(float)
    upright = np.rot90(stored, -1)
    back = pixels("back.png").astype(float)
    assert np.abs(back - upright).mean() < 12
    assert np.abs(back - upright[::-1, ::-1]).mean() > 25  # the other way up is far off


def test_alpha_is_composited_with_a_notice(auravae, work, samples, pixels):
    on_white = auravae("encode", samples / "coffee_alpha.png", "-o", "w.safetensors")
    on_red = auravae(
        "encode", samples / "coffee_alpha.png", "-o", "r.safetensors", "--background", "#ff0000"
    )
    assert (on_white.code, on_red.code) == (0, 0)
    assert "alpha composited on white" in on_white.err
    assert "alpha composited on #ff0000" in on_red.err
    auravae("decode", "w.safetensors", "r.safetensors")
    with Image.open(samples / "coffee_alpha.png") as image:
        clear = np.asarray(image)[..., 3] == 0
    assert np.abs(pixels("w.decoded.png")[clear].mean(axis=0) - 255).max() < 3
    assert np.abs(pixels("r.decoded.png")[clear].mean(axis=0) - [255, 0, 0]).max() < 6


def test_an_opaque_picture_has_no_notice(auravae, work, samples):
    assert auravae("encode", samples / "coffee.jpg", "-o", "z.safetensors").err == ""


@pytest.mark.parametrize("store", ["float16", "bfloat16", "float32"])
def test_stored_dtypes(auravae, work, picture, pixels, store):
    picture("a.png")
    assert auravae("encode", "a.png", "--latent-dtype", store).code == 0
    assert auravae("info", "a.safetensors", "--json").row["dtype"] == store
    assert auravae("decode", "a.safetensors").code == 0
    codec = load_codec("linear")
    exact = codec.decode_latent(codec.encode_image("a.png", dtype=STORED_DTYPES["float32"]))
    error = np.abs(pixels("a.decoded.png").astype(int) - exact)
    assert error.max() <= {"float32": 0, "float16": 1, "bfloat16": 4}[store]


def test_crop_resize_and_center_crop_are_applied_in_this_order(auravae, work, picture, pixels):
    picture("a.png", 60, 80)
    options = ["--crop", "10,4,40,20", "--resize", "30", "--center-crop", "50x25"]
    row = auravae("encode", "a.png", *options, "--json").row
    assert row["details"]["image_size"] == [25, 50]
    assert row["details"]["latent_shape"] == [16, 4, 7]
    assert auravae("info", "a.safetensors", "--json").row["preparation"] == {
        "crop": [10, 4, 40, 20],
        "resize": 30,
        "center_crop": [25, 50],
        "pad": "edge",
        "background": "white",
    }


def test_crop_takes_the_very_pixels(auravae, work, picture, pixels):
    picture("a.png", 40, 48)
    auravae("encode", "a.png", "--crop", "8,16,24,16", "-o", "crop.safetensors")
    Image.fromarray(pixels("a.png")[16:32, 8:32]).save("cut.png")
    auravae("encode", "cut.png")
    assert np.array_equal(
        read_latents(Path("crop.safetensors")).values, read_latents(Path("cut.safetensors")).values
    )


def test_one_number_is_a_square_center_crop(auravae, work, picture):
    picture("a.png", 40, 48)
    row = auravae("encode", "a.png", "--center-crop", "32", "--json").row
    assert row["details"]["image_size"] == [32, 32]


def test_pad_modes_differ_only_in_the_padding(auravae, work, picture):
    picture("odd.png", 21, 30)
    picture("even.png", 24, 32)
    for name, equal in (("odd", False), ("even", True)):
        for pad in ("edge", "reflect"):
            auravae("encode", f"{name}.png", "--pad", pad, "-o", f"{pad}.safetensors")
        edge, reflect = (read_latents(Path(f"{p}.safetensors")).values for p in ("edge", "reflect"))
        assert np.array_equal(edge, reflect) == equal
        Path("edge.safetensors").unlink()
        Path("reflect.safetensors").unlink()


@pytest.mark.parametrize(
    "option",
    [
        ("--crop", "1,2,3"),
        ("--crop", "0,0,0,8"),
        ("--crop", "-1,0,8,8"),
        ("--center-crop", "0"),
        ("--center-crop", "8x"),
        ("--center-crop", "axb"),
        ("--resize", "0"),
        ("--resize", "3000000000"),
        ("--resize", "many"),
        ("--pad", "zero"),
        ("--latent-dtype", "float8"),
        ("--background", "no-colour"),
        ("--batch-size", "0"),
        ("--max-pixels", "0"),
        ("--dtype", "int8"),
    ],
)
def test_malformed_options_are_wrong_usage(auravae, work, picture, tree, option):
    picture("a.png")
    result = auravae("encode", "a.png", *option)
    assert result.code == 2
    assert option[0] in result.message
    assert list(tree(work)) == ["a.png"]


def test_a_crop_beyond_the_picture_fails_that_picture(auravae, work, picture):
    picture("small.png", 16, 16)
    picture("large.png", 64, 64)
    result = auravae("encode", "small.png", "large.png", "--crop", "0,0,32,32")
    assert result.code == 1
    assert "failed: small.png: a crop of 32 x 32" in result.err
    assert Path("large.safetensors").exists()


def test_batches_give_the_same_bytes(auravae, work, picture, tree):
    for number in range(7):
        picture(f"in/{number}.png", 21 if number % 2 else 40, 30, shift=10 * number)
    for size in (1, 3):
        result = auravae("encode", "in", "-o", f"by{size}", "--batch-size", size)
        assert result.code == 0
        assert "7 done" in result.err
        assert auravae("decode", f"by{size}", "-o", f"out{size}", "--batch-size", size).code == 0
    assert len(tree(work / "by1")) == len(tree(work / "out1")) == 7
    assert tree(work / "by1") == tree(work / "by3")
    assert tree(work / "out1") == tree(work / "out3")


def test_the_same_picture_gives_the_same_bytes(auravae, work, picture):
    data = picture("a.png").read_bytes()
    assert auravae("encode", "-", stdin=data).out == auravae("encode", "-", stdin=data).out


def test_a_checkpoint_by_path(auravae, work, picture, repository):
    picture("a.png")
    weights = repository / "auravae_cli" / "weights" / "linear.safetensors"
    Path("mine.bin").write_bytes(weights.read_bytes())
    assert auravae("encode", "a.png", "--model", "mine.bin").code == 0
    unnamed = auravae("decode", "a.safetensors")
    assert unnamed.code == 1
    assert "'mine'" in unnamed.err and "--model" in unnamed.err
    assert auravae("decode", "a.safetensors", "--model", "mine.bin").code == 0
    # the weights are the same, so their name does not matter
    assert auravae("decode", "a.safetensors", "--model", "linear", "-o", "b.png").code == 0
    assert Path("b.png").read_bytes() != b""


@pytest.mark.parametrize("model", ["aura", "no-such-model"])
def test_an_unusable_model_is_exit_3(auravae, work, picture, tree, model):
    picture("a.png")
    result = auravae("encode", "a.png", "--model", model)
    assert result.code == 3
    assert result.err.startswith("error: ") and model in result.err
    assert list(tree(work)) == ["a.png"]


@pytest.mark.parametrize("text", ["G", "4X", "-1G", "0", "0.1"])
def test_a_malformed_memory_is_wrong_usage(auravae, work, picture, text):
    picture("a.png")
    result = auravae("encode", "a.png", "--memory", text)
    assert result.code == 2
    assert "expected a size such as 4G" in result.message


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("2k", 2048),
        ("1.5M", 3 << 19),
        ("4G", 4 << 30),
        ("1 GiB", 1 << 30),
        ("1tb", 1 << 40),
    ],
)
def test_sizes_are_read_as_people_write_them(text, size):
    from auravae_cli.cli.shared.numbers import parse_bytes

    assert parse_bytes(text, "--memory") == size
