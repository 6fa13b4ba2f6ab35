"""The codec over a network: arrays, tensors, pictures, number formats and devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from auravae_cli.errors import ComputeError, DeviceError, LatentMismatchError
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.latents.latent_file import parse_latents
from auravae_cli.model.codec import load_codec, load_image


def noise(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def picture(height, width, seed=0):
    """uint8 [H, W, 3]"""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def prepare(pixels):
    return Preparation().apply(load_image(pixels, "white"), 8)


# Arrays and tensors


def test_arrays_give_arrays_and_tensors_give_tensors(codec):
    pixels = noise(2, 3, 16, 24)
    latents, as_tensor = codec.encode(pixels), codec.encode(torch.from_numpy(pixels))
    assert isinstance(latents, np.ndarray) and isinstance(as_tensor, torch.Tensor)
    assert (latents.shape, latents.dtype) == ((2, 16, 2, 3), np.float32)
    assert as_tensor.dtype == torch.float32
    assert np.array_equal(latents, as_tensor.numpy())
    back, back_as_tensor = codec.decode(latents), codec.decode(as_tensor)
    assert isinstance(back, np.ndarray) and isinstance(back_as_tensor, torch.Tensor)
    assert (back.shape, back.dtype) == ((2, 3, 16, 24), np.float32)
    assert np.array_equal(back, back_as_tensor.numpy())


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_any_float_format_gives_float32(codec, kind):
    latents = codec.encode(noise(1, 3, 8, 8).astype(kind))
    assert latents.dtype == np.float32
    assert codec.decode(latents.astype(kind)).dtype == np.float32


def test_flipped_and_read_only_arrays_are_taken(codec):
    pixels = noise(1, 3, 8, 16)
    flipped = pixels[..., ::-1]
    assert np.array_equal(codec.encode(flipped), codec.encode(flipped.copy()))
    before = pixels.copy()
    pixels.flags.writeable = False
    assert np.array_equal(codec.encode(pixels), codec.encode(before))
    assert np.array_equal(pixels, before)


def test_an_empty_batch_gives_an_empty_batch(codec):
    assert codec.encode(noise(0, 3, 16, 8)).shape == (0, 16, 2, 1)
    assert codec.decode(noise(0, 16, 2, 1)).shape == (0, 3, 16, 8)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(
    "shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 3, 12, 8), (1, 3, 8, 9), (1, 3, 0, 8)]
)
def test_pixels_of_a_wrong_shape(codec, shape, kind):
    with pytest.raises(ValueError, match="multiples of 8"):
        codec.encode(kind(noise(*shape)))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize("shape", [(16, 2, 2), (1, 4, 2, 2), (1, 2, 2, 16), (1, 16, 0, 2)])
def test_latents_of_a_wrong_shape(codec, shape, kind):
    with pytest.raises(ValueError, match=r"expected .B, 16, h, w"):
        codec.decode(kind(noise(*shape)))


# Pictures


def test_every_form_of_the_same_picture_gives_the_same_latent(codec, tmp_path):
    pixels = picture(24, 40)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)

    def encode(form):
        return codec.encode_image(form, dtype=FLOAT32).values

    expected = encode(pixels)
    for form in (path, str(path), Image.fromarray(pixels)):
        assert np.array_equal(encode(form), expected)
    deep = encode(pixels.astype(np.uint16) * 257)  # the same to the last bit of each pixel
    assert (deep == expected).all()
    assert np.abs(encode(picture(24, 40, seed=1)) - expected).max() > 0.1


@pytest.mark.parametrize("width,height", [(1, 1), (7, 3), (33, 17), (64, 8), (9, 64)])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_picture_comes_back_in_its_exact_size(codec, width, height, bits):
    latent = parse_latents(codec.encode_image(picture(height, width)).to_bytes())
    assert latent.values.shape == (16, -(-height // 8), -(-width // 8))
    decoded = codec.decode_latent(latent, bits=bits)
    assert (decoded.shape, decoded.dtype) == ((height, width, 3), np.dtype(f"uint{bits}"))


def test_a_latents_bytes_do_not_depend_on_its_batch(codec):
    assert (codec.device, codec.batch_size) == ("cpu", 1)
    prepared = [prepare(picture(24, 32, seed=seed)) for seed in range(4)]

    def run(pictures):
        """As the pipeline does: batches of at most `batch_size`."""
        size = codec.batch_size
        groups = [pictures[i : i + size] for i in range(0, len(pictures), size)]
        return [
            codec.store(latent, image, FLOAT32, None).to_bytes()
            for group in groups
            for latent, image in zip(
                codec.encode(np.stack([image.padded for image in group])), group, strict=True
            )
        ]

    together = run(prepared)
    assert together == [run([image])[0] for image in prepared]
    assert together[::-1] == run(prepared[::-1])
    alone = codec.encode_image(picture(24, 32, seed=2), dtype=FLOAT32).to_bytes()
    assert together[2] == alone


# Noise


def test_noise_is_drawn_from_the_seed_alone(codec):
    first, second = (codec.encode_image(picture(16, 16, seed=seed)) for seed in (1, 2))
    (plain,) = codec.decode_latents([first])
    (noisy,) = codec.decode_latents([first], noise=0.5, seed=3)
    assert np.array_equal(noisy, codec.decode_latents([first], noise=0.5, seed=3)[0])
    assert not np.array_equal(noisy, plain)
    assert not np.array_equal(noisy, codec.decode_latents([first], noise=0.5, seed=4)[0])
    in_a_batch = codec.decode_latents([second, first], noise=0.5, seed=3)[1]
    assert np.abs(in_a_batch.astype(int) - noisy).max() <= 1  # rounding, where the last bits differ


# Failures


def test_weights_that_are_nan(save, state):
    for name in ("encoder.conv_out.bias", "decoder.conv_out.bias"):
        state[name] = torch.full_like(state[name], torch.nan)
    broken = load_codec(str(save(state)), device="cpu")
    with pytest.raises(ComputeError, match="encoder gave NaN"):
        broken.encode_image(picture(8, 8))
    latent = broken.store(np.zeros((16, 1, 1), np.float32), prepare(picture(8, 8)), FLOAT32, None)
    with pytest.raises(ComputeError, match="decoder gave NaN"):
        broken.decode_latent(latent)


def test_a_latent_of_other_weights_is_refused_with_both_names(codec, save, state):
    other = load_codec(
        str(save({n: 2 * t for n, t in state.items()}, "other.safetensors")), device="cpu"
    )
    latent = other.encode_image(picture(8, 8))
    with pytest.raises(LatentMismatchError) as caught:
        codec.decode_latent(latent)
    for name in ("'other'", "'tiny_weights_bf16'", other.space.weights_sha256[:12]):
        assert name in str(caught.value)


@pytest.mark.parametrize("device", ["nonsense", "", "meta", "hpu", "privateuseone", "cuda:99"])
def test_a_device_that_is_not_there(tiny_path, device):
    with pytest.raises(DeviceError, match=r"is not available.*--device cpu"):
        load_codec(str(tiny_path), device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_no_cuda(tiny_path):
    with pytest.raises(DeviceError, match="'cuda' is not available"):
        load_codec(str(tiny_path), device="cuda")


# Number formats


@pytest.mark.parametrize("dtype,bound", [("bfloat16", 0.05), ("float16", 0.01)])
def test_low_precision_is_near_float32(codec, tiny_path, dtype, bound):
    low = load_codec(str(tiny_path), device="cpu", dtype=dtype)
    assert low.compute_dtype == dtype
    pixels = noise(1, 3, 32, 32)
    expected, found = codec.encode(pixels), low.encode(pixels)
    assert found.dtype == np.float32
    error = np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2))
    assert 0 < error < bound
    decoded, reference = low.decode(expected), codec.decode(expected)
    assert decoded.dtype == np.float32
    assert 0 < np.sqrt(np.mean((decoded - reference) ** 2) / np.mean(reference**2)) < bound


def test_automatic_choices_on_this_machine(tiny_path):
    chosen = load_codec(str(tiny_path))
    on_gpu = torch.cuda.is_available()
    assert chosen.device == ("cuda" if on_gpu else "cpu")
    assert chosen.compute_dtype == ("bfloat16" if on_gpu else "float32")


# Halves


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_one_half_alone_gives_the_same(codec, tiny_path, half):
    alone = load_codec(str(tiny_path), parts=(half,), device="cpu")
    assert set(alone.autoencoder.parts) == {half}
    assert alone.space == codec.space
    if half == "encoder":
        assert np.array_equal(alone.encode(noise(1, 3, 8, 8)), codec.encode(noise(1, 3, 8, 8)))
    else:
        assert np.array_equal(alone.decode(noise(1, 16, 1, 1)), codec.decode(noise(1, 16, 1, 1)))
