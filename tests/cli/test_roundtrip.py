"""roundtrip: quality, contact sheets, and what it may replace."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PSNR_FLOOR = {  # dB; measured for the linear model, less a little
    "astronaut.jpg": 25.3,
    "camera_grey.png": 25.5,
    "chelsea_exif6.jpg": 29.1,
    "coffee.jpg": 25.6,
    "coffee_alpha.png": 24.9,
    "hubble_16bit_rgb.png": 24.3,
    "retina_16bit.png": 30.2,
    "rocket.webp": 29.4,
}


@pytest.mark.parametrize(("name", "floor"), PSNR_FLOOR.items())
def test_quality_of_samples(auravae, work, samples, name, floor):
    result = auravae("roundtrip", samples / name, "-o", "out.png", "--json")
    details = result.row["details"]
    assert result.code == 0
    assert floor < details["psnr"] < floor + 1
    assert 0.6 < details["ssim"] < 1
    assert set(details["seconds"]) == {"read", "encode", "decode", "write"}


def test_every_sample_has_a_floor(samples):
    assert sorted(PSNR_FLOOR) == sorted(p.name for p in samples.iterdir() if p.suffix != ".md")


def test_it_equals_encode_then_decode(auravae, work, samples, pixels):
    auravae("roundtrip", samples / "coffee.jpg", "-o", "out.png", "--latent-dtype", "bfloat16")
    auravae("encode", samples / "coffee.jpg", "-o", "z.safetensors", "--latent-dtype", "bfloat16")
    auravae("decode", "z.safetensors")
    assert np.array_equal(pixels("out.png"), pixels("z.decoded.png"))


@pytest.mark.parametrize(("flip", "elements"), [("h", ["h"]), ("all", ["h", "v", "hv"])])
def test_flips_give_numbers_and_a_sheet(auravae, work, picture, pixels, flip, elements):
    picture("a.png", 43, 61)
    row = auravae("roundtrip", "a.png", "--flip", flip, "--json").row
    assert (row["output"], row["details"]["sheet"]) == ("a.roundtrip.png", "a.sheet.png")
    assert list(row["details"]["flips"]) == elements
    for numbers in row["details"]["flips"].values():  # the linear model is exactly equivariant
        assert numbers["psnr"] == pytest.approx(row["details"]["psnr"], abs=0.01)
    assert pixels("a.roundtrip.png").shape == (43, 61, 3)
    height, width, _ = pixels("a.sheet.png").shape
    assert height * width >= 43 * 61 * (3 + len(elements))


def test_the_text_names_the_numbers(auravae, work, picture):
    picture("a.png")
    text = auravae("roundtrip", "a.png", "--flip", "v").text
    for part in ("a.png -> a.roundtrip.png", "a.sheet.png", "PSNR", "SSIM", "flipped by v"):
        assert part in text


def test_without_flip_there_is_no_sheet(auravae, work, picture, tree):
    picture("a.png")
    assert auravae("roundtrip", "a.png").code == 0
    assert sorted(tree(work)) == ["a.png", "a.roundtrip.png"]


def test_noise_costs_quality(auravae, work, samples):
    def psnr(noise):
        options = ["-o", f"{noise}.png", "--noise", noise, "--seed", "3", "--json"]
        return auravae("roundtrip", samples / "coffee.jpg", *options).row["details"]["psnr"]

    assert psnr(0) > psnr(0.1) + 0.1 > psnr(0.5) + 1


def test_a_stream_goes_to_a_stream(auravae, work, samples):
    data = (samples / "chelsea_exif6.jpg").read_bytes()
    result = auravae("roundtrip", "-", stdin=data)
    assert result.code == 0
    with Image.open(io.BytesIO(result.out)) as image:
        assert (image.format, image.size) == ("PNG", (240, 300))
    assert "PSNR" in result.err


def test_it_replaces_nothing_unless_asked(auravae, work, picture, tree):
    """Not even a round trip's own pictures: they may be another's, and hold what is wanted."""
    picture("a.png")
    command = ("roundtrip", "a.png", "--flip", "h")
    assert auravae(*command).code == 0
    first = tree(work)
    for name in ("a.roundtrip.png", "a.sheet.png"):
        picture(name, 8, 8)
        before = tree(work)
        result = auravae(*command)
        assert result.code == 1
        assert name in result.err and "--overwrite" in result.err
        assert tree(work) == before
        assert auravae(*command, "--overwrite").code == 0
        assert tree(work) == first


def test_another_pictures_round_trip_is_kept(auravae, work, picture, tree):
    picture("a.png")
    picture("b.png", shift=9)
    assert auravae("roundtrip", "a.png", "-o", "rr.png").code == 0
    first = tree(work)
    for source, *options in (["b.png"], ["a.png", "--noise", "0.3"], ["b.png", "--flip", "h"]):
        result = auravae("roundtrip", source, "-o", "rr.png", *options)
        assert (result.code, "--overwrite" in result.err) == (1, True)
        assert tree(work) == first  # nor is there a sheet of it
    assert auravae("roundtrip", "b.png", "-o", "rr.png", "--overwrite").code == 0
    assert tree(work) != first


def test_a_sheet_of_other_flips_is_kept_with_its_picture(auravae, work, picture, tree):
    picture("a.png")
    assert auravae("roundtrip", "a.png", "--flip", "h").code == 0
    first = tree(work)
    result = auravae("roundtrip", "a.png", "--flip", "v")
    assert (result.code, "a.sheet.png" in result.err) == (1, True)
    assert tree(work) == first


def test_the_same_again_gives_the_numbers_and_leaves_the_files(auravae, work, picture):
    picture("a.png")
    command = ("roundtrip", "a.png", "--flip", "h", "--json")
    first = auravae(*command).row
    times = {path: path.stat().st_mtime_ns for path in work.iterdir()}
    again = auravae(*command)
    assert (again.code, again.row["details"]["psnr"]) == (0, first["details"]["psnr"])
    assert {path: path.stat().st_mtime_ns for path in work.iterdir()} == times


@pytest.mark.parametrize(("name", "output"), [("a.png", "a.png"), ("a.sheet.png", "a.png")])
def test_the_picture_itself_is_never_overwritten(auravae, work, picture, name, output):
    before = picture(name).read_bytes()
    result = auravae("roundtrip", name, "-o", output, "--flip", "h", "--overwrite")
    assert result.code == 1
    assert name in result.err
    assert Path(name).read_bytes() == before


def test_options_of_preparation(auravae, work, picture, pixels):
    picture("a.png", 60, 80)
    assert auravae("roundtrip", "a.png", "--resize", "30", "--pad", "reflect").code == 0
    assert pixels("a.roundtrip.png").shape == (30, 40, 3)


def test_one_bad_picture_does_not_stop_the_others(auravae, work, picture):
    picture("a.png")
    picture("c.png")
    Path("b.png").write_text("no picture")
    result = auravae("roundtrip", "a.png", "b.png", "c.png")
    assert result.code == 1
    assert "failed: b.png: not a picture" in result.err
    assert Path("a.roundtrip.png").exists() and Path("c.roundtrip.png").exists()


def test_a_folder_ends_with_the_mean_and_the_worst(auravae, work, picture):
    for number in range(3):
        picture(f"photos/{number}.png", 24, 32, 40 * number)
    rows = auravae("roundtrip", "photos", "-o", "json", "--json").rows
    psnr = [row["details"]["psnr"] for row in rows]
    lines = auravae("roundtrip", "photos", "-o", "out").text.splitlines()
    assert lines[-2].split() == [
        *("model", "pictures", "PSNR", "dB", "worst", "SSIM", "worst", "worst", "picture")
    ]
    model, number, mean, worst, *_, name = lines[-1].split()
    assert (model, number) == ("linear", "3")
    assert (mean, worst) == (f"{sum(psnr) / 3:.2f}", f"{min(psnr):.2f}")
    assert name == f"photos/{psnr.index(min(psnr))}.png"
    assert "worst" not in auravae("roundtrip", "photos/0.png", "-o", "one.png").text


def test_models_are_compared(auravae, work, picture, repository, tree):
    shutil.copy(repository / "auravae_cli" / "weights" / "linear.safetensors", "other.safetensors")
    for number in range(2):
        picture(f"photos/{number}.png", 24, 32, 40 * number)
    command = ["roundtrip", "photos", "-o", "out", "-m", "linear", "-m", "other.safetensors"]
    result = auravae(*command)
    assert result.code == 0
    lines = result.text.splitlines()[-2:]
    assert [line.split()[:2] for line in lines] == [["linear", "2"], ["other", "2"]]
    assert sorted(tree(Path("out"))) == [
        *(f"{model}/{number}.png" for model in ("linear", "other") for number in range(2))
    ]
    planned = auravae(*command, "--dry-run", "--json").rows
    assert [row["output"] for row in planned] == [
        f"out/{m}/{n}.png" for m in ("linear", "other") for n in (0, 1)
    ]
    for wrong in (["-m", "linear"], []):
        places = ["-o", "out"] if wrong else []
        result = auravae(
            "roundtrip", "photos", *places, "-m", "linear", *(wrong or ["-m", "other.safetensors"])
        )
        assert result.code == 2 and "name a folder for these, and no model twice" in result.message
