"""The plain interface: its results are those of the commands, byte for byte."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from auravae_cli.latents.latent_file import parse_latents
from tests.cli.conftest import run_main


@pytest.fixture(scope="module")
def command():
    """A command's standard output: ``command("encode", "-", stdin=...)``."""

    def run(*arguments: object, stdin: bytes = b"") -> bytes:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AURAVAE_MODEL", "linear")
            result = run_main(*arguments, stdin=stdin)
        assert result.code == 0, result.err
        return result.out

    return run


@pytest.fixture(scope="module")
def picture() -> bytes:
    """A PNG with alpha, of sides that are no multiples of 8."""
    pixels = np.random.default_rng(0).integers(0, 255, (21, 30, 4), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def latent(command, picture) -> bytes:
    return command("encode", "-", stdin=picture)


def test_encode(service, command, picture, latent):
    answer = service.post("/v1/encode", picture)
    assert answer.status == 200
    assert answer.body == latent
    assert json.loads(answer.headers["notices"]) == ["alpha composited on white"]
    query = "latent_dtype=bfloat16&resize=40&pad=reflect&background=%23204060"
    options = ("--latent-dtype", "bfloat16", "--resize", 40, "--pad", "reflect")
    expected = command("encode", "-", *options, "--background", "#204060", stdin=picture)
    assert service.post(f"/v1/encode?{query}", picture).body == expected


@pytest.mark.parametrize("form", ["png", "webp", "jpg", "tiff"])
def test_decode(service, command, latent, form):
    answer = service.post(f"/v1/decode?format={form}&quality=80", latent)
    expected = command("decode", "-", "--format", form, "--quality", 80, stdin=latent)
    assert answer.body == expected
    assert Image.open(io.BytesIO(answer.body)).size == (30, 21)


def test_decode_with_noise_and_16_bits(service, command, latent):
    answer = service.post("/v1/decode?bits=16&noise=0.25&seed=7", latent)
    options = ("--bits", 16, "--noise", 0.25, "--seed", 7)
    assert answer.body == command("decode", "-", *options, stdin=latent)
    assert answer.body != service.post("/v1/decode?bits=16", latent).body


@pytest.mark.parametrize("by", ["h", "v", "hv"])
def test_flip(service, command, latent, by):
    flags = {"h": "-H", "v": "-V", "hv": "-HV"}[by]
    assert service.post(f"/v1/flip?by={by}", latent).body == command(
        "flip", "-", flags, stdin=latent
    )


def test_info(service, command, latent):
    told = json.loads(command("info", "-", "--json", stdin=latent))
    assert service.post("/v1/info", latent).json == {k: v for k, v in told.items() if k != "file"}


@pytest.mark.parametrize("channels", [False, True])
def test_preview(service, command, latent, channels):
    flags = ("--channels",) if channels else ()
    answer = service.post(f"/v1/preview?channels={str(channels).lower()}", latent)
    assert answer.body == command("show", "-", "-o", "-", *flags, stdin=latent)


def test_round_trip(service, command, picture, tmp_path):
    output = tmp_path / "r.png"
    told = json.loads(
        command("roundtrip", "-", "--flip", "all", "-o", output, "--json", stdin=picture)
    )
    numbers = service.post("/v1/roundtrip?flip=all", picture).json
    for key in ("image_size", "latent_shape", "psnr", "ssim", "flips"):
        assert numbers[key] == told["details"][key]
    found = service.post("/v1/roundtrip?give=picture", picture).body
    assert found == output.read_bytes()
    found = service.post("/v1/roundtrip?give=sheet&flip=all", picture).body
    assert found == (tmp_path / "r.sheet.png").read_bytes()


def test_a_picture_as_it_is_read(service, picture):
    answer = service.post("/v1/picture?background=black", picture)
    rgba = np.asarray(Image.open(io.BytesIO(picture)))
    expected = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))), expected)


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/v1/encode", 422, "not a picture"),
        ("/v1/decode", 422, "not a safetensors file"),
        ("/v1/decode?bits=12", 400, "bits is '12': expected one of 8, 16"),
        ("/v1/decode?bits=16&format=webp", 422, "cannot hold 16 bits"),
        ("/v1/decode?seed=-1", 400, "expected an integer from 0"),
        ("/v1/decode?seed=1&seed=2", 400, "seed is given 2 times"),
        ("/v1/decode?nose=1", 400, "unknown parameter 'nose': this path takes bits, format"),
        ("/v1/encode?background=nocolour", 400, "expected e.g. white or #204060"),
        ("/v1/encode?resize=" + "9" * 5000, 400, "expected an integer from 1"),
        ("/v1/flip?by=x", 400, "expected one of h, v, hv"),
        ("/v1/info", 422, "not a safetensors file"),
        ("/v1/roundtrip?resize=4000", 413, "more than the 16777216 that this service takes"),
    ],
)
def test_what_is_wrong_is_told(service, latent, picture, path, status, sentence):
    given = latent if "bits=16" in path else picture if "roundtrip" in path else b"no such thing"
    answer = service.post(path, given)
    assert (answer.status, sentence in answer.error) == (status, True), answer.body


def test_a_latent_of_other_weights_is_refused(service, latent):
    other = parse_latents(latent).space.weights_sha256
    changed = latent.replace(other.encode(), b"0" * 64)
    answer = service.post("/v1/decode", changed)
    assert (
        answer.status == 422 and "latent of model 'linear' (weights 000000000000)" in answer.error
    )


def test_paths_and_methods(service):
    assert service.get("/nowhere").error.startswith("no such path")
    answer = service.get("/v1/encode")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert service.get("/health").json["model"] == "linear"


def test_every_response_has_the_headers_for_browsers(service):
    for path, status in (("/", 200), ("/health", 200), ("/nowhere", 404), ("/v1/encode", 405)):
        answer = service.get(path)
        assert answer.status == status and answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_a_path_in_a_query_or_an_address_is_never_opened(service, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for path in (f"/..{secret}", f"/page.css/..{secret}", f"/%2e%2e{secret}", f"//{secret}"):
        answer = service.get(path)
        assert answer.status == 404 and b"secret" not in answer.body.replace(path.encode(), b"")


def test_the_document_describes_every_path(service):
    document = service.get("/openapi.json").json
    assert set(document["paths"]) == {
        *("/decode", "/encode", "/health", "/metrics", "/openapi.json"),
        *(
            f"/v1/{n}"
            for n in ("encode", "decode", "flip", "info", "preview", "picture", "roundtrip")
        ),
    }
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"].endswith(".")
            assert all(p["description"].endswith(".") for p in operation["parameters"])


def test_a_picture_counts_as_large_as_it_becomes(start, picture):
    running = start()
    running.service.pixels.used = running.service.pixels.limit - 1000
    for path in ("/v1/encode", "/v1/roundtrip"):
        assert running.post(path, picture).status == 200
        refused = running.post(f"{path}?resize=40", picture)
        assert refused.status == 429 and "its limit on pixels" in refused.error
