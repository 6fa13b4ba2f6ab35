"""The real client of diffusers against the service, and bodies as other clients send them."""

from __future__ import annotations

import io
import json
import re
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.utils.remote_utils import remote_decode, remote_encode
from PIL import Image

from auravae_cli.images.read import from_unit
from auravae_cli.serve.limits import Limits
from tests.serve.conftest import REPOSITORY

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@pytest.fixture(scope="module")
def picture(coffee) -> Image.Image:
    return Image.open(io.BytesIO(coffee)).convert("RGB").crop((0, 0, 96, 64))


@pytest.fixture(scope="module")
def latent(linear, picture) -> torch.Tensor:
    """[1, 16, 8, 12]."""
    return torch.from_numpy(linear.encode_image(picture).to_float32())[None]


def expected(linear, latents: torch.Tensor) -> np.ndarray:
    """[B, 3, H, W] as the model itself decodes it."""
    return linear.decode(latents.float().numpy())


def pixels(images: np.ndarray) -> np.ndarray:
    return np.stack([from_unit(image) for image in images])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_come_back_as_the_model_gives_them(service, linear, latent, dtype):
    sent = latent.to(DTYPES[dtype])
    found = remote_decode(
        f"{service.url}/decode", sent, do_scaling=False, output_type="pt", return_type="pt"
    )
    assert found.dtype == DTYPES[dtype]
    assert torch.equal(found, torch.from_numpy(expected(linear, sent)).to(DTYPES[dtype]))


def test_two_latents_postprocessed_in_part(service, linear, latent):
    both = torch.cat([latent, -latent])
    options = {"output_type": "pt", "partial_postprocess": True, "do_scaling": False}
    found = remote_decode(f"{service.url}/decode", both, return_type="pt", **options)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), pixels(expected(linear, both)))
    images = remote_decode(f"{service.url}/decode", both, return_type="pil", **options)
    assert [np.array_equal(np.asarray(i), f) for i, f in zip(images, found.numpy(), strict=True)]


def test_pictures(service, linear, latent):
    png = remote_decode(f"{service.url}/decode", latent, do_scaling=False, image_format="png")
    assert png.format == "png"
    assert np.array_equal(np.asarray(png), pixels(expected(linear, latent))[0])
    jpeg = remote_decode(f"{service.url}/decode", latent, do_scaling=False)
    assert jpeg.format == "jpeg"
    assert np.abs(np.asarray(jpeg, int) - np.asarray(png, int)).mean() < 4


def test_a_processor_of_the_client_finishes_what_it_gets(service, linear, latent):
    plain = pixels(expected(linear, latent))[0].astype(int)
    processor = VaeImageProcessor(vae_scale_factor=8)
    url = f"{service.url}/decode"
    found = remote_decode(url, latent, processor, do_scaling=False, output_type="pt")
    assert np.abs(np.asarray(found, int) - plain).max() <= 1
    (found,) = remote_decode(url, latent, processor, do_scaling=False, output_type="pil")
    assert np.abs(np.asarray(found, int) - plain).max() <= 1


def test_scaling_is_undone_and_done(service, linear, latent, picture):
    sent = (latent - 0.25) * 0.5
    options = {"scaling_factor": 0.5, "shift_factor": 0.25}
    found = remote_decode(
        f"{service.url}/decode", sent, output_type="pt", return_type="pt", **options
    )
    assert np.allclose(found.numpy(), expected(linear, latent), atol=1e-5)
    encoded = remote_encode(f"{service.url}/encode", picture, **options)
    assert torch.allclose(encoded.float(), sent, atol=2e-3)


def test_packed_latents_are_unpacked(service, linear, latent):
    rows, columns = latent.shape[2] // 2, latent.shape[3] // 2
    blocks = latent.view(1, 16, rows, 2, columns, 2)  # as FluxPipeline._pack_latents does it
    packed = blocks.permute(0, 2, 4, 1, 3, 5).reshape(1, rows * columns, 64)
    options = {"output_type": "pt", "return_type": "pt", "do_scaling": False}
    found = remote_decode(f"{service.url}/decode", packed, height=64, width=96, **options)
    assert np.array_equal(found.numpy(), expected(linear, latent))


def test_encode_gives_the_stored_latent(service, linear, picture, latent):
    found = remote_encode(f"{service.url}/encode", picture)
    assert found.dtype == torch.float16
    assert torch.equal(found.float(), latent)
    raw = VaeImageProcessor(vae_scale_factor=8).preprocess(picture)
    raw = raw.contiguous()  # of another one, the client sends memory that is freed (diffusers 0.42)
    for dtype in DTYPES.values():
        found = remote_encode(f"{service.url}/encode", raw.to(dtype))
        whole = torch.from_numpy(linear.encode(raw.to(dtype).float().numpy()))
        assert found.dtype == dtype
        assert torch.equal(found, whole.to(dtype))


def test_errors_are_sentences_for_the_client(service, latent):
    with pytest.raises(RuntimeError, match=r"'error': 'shape \[1, 8, 8, 12\]: expected \[B, 16"):
        remote_decode(f"{service.url}/decode", latent[:, :8], do_scaling=False)
    with pytest.raises(RuntimeError, match="output_type is 'mp4': this model makes pictures"):
        remote_decode(f"{service.url}/decode", latent, output_type="mp4", do_scaling=False)
    latent = latent.clone()
    latent[0, 3, 2, 1] = torch.nan
    with pytest.raises(RuntimeError, match="1 of 1536 values are NaN or infinite"):
        remote_decode(f"{service.url}/decode", latent, do_scaling=False)
    with pytest.raises(RuntimeError, match="one picture is sent at a time"):
        remote_decode(f"{service.url}/decode", torch.ones(2, 16, 1, 1), do_scaling=False)
    with pytest.raises(RuntimeError, match="multiples of 8"):
        remote_encode(f"{service.url}/encode", torch.zeros(1, 3, 12, 8))


def test_the_deprecated_default_scaling_means_raw(service, linear, latent):
    with pytest.warns(FutureWarning, match="do_scaling"):
        found = remote_decode(f"{service.url}/decode", latent, output_type="pt", return_type="pt")
    assert np.array_equal(found.numpy(), expected(linear, latent))


def test_a_bare_latent_of_sd_next(service, linear):
    """[16, h, w], with a size, and keys of its own; 64 columns, as a packed latent has."""
    values = np.random.default_rng(0).standard_normal((16, 64, 64), np.float32).astype(np.float16)
    query = [("input_tensor_type", "binary"), *(("shape", side) for side in values.shape)]
    query += [("dtype", "float16"), ("image_format", "png"), ("output_type", "pil")]
    query += [("width", 512), ("height", 512), ("scaling_factor", 1.0)]
    answer = service.post(
        f"/decode?{urlencode(query)}",
        values.tobytes(),
        Content_Type="tensor/binary",
        Accept="image/png",
    )
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    found = np.asarray(Image.open(io.BytesIO(answer.body)))
    assert np.array_equal(found, pixels(linear.decode(values.astype(np.float32)[None]))[0])


def test_headers_of_a_tensor(service):
    query = "shape=16&shape=1&shape=2&dtype=bfloat16&output_type=pt"
    answer = service.post(f"/decode?{query}", bytes(64), Accept="tensor/binary")
    assert answer.headers["content-type"] == "tensor/binary"
    assert (json.loads(answer.headers["shape"]), answer.headers["dtype"]) == (
        [1, 3, 8, 16],
        "bfloat16",
    )
    assert len(answer.body) == 2 * 3 * 8 * 16


@pytest.mark.parametrize(
    ("query", "size", "status", "sentence"),
    [
        ("shape=1&shape=16&shape=1&shape=1", 64, 400, "dtype is missing"),
        ("dtype=float16", 64, 400, "shape is missing"),
        ("shape=1&shape=16&shape=1&shape=1&dtype=int8", 64, 400, "expected one of float16"),
        ("shape=16&shape=1&shape=-1&dtype=float16", 64, 400, "expected integers from 1"),
        ("shape=16&shape=1&shape=1&dtype=float16", 31, 422, "31 bytes: expected 32"),
        ("shape=16&shape=2000&shape=2000&dtype=float16", 31, 422, "31 bytes: expected 128000000"),
        ("shape=6&shape=64&dtype=float16&height=32&width=64", 768, 422, r"or packed \[B, L, 64\]"),
        (f"{'shape=2147483648&' * 600}dtype=float16", 32, 400, "600 times: expected at most 5"),
        ("shape=16&shape=1&shape=1&dtype=float16&scaling_factor=nan", 32, 400, "a number from"),
        ("shape=16&shape=1&shape=1&dtype=float16&scaling_factor=0", 32, 400, "a number from"),
    ],
)
def test_what_is_wrong_is_told(service, query, size, status, sentence):
    answer = service.post(f"/decode?{query}", bytes(size))
    assert answer.status == status
    assert re.search(sentence, answer.error)


def test_values_too_large_for_their_format_are_refused(service, picture):
    query = "shape=16&shape=1&shape=1&output_type=pt&dtype"
    sent = np.full((16, 1, 1), 60_000, np.float32)
    halves = service.post(f"/decode?{query}=float16", sent.astype(np.float16).tobytes())
    assert halves.status == 422 and "too large for float16: send dtype=float32" in halves.error
    found = np.frombuffer(service.post(f"/decode?{query}=float32", sent.tobytes()).body, np.float32)
    assert found.max() > 65_504
    tiny = service.post(f"/decode?{query}=float32&scaling_factor=1e-6", (sent * 1e33).tobytes())
    assert tiny.status == 422 and "infinite" in tiny.error

    file = io.BytesIO()
    picture.save(file, "PNG")
    scaled = "/encode?scaling_factor=1e6"
    assert service.post(scaled, file.getvalue()).status == 422
    answer = service.post(f"{scaled}&dtype=float32", file.getvalue())
    assert answer.headers["dtype"] == "float32"
    assert np.isfinite(np.frombuffer(answer.body, np.float32)).all()


def test_a_picture_that_is_too_large_is_refused(start):
    running = start(limits=Limits(pixels=100))
    file = io.BytesIO()
    Image.new("RGB", (10, 11)).save(file, "PNG")
    for path in ("/encode", "/v1/encode", "/v1/picture", "/v1/roundtrip"):
        answer = running.post(path, file.getvalue())
        assert (answer.status, answer.error[:10]) == (413, "110 pixels"), path


def test_a_token_goes_in_the_address(start, latent):
    running = start(token="secret")
    with pytest.raises(RuntimeError, match="the token is missing or wrong"):
        remote_decode(f"{running.url}/decode", latent, do_scaling=False)
    url = running.url.replace("http://", "http://any:secret@")
    remote_decode(f"{url}/decode", latent, do_scaling=False)


def test_the_node_for_comfyui_in_the_documentation_works(service, linear, latent):
    page = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {}
    exec(
        page.partition("## From ComfyUI")[2].partition("```python\n")[2].partition("```")[0],
        namespace,
    )
    (node,) = namespace["NODE_CLASS_MAPPINGS"].values()
    assert node.INPUT_TYPES()["required"]["url"][0] == "STRING"
    both = torch.cat([latent, latent.flip(-1)])
    (images,) = node().decode({"samples": both}, f"{service.url}/decode")
    assert np.array_equal((images * 255).round().numpy(), pixels(expected(linear, both)))
