"""What is measured of a picture: each number against its definition, by the public parts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from auravae_cli.evaluation.equivariance import Encoded, action_is_exact
from auravae_cli.evaluation.measure import MeasureOptions, Subject, how_computed, measure
from auravae_cli.evaluation.sweeps import quantise, stored_bytes
from auravae_cli.images.metrics import psnr, ssim
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT32
from auravae_cli.model.codec import load_codec, load_image
from auravae_cli.store.certificate import decibels, make_certificate, mismatch, parse_certificate
from auravae_cli.symmetry.action import act, act_on_pixels
from auravae_cli.symmetry.group import HV, H, V

SIZES = [(43, 61), (48, 56)]


def picture(size, seed=0):
    """Smooth and asymmetric, with some noise."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin((columns + seed) / 9), np.cos(rows / 7), np.sin((rows + 2 * columns) / 15)]
    noise = np.random.default_rng(seed).normal(0, 6, (*size, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


class Biased:
    """The linear model with a decoder that brightens the left, and an encoder that adds to channel 12."""

    def __init__(self, plain):
        self.plain = plain

    def encode(self, images):
        latents = self.plain.encode(images)
        latents[:, 12] += 0.25
        return latents

    def decode(self, latents):
        images = self.plain.decode(latents)
        images[..., : images.shape[-1] // 2] += 0.125
        return images


@pytest.fixture(scope="module")
def linear():
    return load_codec("linear")


@pytest.fixture(scope="module")
def biased(linear):
    return replace(linear, autoencoder=Biased(linear.autoencoder))


def measured(codec, size=(43, 61), **options):
    subject = Subject("a", load_image(picture(size), "white"))
    (found,) = measure(codec, [subject], MeasureOptions(**options))
    return found.row


@pytest.mark.parametrize("size", SIZES)
def test_quality_is_that_of_the_round_trip(linear, size):
    row = measured(linear, size)
    decoded = linear.decode_latent(linear.encode_image(picture(size)))
    assert row["psnr"] == psnr(decoded, picture(size))
    assert row["ssim"] == ssim(decoded, picture(size))
    assert row["ms_ssim"] is None
    assert row["image_size"] == list(size)


def test_noise_is_that_of_decode(linear):
    row = measured(linear, noise=(0.1, 0.3), seed=5)
    latent = linear.encode_image(picture((43, 61)))
    expected = {
        f"{level:g}": psnr(linear.decode_latent(latent, noise=level, seed=5), picture((43, 61)))
        for level in (0, 0.1, 0.3)
    }
    assert row["noise"] == pytest.approx(expected)
    assert row["noise"]["0"] > row["noise"]["0.1"] + 0.3 > row["noise"]["0.3"]


@pytest.mark.parametrize("dtype", [FLOAT32, BFLOAT16], ids=lambda dtype: dtype.name)
def test_storage_types_are_those_of_encode(linear, dtype):
    row = measured(linear)
    latent = linear.encode_image(picture((43, 61)), dtype=dtype)
    found = row["storage"][dtype.name]
    assert found["psnr"] == psnr(linear.decode_latent(latent), picture((43, 61)))
    assert found["bytes"] == latent.values.nbytes


def test_int8_is_symmetric_and_exact_under_flips(linear):
    latent = linear.encode_image(picture((48, 56)), dtype=FLOAT32).values.copy()
    latent[3] = 0
    found = quantise(latent)
    step = np.abs(latent).max(axis=(1, 2)) / 127
    assert (np.abs(found - latent).max(axis=(1, 2)) <= step / 2 * 1.001).all()
    assert np.abs(found - latent).max() > 0
    for g in (H, V, HV):
        flipped = act(g, latent, linear.space.irreps)
        assert np.array_equal(quantise(flipped), act(g, found, linear.space.irreps))
    assert stored_bytes("int8", (16, 6, 7)) == 16 * 42 + 16 * 4


def test_a_batch_gives_what_single_pictures_give(linear):
    subjects = [
        Subject(str(seed), load_image(picture((48, 56), seed), "white"), seed != 1, seed != 0)
        for seed in range(3)
    ]
    together = [found.row for found in measure(linear, subjects, MeasureOptions())]
    alone = [measure(linear, [s], MeasureOptions())[0].row for s in subjects]
    for row, single in zip(together, alone, strict=True):
        assert {**row, "seconds": 0} == {**single, "seconds": 0}
    assert [row["flips"] is None for row in together] == [False, True, False]
    assert [row["noise"] is None for row in together] == [True, False, False]


# Flips


@pytest.mark.parametrize("size", SIZES)
def test_an_exact_model_has_no_errors(linear, size):
    flips = measured(linear, size)["flips"]
    assert flips["action_exact"] and flips["preparation_exact"]
    for g in ("h", "v", "hv"):
        assert flips[g]["encoder_error"] == flips[g]["encoder_error_of_files"] == 0
        assert flips[g]["decoder_error"] == flips[g]["decoder_mse"]["whole"] == 0
        assert flips[g]["encoder_error_without_signs"] > 0.1
        assert flips[g]["encoder_error_without_flip"] > 0.5
        assert flips[g]["plain_mse"] == pytest.approx(flips[g]["flipped_mse"])


def test_the_encoder_error_is_its_definition(linear, biased):
    size = (48, 56)
    numbers = measured(biased, size)["flips"]
    image = load_image(picture(size), "white")
    plain = biased.encode(Preparation().apply(image, 8).padded[None])[0]
    assert numbers["v"]["encoder_error"] == pytest.approx(0, abs=1e-6)  # channel 12 is odd under h
    for g in (H, HV):
        expected = 0.5 * np.sqrt(plain[12].size) / np.linalg.norm(plain)
        assert numbers[str(g)]["encoder_error"] == pytest.approx(expected, rel=1e-4)
    border = numbers["h"]["encoder_error_border"]
    inside = numbers["h"]["encoder_error_inside"]
    mask = np.ones(plain.shape[1:], bool)
    mask[2:-2, 2:-2] = False
    mirrored = plain[:, :, ::-1]
    for found, part in ((border, mask), (inside, ~mask)):
        expected = 0.5 * np.sqrt(part.sum()) / np.linalg.norm(mirrored[:, part])
        assert found == pytest.approx(expected, rel=1e-4)


def test_the_decoder_and_the_gap_are_their_definitions(biased):
    size = (43, 61)
    numbers = measured(biased, size)["flips"]["h"]
    latent, photo = biased.encode_image(picture(size)), picture(size)
    plain, flipped = biased.decode_latent(latent), biased.decode_latent(latent.act(H))
    assert decibels(numbers["plain_mse"]["whole"]) == pytest.approx(psnr(plain, photo))
    assert decibels(numbers["flipped_mse"]["whole"]) == pytest.approx(
        psnr(flipped, act_on_pixels(H, photo))
    )
    found = decibels(numbers["decoder_mse"]["whole"])
    assert found == pytest.approx(psnr(flipped, act_on_pixels(H, plain)), abs=0.1)
    assert numbers["decoder_mse"]["border"] != numbers["decoder_mse"]["inside"]


@pytest.mark.parametrize("size", [(8, 8), (9, 3), (30, 33)], ids=str)
def test_small_pictures_have_no_inside(linear, size):
    numbers = measured(linear, size)["flips"]["h"]
    assert (numbers["plain_mse"]["inside"] is None) == (min(size) <= 32)
    assert numbers["plain_mse"]["border"] is not None


def test_a_crop_by_coordinates_is_seen_to_break_flips(linear):
    flips = measured(linear, preparation=Preparation(crop=(3, 2, 30, 20)))["flips"]
    assert not flips["preparation_exact"]
    assert flips["h"]["encoder_error"] == 0 < flips["h"]["encoder_error_of_files"]


def test_a_wrong_action_is_seen(linear, monkeypatch):
    image = Preparation().apply(load_image(picture((16, 24)), "white"), 8)
    latent = linear.encode(image.padded[None])[0]
    item = Encoded(image, latent, linear.store(latent, image, FLOAT32, None), latent)
    assert action_is_exact(item)

    def half(self, g):  # forgets the signs of a vertical flip
        values = act(H if g.horizontal else g, self.values, self.space.irreps)
        return replace(self, values=values)

    monkeypatch.setattr("auravae_cli.latents.latent_file.LatentFile.act", half)
    assert not action_is_exact(item)


# Certificates


def certificate_of(codec, sizes=SIZES):
    subjects = [Subject(str(s), load_image(picture(s), "white")) for s in sizes]
    rows = [measure(codec, [s], MeasureOptions())[0].row for s in subjects]
    flips = [{**row["flips"], "picture": row["picture"]} for row in rows]
    settings = how_computed(codec, MeasureOptions())
    return make_certificate(codec.space, flips, {"pictures": len(rows)}, settings, "test")


def test_the_certificate_of_an_exact_model(linear):
    certificate = certificate_of(linear)
    assert certificate.statement == (
        "A flipped latent decodes as well as the plain one, and is what encoding the mirrored "
        "picture gives, up to rounding. Measured plain, in float32 on a CPU, latents as float16."
    )
    averaged = certificate_of(linear.symmetrized(), SIZES[:1])
    assert "Measured averaged over the flips, in float32" in averaged.statement
    content = certificate.content
    assert content["action_exact"] and content["preparation_exact"]
    for numbers in content["elements"].values():
        assert numbers["decoder_psnr"] == {
            "mean": None,
            "worst": None,
            "worst_picture": numbers["decoder_psnr"]["worst_picture"],
        }
        assert numbers["flip_gap"]["worst"] == pytest.approx(0, abs=1e-9)


def test_the_certificate_of_another(biased):
    certificate = certificate_of(biased)
    assert "but encoding the mirrored picture gives another latent" in certificate.statement
    numbers = certificate.content["elements"]["h"]
    assert numbers["encoder_error"]["worst"] >= numbers["encoder_error"]["mean"] > 0.01
    assert numbers["encoder_error"]["worst_picture"] in {str(size) for size in SIZES}
    assert 20 < numbers["decoder_psnr"]["worst"] <= numbers["decoder_psnr"]["mean"] < 40


def test_a_costly_flip_is_named_as_such(linear):
    class OneSided(Biased):
        def decode(self, latents):
            images = self.plain.decode(latents)
            images[..., : images.shape[-1] // 2] *= -1  # wrong on one side, whichever way it lies
            return images

    class Learned(Biased):
        def decode(self, latents):
            images = self.plain.decode(latents)
            return (
                images if latents[:, 0, :, 0].sum() > latents[:, 0, :, -1].sum() else images + 0.3
            )

    assert (
        "dB worse"
        in certificate_of(
            replace(linear, autoencoder=Learned(linear.autoencoder)), SIZES[:1]
        ).statement
    )
    same = certificate_of(replace(linear, autoencoder=OneSided(linear.autoencoder)), SIZES[:1])
    assert same.content["elements"]["h"]["decoder_psnr"]["worst"] < 20


def test_it_comes_back_from_its_bytes(linear):
    certificate = certificate_of(linear)
    assert parse_certificate(certificate.to_bytes()) == certificate


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"format": "auravae-certificate", "format_version": 2}', b"\xff"]
)
def test_what_is_no_certificate(data):
    with pytest.raises(ValueError, match="no certificate that this auravae reads"):
        parse_certificate(data)


def test_it_is_of_some_weights_only(linear):
    space = linear.space
    assert mismatch(space, space) is None
    others = [
        replace(space, weights_sha256="0" * 64),
        replace(space, irreps=load_codec("linear").space.irreps.parse("16xee")),
        replace(space, is_symmetrized=True),
    ]
    for other in others:
        assert "says nothing of latents" in mismatch(space, other)
    assert mismatch(space, replace(space, model="renamed")) is None


def test_decibels():
    assert decibels(0.0) is None and decibels(None) is None
    assert decibels(0.01) == pytest.approx(20)
    assert math.isclose(decibels(1 / 255**2), 20 * math.log10(255))
