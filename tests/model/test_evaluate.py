"""Evaluations of networks, LPIPS, and rFID: what needs torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from auravae_cli.errors import WeightsError
from auravae_cli.evaluation.measure import MeasureOptions
from auravae_cli.evaluation.perceptual import load_perceptual
from auravae_cli.evaluation.results import Results
from auravae_cli.evaluation.rfid import frechet_distance, load_inception, to_text
from auravae_cli.evaluation.run import EvalOptions, Evaluation
from auravae_cli.evaluation.summary import certify
from auravae_cli.model.network.lpips import CONVOLUTIONS, TAPPED_AFTER
from auravae_cli.operations.input_shards import make_shards
from auravae_cli.operations.sources import find_files
from auravae_cli.store.certificate import ELEMENTS


@pytest.fixture
def photos(tmp_path):
    """Two pictures of odd sizes, two of one size."""
    for number, size in enumerate([(19, 27), (24, 32), (24, 32)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return make_shards(find_files([str(tmp_path)]), 1)


@pytest.fixture
def lpips_path(tmp_path):
    """LPIPS with narrow random layers."""
    generator, channels, tensors = torch.Generator().manual_seed(1), 3, {}
    for layer in CONVOLUTIONS:
        tensors[f"features.{layer}.weight"] = 0.3 * torch.randn(
            8, channels, 3, 3, generator=generator
        )
        tensors[f"features.{layer}.bias"] = torch.zeros(8)
        channels = 8
    for tap in range(len(TAPPED_AFTER)):
        tensors[f"lin{tap}.weight"] = torch.rand(1, 8, 1, 1, generator=generator)
    save_file(tensors, tmp_path / "lpips.safetensors")
    return str(tmp_path / "lpips.safetensors")


def run(codecs, shards, **options):
    evaluation = Evaluation(codecs, shards, EvalOptions(MeasureOptions()), Results(None), **options)
    survey = evaluation.survey()
    events = list(evaluation.run(survey))
    return {label: evaluation.rows(label, survey) for label in codecs}, events


def test_a_random_network_and_its_orbit_mean(codec, photos):
    rows, events = run({"plain": codec, "exact": codec.symmetrized()}, photos)
    assert len(events) == 6
    for row in rows["plain"]:
        assert all(row["flips"][g]["encoder_error"] > 0.1 for g in ELEMENTS)
    for row in rows["exact"]:
        for g in ELEMENTS:
            numbers = row["flips"][g]
            assert numbers["encoder_error"] == numbers["encoder_error_of_files"] == 0
            assert numbers["decoder_error"] == 0
            assert numbers["flipped_mse"] == pytest.approx(numbers["plain_mse"])
    statements = {
        label: certify(model, rows[label], MeasureOptions()).statement
        for label, model in (("plain", codec), ("exact", codec.symmetrized()))
    }
    assert "gives another latent" in statements["plain"]
    assert "up to rounding" in statements["exact"]


def test_batches_are_measured_picture_by_picture_where_one_fails(codec, photos, monkeypatch):
    from auravae_cli.evaluation import run

    original, sizes = run.measure, []

    def fails_together(model, subjects, options):
        sizes.append(len(subjects))
        if len(subjects) > 1:
            raise MemoryError
        return original(model, subjects, options)

    monkeypatch.setattr(run, "measure", fails_together)
    evaluation = Evaluation(
        {"tiny": codec}, photos, EvalOptions(flips=0, sweeps=0, batch_size=2), Results(None)
    )
    survey = evaluation.survey()
    assert len(list(evaluation.run(survey))) == 3 and not evaluation.failures
    assert sorted(sizes) == [1, 1, 1, 2]


def test_lpips_is_shared_but_the_same(codec, photos, lpips_path):
    lpips = load_perceptual(lpips_path, "cpu")
    rows, _ = run({"a": codec, "b": codec.symmetrized()}, photos, lpips=lpips)
    with Image.open(photos[0].files[0].root + "/1.png") as image:
        pixels = np.asarray(image)
    decoded = codec.decode_latent(codec.encode_image(pixels))
    assert rows["a"][1]["lpips"] == pytest.approx(lpips.distances(pixels, [decoded])[0])
    assert rows["a"][1]["lpips"] > 0 and rows["a"][1]["lpips"] != rows["b"][1]["lpips"]
    assert lpips.distances(pixels[:12], [pixels[:12]]) == [None]
    assert lpips.distances(pixels, [pixels]) == [0.0]


def test_the_digest_of_lpips_is_that_of_its_values(lpips_path, tmp_path):
    assert load_perceptual(lpips_path, "cpu").digest == load_perceptual(lpips_path, "cpu").digest
    from safetensors.torch import load_file

    other = load_file(lpips_path)
    other["lin0.weight"] = other["lin0.weight"] * 2
    save_file(other, tmp_path / "other.safetensors")
    changed = load_perceptual(str(tmp_path / "other.safetensors"), "cpu")
    assert changed.digest != load_perceptual(lpips_path, "cpu").digest


# rFID


class Distance:
    """What torchmetrics' metric does, by its definition, for features that are given."""

    def __init__(self, feature=None, feature_extractor_weights_path=None):
        if feature_extractor_weights_path:
            raise RuntimeError("PytorchStreamReader failed\nmore")
        self.sets = {True: [], False: []}

    def update(self, features, real):
        self.sets[real].append(features)

    def compute(self):
        a, b = (torch.cat(self.sets[real]) for real in (True, False))
        covariances = torch.cov(a.T), torch.cov(b.T)
        roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
        return (
            (a.mean(0) - b.mean(0)).square().sum()
            + sum(torch.trace(c) for c in covariances)
            - 2 * roots
        )


@pytest.fixture
def torchmetrics(monkeypatch):
    """A stand-in for the package, which is large and would fetch weights."""
    import sys
    from types import ModuleType

    module = ModuleType("torchmetrics.image.fid")
    module.FrechetInceptionDistance = Distance
    for name in ("torchmetrics", "torchmetrics.image"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", module)


def features(shift, seed=0):
    random = np.random.default_rng(seed)
    return [to_text((random.normal(size=3) + shift).astype("f4")) for _ in range(200)]


def test_rfid_of_known_distributions(torchmetrics):
    assert frechet_distance(features(0), features(0)) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(features(0), features(2)) == pytest.approx(12, rel=1e-4)
    assert frechet_distance(features(0)[:1], features(0)[:1]) is None


def test_features_are_kept_with_the_rows(codec, photos):
    def extract(pixels):
        return to_text(pixels.reshape(-1, 3).mean(0).astype("f4"))

    rows, _ = run({"tiny": codec}, photos, inception=extract)
    assert all(len(row["inception"]) == 2 for row in rows["tiny"])
    assert rows["tiny"][0]["inception"][0] != rows["tiny"][1]["inception"][0]


def test_what_rfid_needs_is_named(tmp_path, torchmetrics, monkeypatch):
    import sys

    weights = tmp_path / "inception.pth"
    with pytest.raises(WeightsError, match=r"no such file.*https://"):
        load_inception(str(weights), "cpu")
    weights.write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match=r"not the weights of Inception \(Pytorch.* failed\);"):
        load_inception(str(weights), "cpu")
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    for call in (lambda: load_inception(str(weights), "cpu"), lambda: frechet_distance("ab", "cd")):
        with pytest.raises(WeightsError, match=r"pip install "):
            call()
