"""How latents move, drift and spread: each number against its definition, by independent means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from auravae_cli.evaluation.equivariance import Encoded
from auravae_cli.evaluation.latent_space import CROP, EDGE, measure_space
from auravae_cli.evaluation.measure import MeasureOptions, Subject, measure
from auravae_cli.evaluation.parities import MOST_CHANNELS, Products, SignedPermutation, assign
from auravae_cli.evaluation.space_summary import summarise_parities, summarise_space
from auravae_cli.evaluation.spectra import RINGS, latent_spectrum, picture_spectrum
from auravae_cli.evaluation.transforms import bilinear, fourier_shift, measure_transforms
from auravae_cli.images.metrics import psnr
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.latents.sums import LatentSums
from auravae_cli.model.codec import Codec, load_codec, load_image
from auravae_cli.model.linear import LinearAutoencoder
from auravae_cli.symmetry.group import Irreps

SIZE = (160, 176)


def picture(size, seed=0):
    """Smooth and asymmetric, with some noise."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [np.sin((columns + seed) / 9), np.cos(rows / 7), np.sin((rows + 2 * columns) / 15)]
    noise = np.random.default_rng(seed).normal(0, 6, (*size, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


def measured(codec, size):
    subject = Subject("a", load_image(picture(size), "white"), flips=False)
    (found,) = measure(codec, [subject], MeasureOptions())
    return found.row


class Mean:
    """Averages of 4 x 4 pixels: it moves as pictures do, up to interpolation."""

    def encode(self, images):
        batch, channels, height, width = images.shape
        return images.reshape(batch, channels, height // 4, 4, width // 4, 4).mean((3, 5))

    def decode(self, latents):
        return latents.repeat(4, -2).repeat(4, -1)


def codec_of(autoencoder, channels=3, factor=4):
    from dataclasses import replace

    space = load_codec("linear").space
    irreps = Irreps.parse(f"{channels}xee")
    return Codec(replace(space, irreps=irreps, downsampling_factor=factor), autoencoder)


@pytest.fixture(scope="module")
def linear():
    return load_codec("linear")


@pytest.fixture(scope="module")
def row(linear):
    return measured(linear, SIZE)


def test_scaling_is_that_of_torch():
    import torch

    batch = np.random.default_rng(0).standard_normal((2, 3, 16, 24)).astype(np.float32)
    for scale in (0.25, 0.5, 0.75):
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(batch), scale_factor=scale, mode="bilinear", align_corners=False
        )
        assert np.allclose(bilinear(batch, scale), expected.numpy(), atol=1e-5)


def test_a_shift_is_ideal():
    rows, columns = np.mgrid[:16, :24] / np.array([16, 24])[:, None, None] * 2 * np.pi
    for shift in (0, 0.5, 3):
        moved = np.sin(2 * rows + 3 * columns + shift * 2 * np.pi * (2 / 16 + 3 / 24))
        found = fourier_shift(np.sin(2 * rows + 3 * columns)[None].astype(np.float32), shift)
        assert np.allclose(found[0], moved, atol=1e-5)


def transforms_of(codec, padded):
    """The numbers of pictures, whose latents an evaluation has already."""
    padded = np.ascontiguousarray(padded)
    return measure_transforms(codec, padded, codec.encode_unit(padded))


def test_what_moves_with_the_picture_and_what_does_not(linear):
    photo = load_image(picture(SIZE), "white")
    padded = Preparation().apply(photo, 8).padded[None]
    (moving,) = transforms_of(codec_of(Mean()), padded)
    assert moving["turn"]["encoder_error"] == pytest.approx(0, abs=1e-6)
    assert moving["turn"]["psnr"] == pytest.approx(moving["turn"]["plain_psnr"], abs=1e-3)
    assert moving["scale 0.5"]["encoder_error"] < 0.05
    (fixed,) = transforms_of(linear, padded)
    assert fixed["turn"]["encoder_error"] > 0.2
    assert fixed["shift"]["encoder_error"] > 0.1
    assert fixed["turn"]["plain_psnr"] > fixed["turn"]["psnr"] + 1
    x = np.ascontiguousarray(padded[..., :160])
    z = linear.encode(x)
    turned = np.ascontiguousarray(np.rot90(x, 1, (2, 3)))
    found = linear.encode(turned)
    error = np.linalg.norm(found - np.rot90(z, 1, (2, 3))) / np.linalg.norm(found)
    assert fixed["turn"]["encoder_error"] == pytest.approx(error, rel=1e-4)
    assert transforms_of(linear, padded[:, :, :120]) == [{}]


def test_a_shift_of_pixels_is_a_shift_of_cells():
    waves = np.sin(np.arange(96) / 96 * 2 * np.pi * 3)
    smooth = np.broadcast_to(0.5 * waves[None, :] * waves[:, None], (1, 3, 96, 96))
    (moved,) = transforms_of(codec_of(Mean()), smooth.astype(np.float32))
    assert moved["shift"]["encoder_error"] < 0.05


def test_drift_is_that_of_repeated_round_trips(linear, row):
    original = once = picture(SIZE)
    drift = row["space"]["drift"]
    for count in range(1, 6):
        once = linear.decode_latent(linear.encode_image(once))
        if str(count) in drift:
            assert drift[str(count)] == psnr(once, original)
    assert row["psnr"] == drift["1"]
    assert sorted(drift, key=int) == ["1", "2", "5", "10"]


def test_blocks_need_no_surroundings_and_the_border_is_like_the_inside(linear, row):
    assert row["space"]["crop_loss"] == pytest.approx(0, abs=1e-6)
    latent = linear.encode(Preparation().apply(load_image(picture(SIZE), "white"), 8).padded[None])
    z, edge = np.abs(latent[0]), np.ones(latent.shape[2:], bool)
    edge[1:-1, 1:-1] = False
    inside = z[:, EDGE:-EDGE, EDGE:-EDGE].mean()
    assert row["space"]["border"] == pytest.approx(z[:, edge].mean() / inside, rel=1e-5)
    size = ((CROP + 2 * EDGE) * 8 - 8, 200)
    small = measured(linear, size)["space"]
    assert small["crop_loss"] is None and small["spectra"] is not None
    assert measured(linear, (24, 24))["space"]["spectra"] is None


def test_spectra_of_noise_and_of_waves(row):
    noise = np.random.default_rng(0).standard_normal((8, 64, 48)).astype(np.float32)
    loud = noise * np.arange(1, 9)[:, None, None]
    for latent in (noise, loud):
        assert np.allclose(latent_spectrum(latent)[1:], 1, atol=0.25)
    wave = np.broadcast_to(np.sin(np.arange(64) * 2 * np.pi / 4), (64, 64))
    found = picture_spectrum(10 * wave)
    assert int(np.argmax(found)) == RINGS // 2 - 1  # a quarter of a cycle, half of the range
    assert latent_spectrum(np.zeros((2, 16, 16))) == [None] * RINGS
    spectra = row["space"]["spectra"]
    assert sorted(spectra) == ["latent", "original", "reconstruction", "response"]
    assert spectra["original"][0] > 100 * spectra["original"][-1]


@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_an_assignment_is_the_best_of_all(n):
    gains = np.random.default_rng(n).integers(0, 9, (n, n))
    found = assign(gains)
    best = max(gains[range(n), list(p)].sum() for p in itertools.permutations(range(n)))
    assert sorted(found) == list(range(n)) and gains[range(n), found].sum() == best


def test_hidden_parities_are_found():
    random = np.random.default_rng(0)
    mirrored = random.standard_normal((5, 9, 8)).astype(np.float32)
    hidden = SignedPermutation((0, 2, 1, 3, 4), (1, -1, -1, 1, -1))
    found = hidden.act(mirrored) + 0.1 * random.standard_normal((5, 9, 8)).astype(np.float32)
    products = Products.of(found[:, :4], mirrored[:, :4]) + Products.of(
        found[:, 4:], mirrored[:, 4:]
    )
    assert products.best() == hidden
    assert (hidden.moved, hidden.negated) == (2, 3)
    for action in (hidden, SignedPermutation.of_signs((1,) * 5)):
        expected = np.linalg.norm(found - action.act(mirrored)) / np.linalg.norm(mirrored)
        assert products.error(action) == pytest.approx(expected, rel=1e-5)
    kept = products.to_json()
    assert Products.from_json(kept).best() == hidden
    many = np.zeros((MOST_CHANNELS + 1, 2, 2), np.float32)
    assert Products.of(many, many).to_json() is None
    with pytest.raises(ValueError, match="square"):
        Products.from_json({**kept, "matrix": "AAAAAAAAAAAAAAAAAAAAAA=="})


class Swapped:
    """The linear model with its odd channels 12 and 13 exchanged when it sees a brighter left."""

    def __init__(self, plain: LinearAutoencoder) -> None:
        self.plain = plain

    def encode(self, images):
        latents = self.plain.encode(images)
        if images[..., : images.shape[-1] // 2].sum() > images[..., images.shape[-1] // 2 :].sum():
            latents[:, [12, 13]] = latents[:, [13, 12]]
        return latents

    def decode(self, latents):
        return self.plain.decode(latents)


def test_a_model_that_declares_another_action_is_found_out(linear):
    subject = Subject("a", load_image(picture(SIZE), "white"), sweeps=False)
    for autoencoder, moved in ((linear.autoencoder, 0), (Swapped(linear.autoencoder), 2)):
        codec = Codec(linear.space, autoencoder)
        (found,) = measure(codec, [subject], MeasureOptions(stored_dtype=FLOAT32))
        parities = summarise_parities([found.row], linear.space.irreps)
        assert parities["h"]["moved"] == moved
        assert parities["h"]["is_declared"] == (moved == 0)
        assert parities["v"]["is_declared"] and parities["v"]["error"] < 1e-5
        flips = found.row["flips"]["h"]
        same = flips["best_mse"] == pytest.approx(flips["flipped_mse"]["whole"])
        assert same == (moved == 0)
    assert summarise_parities([{"flips": None}], linear.space.irreps) is None


def test_the_summary_is_of_means(row):
    found = summarise_space([{"space": row["space"]}, {"space": None}])
    assert found["pictures"] == 1
    turn = next(one for one in found["transforms"] if one["name"] == "turn")
    numbers = row["space"]["transforms"]["turn"]
    assert turn["loss"] == pytest.approx(numbers["plain_psnr"] - numbers["psnr"])
    assert found["drift"][0]["psnr"] == row["psnr"]
    spectra = row["space"]["spectra"]
    ratio = spectra["reconstruction"][3] / spectra["original"][3]
    assert found["spectra"]["transfer"][3] == pytest.approx(10 * np.log10(ratio))
    assert summarise_space([{"space": None}]) is None


def test_dimension_and_correlation():
    random = np.random.default_rng(0)
    values = random.standard_normal((4, 50, 60)).astype(np.float32)
    values[1] = values[0]
    found = LatentSums.of(values, 8.0).statistics()
    eigenvalues = np.linalg.eigvalsh(np.cov(values.reshape(4, -1)))
    expected = eigenvalues.sum() ** 2 / np.square(eigenvalues).sum()
    assert found["effective_dimension"] == pytest.approx(expected, rel=1e-4)
    assert found["mean_correlation"] == pytest.approx(1 / 6, abs=0.02)
    assert LatentSums.of(values * 0, 8.0).statistics()["effective_dimension"] is None


def test_several_pictures_give_what_each_gives(linear):
    images = [Preparation().apply(load_image(picture(SIZE, n), "white"), 8) for n in (0, 1)]
    latents = linear.encode(np.stack([image.padded for image in images]))
    files = [linear.store(z, i, FLOAT32, None) for z, i in zip(latents, images, strict=True)]
    items = [
        Encoded(i, z, f, linear.decode(z[None])[0])
        for i, z, f in zip(images, latents, files, strict=True)
    ]
    assert measure_space(linear, items) == [measure_space(linear, [item])[0] for item in items]
