"""--symmetrize: a model that knows no flips gets exact ones, says so, and is never mixed in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module")
def tiny(repository):
    """A network with random weights."""
    return repository / "tests" / "golden" / "tiny_weights_bf16.safetensors"


@pytest.fixture
def photo(work, picture):
    """A picture of odd sides, and its mirror image."""
    from PIL import Image

    picture("a.png", 21, 30)
    with Image.open("a.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save("m.png")
    return Path("a.png")


def encode(auravae, tiny, *arguments):
    result = auravae("encode", *arguments, "-m", tiny, "--device", "cpu")
    assert result.code == 0, result.err
    return result


@pytest.mark.parametrize("how", ["mean", "canonical"])
def test_flips_commute_with_encoding_and_decoding(auravae, tiny, photo, pixels, how):
    from auravae_cli.latents.latent_file import read_latents

    encode(auravae, tiny, "a.png", "m.png", "--symmetrize", how)
    assert auravae("flip", "a.safetensors", "-H", "-o", "h.safetensors").code == 0
    flipped, mirrored = (read_latents(Path(f"{name}.safetensors")) for name in "hm")
    assert np.array_equal(flipped.values, mirrored.values)
    for name in "ah":
        options = ["-m", tiny, "--device", "cpu", "--symmetrize", how, "-o", f"{name}.out.png"]
        assert auravae("decode", f"{name}.safetensors", *options).code == 0
    assert np.array_equal(pixels("h.out.png"), pixels("a.out.png")[:, ::-1])


def test_without_it_they_do_not(auravae, tiny, photo):
    from auravae_cli.latents.latent_file import read_latents

    encode(auravae, tiny, "a.png", "m.png", "--symmetrize", "none")
    auravae("flip", "a.safetensors", "-H", "-o", "h.safetensors")
    flipped, mirrored = (read_latents(Path(f"{name}.safetensors")) for name in "hm")
    assert not np.array_equal(flipped.values, mirrored.values)


def test_the_header_says_so_and_flips_keep_it(auravae, work, picture):
    picture("a.png")
    auravae("encode", "a.png", "-o", "plain.safetensors")
    auravae("encode", "a.png", "--symmetrize", "mean")
    auravae("flip", "a.safetensors", "-H", "-o", "h.safetensors")
    assert "symmetrized" not in auravae("info", "plain.safetensors", "--json").row
    for name in ("a", "h"):
        assert auravae("info", f"{name}.safetensors", "--json").row["symmetrized"] is True


def test_what_is_finished_is_so_with_the_same_setting_only(auravae, work, picture):
    picture("a.png")
    assert auravae("encode", "a.png").code == 0
    assert auravae("encode", "a.png", "--symmetrize", "mean").code == 1  # kept: another result
    assert auravae("encode", "a.png", "--symmetrize", "mean", "--overwrite").code == 0
    again = auravae("encode", "a.png", "--symmetrize", "mean", "--json").row
    assert again["status"] == "skipped"
    assert auravae("decode", "a.safetensors").code == 0
    assert auravae("decode", "a.safetensors", "--symmetrize", "mean").code == 1


def test_a_store_takes_no_mixture(auravae, work, picture, tree):
    picture("photos/a.png")
    store = ["-o", "store", "--layout", "shards"]
    assert auravae("encode", "photos", *store, "--symmetrize", "mean").code == 0
    assert auravae("info", "store", "--json").row["symmetrized"] is True
    before = tree(Path("store"))
    picture("photos/b.png")
    result = auravae("encode", "photos", *store)
    assert result.code == 1
    assert "made with symmetrized, symmetry mean, asked for symmetry none" in result.err
    assert tree(Path("store")) == before
    assert auravae("encode", "photos", *store, "--symmetrize", "mean").code == 0
    assert auravae("verify", "store").code == 0
    assert auravae("decode", "store", "-o", "out").code == 0


def test_a_plain_store_refuses_symmetrized_latents(auravae, work, picture):
    picture("photos/a.png")
    assert auravae("encode", "photos", "-o", "store", "--layout", "shards").code == 0
    result = auravae("encode", "photos", "-o", "store", "--symmetrize", "mean")
    assert (
        result.code == 1
        and "made with symmetry none, asked for symmetrized, symmetry mean" in result.err
    )


def test_a_round_trip(auravae, tiny, photo):
    options = [
        "-m",
        tiny,
        "--device",
        "cpu",
        "--flip",
        "all",
        "--json",
        "-o",
        "out.png",
        "--overwrite",
    ]
    plain = auravae("roundtrip", photo, *options).row["details"]
    exact = auravae("roundtrip", photo, *options, "--symmetrize", "mean").row["details"]
    gaps = {
        name: max(abs(n["psnr"] - details["psnr"]) for n in details["flips"].values())
        for name, details in (("plain", plain), ("exact", exact))
    }
    assert gaps["exact"] < 1e-9 < 0.01 < gaps["plain"]
