"""Losses against numbers worked out by hand; none minds a flip of all of its arguments."""

from __future__ import annotations

import math
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from auravae_cli.errors import WeightsError
from auravae_cli.model.network.lpips import CONVOLUTIONS, TAPPED_AFTER, load_lpips
from auravae_cli.symmetry.group import HV, H, V
from auravae_cli.train import losses
from auravae_cli.train.recipe import LossWeights

ALL = LossWeights(
    l1=1.0, mse=2.0, lpips=3.0, high_frequency=4.0, anchor=5.0, chroma=6.0, mean_colour=7.0
)
COLOUR = {"chroma", "mean_colour"}


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Latents


def test_the_latent_of_one_colour_should_be_uniform():
    images = torch.stack([torch.full((3, 4, 4), 0.5), noise(3, 4, 4)])
    latent = noise(2, 5, 2, 2)
    assert losses.uniform(latent, images) == latent[0].var((1, 2)).mean()
    assert losses.uniform(latent.mean((2, 3), keepdim=True).expand_as(latent), images) < 1e-12


def test_other_pictures_may_have_any_latent():
    latent = noise(2, 5, 2, 2).requires_grad_()
    grey, colours = noise(1, 1, 4, 4).expand(1, 3, 4, 4), noise(1, 3, 4, 4)
    assert losses.uniform(latent, torch.cat([grey, colours])) == 0


# Reconstruction


def test_constant_errors():
    image, target = torch.full((2, 3, 8, 8), 0.25), torch.full((2, 3, 8, 8), -0.25)
    found = losses.reconstruction_losses(image, target, noise(2, 4, 2, 2), ALL, None)
    assert found["mse"] == 0.25
    assert found["l1"] == 0.5
    assert found["high_frequency"] == 0


def test_the_finest_band():
    checkerboard = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4).expand(1, 3, 8, 8)
    assert losses.high_frequency(0.5 * checkerboard, -0.5 * checkerboard) == 1


def test_two_bands_of_one_pixel():
    """16 less its block's mean of 4 and three times -4, over 16 pixels; then the same of 4."""
    pixel = torch.zeros(1, 1, 4, 4)
    pixel[..., 1, 2] = 16
    assert losses.high_frequency(pixel, torch.zeros(1, 1, 4, 4)) == 24 / 16 + 6 / 4


@pytest.mark.parametrize(
    ("error", "length"),
    [
        ((0.4, 0.4, 0.4), 0),  # brightness alone
        ((1.402, 0, 1.772), math.hypot(*(1 - (0.299 * 1.402 + 0.114 * 1.772) / side for side in (1.402, 1.772)))),
        ((0, -0.344136, 1.772), 1),  # Cb by 1
        ((1.402, -0.714136, 0), 1),  # Cr by 1
        ((-1.402 / 2, 0.714136 / 2, 0), 0.5),
    ],
)  # fmt: skip
def test_the_chroma_of_an_error(error, length):
    image = torch.tensor(error).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    found = losses.chroma(image, torch.zeros(2, 3, 8, 8))
    assert found.item() == pytest.approx(length, abs=2e-3)


def test_the_mean_colour_is_that_of_each_picture_and_channel():
    """Errors that cancel out within a picture do not count; between pictures and channels they do."""
    target = torch.zeros(2, 3, 8, 8)
    image = target.clone()
    image[0, 0, :4], image[0, 0, 4:] = 1, -1
    assert losses.mean_colour(image, target) == 0
    image[0, 1], image[1, 1], image[1, 2] = 0.5, -0.5, 0.1
    assert losses.mean_colour(image, target).item() == pytest.approx((0.5 + 0.5 + 0.1) / 6)


@pytest.mark.parametrize("loss", [losses.chroma, losses.mean_colour])
def test_gradients_of_colour_are_finite_where_nothing_is_wrong(loss):
    image = torch.zeros(1, 3, 8, 8, requires_grad=True)
    loss(image, torch.zeros(1, 3, 8, 8)).backward()
    assert image.grad.isfinite().all()


def test_lpips_of_a_share_of_the_batch():
    seen = []

    def lpips(image, target):
        seen.append((len(image), len(target)))
        return image.mean((1, 2, 3))

    pictures = noise(8, 3, 8, 8)
    for share in (1.0, 0.5, 0.01):
        losses.reconstruction_losses(
            pictures, pictures, noise(8, 4, 2, 2), LossWeights(lpips=1.0), lpips, share
        )
    assert seen == [(8, 8), (4, 4), (1, 1)]


def test_coarse_errors_are_left_to_the_other_losses():
    coarse = noise(1, 3, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert losses.high_frequency(coarse, torch.zeros(1, 3, 8, 8)) < 1e-6


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        (LossWeights(l1=0, high_frequency=0, anchor=0), {"mse"}),
        (LossWeights(mse=0), {"mse", "l1", "high_frequency", "anchor"}),
        (ALL, {"mse", "l1", "high_frequency", "anchor", "lpips", *COLOUR}),
    ],
)
def test_only_losses_with_a_weight_are_computed(weights, names):
    def lpips(image, target):
        return (image - target).mean((1, 2, 3))

    pictures, latent = noise(2, 3, 8, 8), noise(2, 4, 2, 2)
    found = losses.reconstruction_losses(pictures, 0 * pictures, latent, weights, lpips)
    assert found.keys() == names


def test_the_weighted_sum():
    values = {"mse": torch.tensor(0.5), "l1": torch.tensor(2.0), "gan": torch.tensor(10.0)}
    assert losses.weighted_sum(values, LossWeights(l1=3, mse=4, gan=0.5)) == 0.5 * 4 + 2 * 3 + 5
    assert losses.weighted_sum(values, LossWeights(l1=3, mse=0, gan=0.5)) == 2 * 3 + 5


# The latent


def unit_latent():
    latent = noise(3, 4, 5, 6)
    return latent / latent.std((0, 2, 3), keepdim=True)


def test_the_anchor_is_zero_at_unit_variance_whatever_the_mean():
    assert losses.anchor(unit_latent()) < 1e-9
    assert losses.anchor(unit_latent() + torch.arange(4.0).view(4, 1, 1)) < 1e-9


def test_the_anchor_of_one_channel():
    scales = torch.tensor([1.0, 1.0, math.e, 1.0]).view(4, 1, 1)
    assert losses.anchor(unit_latent() * scales).item() == pytest.approx(4 / 4, rel=1e-4)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.floats(0.02, 1), st.floats(0.02, 1))
def test_the_anchor_grows_both_ways(a, b):
    near, far = max(a, b), min(a, b)
    if far < 0.99 * near:
        for sign in (1, -1):
            assert losses.anchor(unit_latent() * near**sign) < losses.anchor(
                unit_latent() * far**sign
            )


def test_a_constant_latent_is_far_but_finite():
    assert 100 < losses.anchor(torch.zeros(2, 4, 3, 3)) < 1000


# The adversarial losses


def test_a_discriminator_that_knows_nothing():
    assert losses.discriminator_loss(torch.zeros(2, 1), torch.zeros(2, 1)).item() == pytest.approx(
        2 * math.log(2)
    )


def test_a_discriminator_that_is_right_or_wrong():
    right, wrong = torch.full((2, 1), 9.0), torch.full((2, 1), -9.0)
    assert losses.discriminator_loss(right, wrong) < 1e-3
    assert losses.discriminator_loss(wrong, right) > 17


@pytest.mark.parametrize(("fake", "expected"), [(0.0, 0.9), (-1.0, 1.9), (0.95, 0.0), (3.0, 0.0)])
def test_the_generator_only_pays_for_scoring_below_the_pictures(fake, expected):
    found = losses.generator_loss(torch.ones(2, 1), torch.full((2, 1), fake))
    assert found.item() == pytest.approx(expected)


def test_the_generator_cannot_win_by_lowering_the_pictures_score():
    real, fake = torch.ones(2, 1, requires_grad=True), torch.zeros(2, 1, requires_grad=True)
    losses.generator_loss(real, fake).backward()
    assert real.grad is None
    assert fake.grad.sum() == -1


# LPIPS, with random weights


@pytest.fixture(scope="module")
def weights():
    """Eight channels a layer, as int8 convolutions with their scales."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in CONVOLUTIONS:
        shape = (8, 3 if layer == 0 else 8, 3, 3)
        name = f"features.{layer}.weight"
        tensors[name] = torch.randint(-127, 128, shape, dtype=torch.int8, generator=generator)
        tensors[f"{name}_scale"] = 1e-3 + 4e-3 * torch.rand(8, generator=generator)
        tensors[f"features.{layer}.bias"] = 0.1 * torch.randn(8, generator=generator)
    for tap in range(len(TAPPED_AFTER)):
        tensors[f"lin{tap}.weight"] = torch.rand(1, 8, 1, 1, generator=generator)
    return tensors


@pytest.fixture(scope="module")
def as_floats(weights):
    plain = {}
    for name, tensor in weights.items():
        if f"{name}_scale" in weights:
            plain[name] = tensor.float() * weights[f"{name}_scale"].view(-1, 1, 1, 1)
        elif not name.endswith("_scale"):
            plain[name] = tensor
    return plain


@pytest.fixture
def lpips(tmp_path, weights):
    save_file(weights, tmp_path / "lpips.safetensors")
    return load_lpips(str(tmp_path / "lpips.safetensors"))


def test_lpips_of_equal_and_of_different_pictures(lpips):
    image, other = noise(3, 3, 32, 16), noise(3, 3, 32, 16, seed=1)
    assert torch.equal(lpips(image, image), torch.zeros(3))
    assert (lpips(image, other) > 1e-3).all()
    torch.testing.assert_close(lpips(image, other), lpips(other, image))


def test_lpips_is_a_distance_of_each_picture_alone(lpips):
    image, other = noise(3, 3, 16, 16), noise(3, 3, 16, 16, seed=1)
    alone = torch.cat([lpips(a[None], b[None]) for a, b in zip(image, other, strict=True)])
    torch.testing.assert_close(lpips(image, other), alone)


def test_quantised_and_plain_weights_agree(lpips, as_floats, tmp_path):
    save_file(as_floats, tmp_path / "plain.safetensors")
    plain = load_lpips(str(tmp_path / "plain.safetensors"))
    image, other = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    assert torch.equal(lpips(image, other), plain(image, other))


def test_only_the_reconstruction_gets_a_gradient(lpips):
    image = noise(1, 3, 16, 16).requires_grad_()
    target = noise(1, 3, 16, 16, seed=1).requires_grad_()
    lpips(image, target).sum().backward()
    assert target.grad is None
    assert image.grad.abs().sum() > 0
    assert not list(lpips.parameters())


@pytest.mark.parametrize("name", ["features.28.bias", "features.0.weight", "lin4.weight"])
def test_a_missing_tensor_is_named(weights, tmp_path, name):
    path = tmp_path / "w.safetensors"
    save_file({n: t for n, t in weights.items() if not n.startswith(name)}, path)
    with pytest.raises(WeightsError, match=f"{path}: no LPIPS of VGG16: {name} is missing"):
        load_lpips(str(path))


def test_a_file_that_holds_no_weights(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read as LPIPS weights"):
        load_lpips(str(tmp_path / "absent.safetensors"))
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(WeightsError, match="cannot be read as LPIPS weights"):
        load_lpips(str(tmp_path / "page.safetensors"))


def test_without_a_file_and_without_the_package(monkeypatch):
    for package in ("lpips", "torchmetrics", "torchmetrics.image.lpip"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WeightsError, match="LPIPS needs its weights: name a file"):
        load_lpips(None)


def test_the_package_gives_the_same_weights(monkeypatch, as_floats, lpips):
    slices = {0: 1, 2: 1, 5: 2, 7: 2, 10: 3, 12: 3, 14: 3, 17: 4, 19: 4, 21: 4}
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for name, tensor in as_floats.items():
        if name.startswith("lin"):
            state[f"{name[:4]}.model.1.weight"] = state[f"lins.{name[3]}.model.1.weight"] = tensor
        else:
            layer = int(name.split(".")[1])
            state[name.replace("features", f"net.slice{slices.get(layer, 5)}")] = tensor

    package = ModuleType("lpips")
    found = torch.nn.Module()
    found.state_dict = lambda: state
    package.LPIPS = lambda net, verbose: found
    monkeypatch.setitem(sys.modules, "lpips", package)
    image, other = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=1)
    assert torch.equal(load_lpips(None)(image, other), lpips(image, other))


# Flips


@pytest.mark.parametrize("g", [H, V, HV], ids=str)
def test_no_loss_minds_a_flip(g):
    image, target, latent = noise(2, 3, 16, 16), noise(2, 3, 16, 16, seed=1), noise(2, 4, 8, 8)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1)
    found = losses.reconstruction_losses(image, target, latent, ALL, None)
    flipped = losses.reconstruction_losses(
        image.flip(g.axes), target.flip(g.axes), latent.flip(g.axes) * signs, ALL, None
    )
    assert found.keys() == flipped.keys() == {"mse", "l1", "high_frequency", "anchor", *COLOUR}
    for name, value in found.items():
        torch.testing.assert_close(value, flipped[name], rtol=1e-5, atol=0)
