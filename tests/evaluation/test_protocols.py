"""Protocols: what they pin, and that published numbers stand only beside comparable ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from auravae_cli.errors import ConfigError, UsageError
from auravae_cli.evaluation import session
from auravae_cli.evaluation.measure import MeasureOptions
from auravae_cli.evaluation.protocols import Protocol, find_protocol, protocol_names
from auravae_cli.evaluation.run import EvalOptions
from auravae_cli.files.toml_config import read_config
from auravae_cli.images.metrics import ssim, ssim_mirrored, ssim_uniform
from auravae_cli.images.prepare import Preparation
from auravae_cli.model.spec.config import configs_path

FEW = EvalOptions(flips=0, sweeps=0)


def test_every_protocol_is_pinned():
    assert protocol_names() == [
        "coco2017-sd",
        "imagenet256-lavinal712",
        "imagenet256-lightningdit",
        "kodak",
    ]
    for name in protocol_names():
        protocol = find_protocol(name)
        assert protocol.source.startswith("https://") and protocol.differences, name
        assert (protocol.resize is None) == (protocol.resample is None)
    published = {one.model: one for one in find_protocol("imagenet256-lavinal712").published}
    flux = published["FLUX.1"]
    assert (flux.psnr, flux.ssim, flux.lpips, flux.rfid) == (32.871, 0.924, 0.045, 0.165)


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    text = Path(configs_path() / "protocol" / "kodak.toml").read_text()
    path.write_text(text.replace('"gaussian"', '"round"'))
    with pytest.raises(
        ConfigError, match="ssim: expected gaussian or mirrored or uniform, found 'round'"
    ):
        read_config(path, Protocol)


def test_it_says_how_to_prepare_and_measure():
    found = find_protocol("imagenet256-lavinal712").applied(MeasureOptions())
    assert found.preparation == Preparation(resize=256, center_crop=(256, 256), resample="bilinear")
    assert (found.ssim, found.stored_dtype.name) == ("uniform", "float32")
    given = replace(MeasureOptions(), preparation=Preparation(resize=3))
    with pytest.raises(UsageError, match="leave out --crop"):
        find_protocol("kodak").applied(given)
    with pytest.raises(UsageError, match="expected one of coco2017-sd"):
        find_protocol("imagenet")


def test_pictures_are_resized_as_pillow_does():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    for kernel in ("bilinear", "bicubic", "lanczos"):
        found = Preparation(resize=20, resample=kernel).frame(pixels)
        expected = Image.fromarray(pixels).resize((28, 20), Image.Resampling[kernel.upper()])
        assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1  # mirrored, and back
    lanczos = Preparation(resize=20).frame(pixels)
    assert np.array_equal(lanczos, Preparation(resize=20, resample="lanczos").frame(pixels))


def test_the_uniform_window_is_that_of_scikit_image():
    random = np.random.default_rng(0)
    reference = random.integers(0, 256, (31, 40, 3)).astype(np.uint8)
    image = np.clip(reference + random.normal(0, 20, reference.shape), 0, 255).astype(np.uint8)
    expected = structural_similarity(image, reference, channel_axis=-1, data_range=255)
    assert ssim_uniform(image, reference) == pytest.approx(expected, abs=1e-9)
    assert ssim_uniform(image[:6], reference[:6]) is None


def test_the_mirrored_window_is_around_every_pixel():
    random = np.random.default_rng(0)
    reference = random.integers(0, 256, (23, 30, 3)).astype(np.uint8)
    image = np.clip(reference + random.normal(0, 20, reference.shape), 0, 255).astype(np.uint8)
    whole = ssim_mirrored(image, reference)
    padded = [np.pad(a, ((9, 9), (9, 9), (0, 0)), "reflect") for a in (image, reference)]
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, every = structural_similarity(*padded, channel_axis=-1, data_range=255, full=True, **how)
    assert whole == pytest.approx(every[9:-9, 9:-9].mean(), abs=1e-9)
    assert abs(whole - ssim(image, reference)) > 1e-5
    assert ssim_mirrored(image[:10], reference[:10]) is None


def test_published_numbers_stand_beside_comparable_ones_alone(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    protocol = find_protocol("imagenet256-lavinal712")
    small = replace(protocol, resize=24, center_crop=24)
    pages = []
    for pictures in (50_000, 1):
        monkeypatch.setattr(
            session, "find_protocol", lambda name, n=pictures: replace(small, pictures=n)
        )
        page = tmp_path / f"{pictures}.html"
        result = session.evaluate(
            str(tmp_path / "a.png"),
            ["linear"],
            lpips="none",
            options=FEW,
            protocol="imagenet256-lavinal712",
            files=session.EvaluationFiles(html=page),
        )
        assert result.summary["settings"]["ssim"] == "uniform"
        assert result.rows[0]["image_size"] == [24, 24]
        pages.append(Path(page).read_text())
    assert "They are not comparable, and not shown" in pages[0] and "FLUX.1" not in pages[0]
    assert "FLUX.1" in pages[1] and "32.87" in pages[1]
    assert all("uniform window of 7" in page and "of floating-point ones" in page for page in pages)
