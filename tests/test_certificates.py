"""The published certificates are of the embedded weights, the samples, and this program."""

from __future__ import annotations

import hashlib
import runpy
from pathlib import Path

import pytest

from auravae_cli.model.codec import load_codec
from auravae_cli.model.spec.registry import known_models, local_weights
from auravae_cli.store.certificate import parse_certificate

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "docs" / "certificates"
PAGE = (REPOSITORY / "docs" / "certificates.md").read_text(encoding="utf-8")
SCRIPT = runpy.run_path(str(REPOSITORY / "scripts" / "make_certificates.py"))
EMBEDDED = [config.name for config in known_models().values() if config.weights]


def published(model):
    return parse_certificate((FOLDER / f"{model}.json").read_bytes())


@pytest.mark.parametrize("model", EMBEDDED)
def test_it_is_of_these_weights_and_pictures(model):
    certificate = published(model)
    weights = local_weights(known_models()[model]).read_bytes()
    assert certificate.space.weights_sha256 == hashlib.sha256(weights).hexdigest()
    pictures = [p for p in (REPOSITORY / "samples").iterdir() if p.suffix != ".md"]
    digests = sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in pictures)
    lines = "".join(f"{digest}\n" for digest in digests).encode()
    assert certificate.content["data"] == {
        "pictures": len(pictures),
        "sha256": hashlib.sha256(lines).hexdigest(),
        "sizes_multiples": 6,
        "sizes_not_multiples": 2,
    }
    assert "decodes as well" in certificate.statement
    assert "up to rounding" in certificate.statement


@pytest.mark.parametrize("model", EMBEDDED)
def test_the_page_shows_its_numbers(model):
    for row in SCRIPT["table_rows"](model, published(model).content):
        assert f"| {' | '.join(row)} |" in PAGE


def test_linear_gives_it_again():
    again, before = SCRIPT["measure"]("linear").content, published("linear").content
    for content in (again, before):
        del content["tool_version"]
    assert again["elements"]["h"]["encoder_error"] == before["elements"]["h"]["encoder_error"]
    assert again["settings"] == before["settings"]
    assert again["statement"] == before["statement"]
    assert again["data"] == before["data"]


def test_small_is_as_equivariant_as_it_says():
    """On one picture of odd sides, by the codec alone."""
    from auravae_cli.images.metrics import psnr
    from auravae_cli.images.read import read_image
    from auravae_cli.symmetry.action import act_on_pixels
    from auravae_cli.symmetry.group import H

    codec = load_codec("small", device="cpu")
    photo = read_image((REPOSITORY / "samples" / "coffee.jpg").read_bytes()).pixels[:101, :131]
    latent = codec.encode_image(photo)
    plain, flipped = codec.decode_latent(latent), codec.decode_latent(latent.act(H))
    gap = psnr(plain, photo) - psnr(flipped, act_on_pixels(H, photo))
    assert abs(gap) < 0.01
