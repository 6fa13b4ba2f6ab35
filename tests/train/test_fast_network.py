"""The fast path of a step against the plain one in float32: the same function, the same gradients."""

import pytest
import torch

from auravae_cli.model.spec.config import Architecture, SpaceSpec
from auravae_cli.symmetry.group import Irreps
from auravae_cli.train import fast_network
from auravae_cli.train.fast_network import FastAutoencoder
from auravae_cli.train.trainable import Window, build

BFLOAT16 = torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(scope="module")
def autoencoder(make_recipe):
    """A network with attention, shortcuts and two steps down, no weight of which is zero."""
    recipe = make_recipe(
        architecture=Architecture(32, (1, 2, 4), 1, 8),
        space=SpaceSpec(8, 4, Irreps.parse("6xee+1xoe+1xeo")),
        crop=32,
    )
    module = build(recipe)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.05 if parameter.ndim > 1 else 0.2))
    return module


def step(module, run, images, *others):
    """The reconstruction, the latent, and all gradients in one vector."""
    module.zero_grad(set_to_none=True)
    reconstruction, latent = run(images, *others)
    (reconstruction.float() - 0.3).square().mean().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in module.parameters()])
    return reconstruction.detach().float(), latent.detach().float(), gradient


def distances(found, expected):
    """The norms of differences, relative to the norm of what is expected."""
    pairs = zip(found, expected, strict=True)
    return [float((a.detach() - b.detach()).norm() / b.detach().norm()) for a, b in pairs]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "side", [64, 48, 32, 24, 20]
)  # vectors of 16 columns: all levels, some, none
def test_it_is_about_as_close_to_float32_as_autocast(found, autoencoder, batch, side):
    generator = torch.Generator().manual_seed(side)
    images = torch.rand(batch, 3, side, side, generator=generator) * 2 - 1
    factors = 1 + 0.1 * torch.randn(batch, 8, side // 4, side // 4, generator=generator)
    plain = step(autoencoder, autoencoder, images, factors)
    with BFLOAT16:
        usual = step(autoencoder, autoencoder, images, factors)
        fast = step(autoencoder, FastAutoencoder(autoencoder, found), images, factors)
    for ours, others in zip(distances(fast, plain), distances(usual, plain), strict=True):
        assert ours < 1.4 * others + 1e-3
        assert ours < 0.03


def test_attention_over_many_tokens_is_the_same(found, autoencoder, monkeypatch):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fast = FastAutoencoder(autoencoder, found)
    few = step(autoencoder, fast, images)
    monkeypatch.setattr(fast_network, "FEW_TOKENS", 0)
    assert max(distances(step(autoencoder, fast, images), few)) < 0.02


def test_a_window_of_the_latent_is_decoded(found, autoencoder):
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    window = Window(top=3, left=5, height=8, width=8, factor=4)
    plain, latent = autoencoder(images, None, None, window)
    assert plain.shape == (1, 3, 32, 32)
    assert latent.shape == (1, 8, 16, 16)
    torch.testing.assert_close(plain, autoencoder.decoder(latent.clamp(-8, 8)[..., 3:11, 5:13]))
    fast, _ = FastAutoencoder(autoencoder, found)(images, None, None, window)
    assert distances([fast.detach()], [plain.detach()])[0] < 0.03
    assert torch.equal(window.of_pixels(images), images[..., 12:44, 20:52])
