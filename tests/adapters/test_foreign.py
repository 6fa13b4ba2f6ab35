"""Other projects' autoencoders as codecs: what comes out is what their own library gives."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLQwenImage, AutoencoderTiny
from PIL import Image
from safetensors.torch import save_file

from auravae_cli.adapters.foreign import ForeignName, load_foreign
from auravae_cli.errors import MissingInputError, WeightsError
from auravae_cli.evaluation.session import evaluate
from auravae_cli.images.read import from_unit
from auravae_cli.model.codec import SAMPLE, load_codec
from auravae_cli.model.spec.foreign import parse_foreign

NARROW = (4, 4, 4, 4)
KINDS = ("kl", "tiny", "dc", "qwen")


def build(kind):
    """A tiny model of random weights, by the library itself."""
    torch.manual_seed(1)
    if kind == "kl":
        blocks = {"down": ("DownEncoderBlock2D",) * 4, "up": ("UpDecoderBlock2D",) * 4}
        return AutoencoderKL(
            block_out_channels=NARROW,
            down_block_types=blocks["down"],
            up_block_types=blocks["up"],
            norm_num_groups=2,
            scaling_factor=0.5,
            shift_factor=0.25,
        )
    if kind == "tiny":
        return AutoencoderTiny(encoder_block_out_channels=NARROW, decoder_block_out_channels=NARROW)
    if kind == "dc":
        names = ("ResBlock", "EfficientViTBlock")
        return AutoencoderDC(
            in_channels=3,
            latent_channels=8,
            attention_head_dim=2,
            encoder_block_types=names,
            decoder_block_types=names,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), (5,)),
            decoder_qkv_multiscales=((), (5,)),
            upsample_block_type="interpolate",
            downsample_block_type="stride_conv",
            scaling_factor=0.41407,
        )
    return AutoencoderKLQwenImage(
        base_dim=2,
        z_dim=2,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.3],
        latents_std=[2.0, 0.5],
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of saved models, one of them within a pipeline's."""
    place = tmp_path_factory.mktemp("models")
    for kind in KINDS:
        build(kind).save_pretrained(place / kind / ("vae" if kind == "kl" else ""))
    return place


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 48)).astype(np.float32)


def theirs(kind, pictures):
    """The latent and the picture that the library gives by itself, and the library's constants."""
    model = build(kind).eval()
    x = torch.from_numpy(pictures)
    with torch.inference_mode():
        if kind == "kl":
            z = model.encode(x).latent_dist.mode()
            return (z - 0.25) * 0.5, model.decode(z).sample
        if kind == "tiny":
            z = model.encode(x).latents
            return z, model.decode(z).sample
        if kind == "dc":
            z = model.encode(x).latent
            return z * 0.41407, model.decode(z).sample
        z = model.encode(x[:, :, None]).latent_dist.mode()
        mean, std = torch.tensor([0.1, -0.3]), torch.tensor([2.0, 0.5])
        scaled = (z - mean.view(1, 2, 1, 1, 1)) / std.view(1, 2, 1, 1, 1)
        return scaled[:, :, 0], model.decode(z).sample[:, :, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_diffusers(folder, pictures, kind):
    codec = load_foreign(parse_foreign(f"diffusers:{folder / kind}"), device="cpu")
    latents, images = theirs(kind, pictures)
    assert codec.space.model == kind
    assert codec.space.downsampling_factor == (2 if kind == "dc" else 8)
    found = codec.encode(pictures)
    assert np.allclose(found, latents.numpy(), atol=1e-5)
    assert np.allclose(codec.decode(found), images.numpy(), atol=1e-5)
    assert str(codec.space.irreps) == f"{latents.shape[1]}xee"
    assert isinstance(codec.encode(torch.from_numpy(pictures)), torch.Tensor)


def test_weights_and_constants_identify_a_model(folder, tmp_path):
    name = f"diffusers:{folder / 'kl'}"
    plain, again = (load_foreign(parse_foreign(name)).space.weights_sha256 for _ in range(2))
    other = build("kl")
    other.register_to_config(scaling_factor=0.75)
    other.save_pretrained(tmp_path / "other")
    assert plain == again
    assert (
        load_foreign(ForeignName("diffusers", str(tmp_path / "other"))).space.weights_sha256
        != plain
    )


def test_a_sample_is_the_same_for_a_picture_wherever_it_is(folder, pictures):
    name = parse_foreign(f"diffusers:{folder / 'kl'}")
    mode, drawn = load_foreign(name), load_foreign(name, posterior=SAMPLE)
    together = drawn.encode(pictures)
    assert np.allclose(together[1:], drawn.encode(pictures[1:]), atol=1e-6)
    assert not np.allclose(together, mode.encode(pictures), atol=1e-3)
    with torch.inference_mode():
        posterior = build("kl").eval().encode(torch.from_numpy(pictures)).latent_dist
    away = (together / 0.5 + 0.25 - posterior.mean.numpy()) / posterior.std.numpy()
    assert np.allclose(away[0], away[1], atol=1e-3) and 0.5 < away.std() < 1.5


def taesd(model, part):
    """Half of a model in TAESD's layout, whose decoder begins with a clamp."""
    layers = model.get_submodule(part).layers.state_dict()
    names = {name: name.partition(".") for name in layers}
    return {
        f"{int(head) + (part == 'decoder')}.{rest}": layers[name]
        for name, (head, _, rest) in names.items()
    }


def test_the_files_of_taesd(tmp_path, pictures):
    torch.manual_seed(2)
    model = AutoencoderTiny(latent_channels=3).eval()
    for part in ("encoder", "decoder"):
        torch.save(taesd(model, part), tmp_path / f"tae_{part}.pth")
        save_file(taesd(model, part), tmp_path / f"swapped_{part}.safetensors")
    codec = load_foreign(parse_foreign(f"taesd:{tmp_path / 'tae_decoder.pth'}"))
    assert codec.space.model == "tae"
    with torch.inference_mode():
        z = model.encode(torch.from_numpy(pictures)).latents
        image = model.decode(z).sample
    assert np.allclose(codec.encode(pictures), z.numpy(), atol=1e-5)
    assert np.allclose(codec.decode(z.numpy()), image.numpy(), atol=1e-5)
    (tmp_path / "swapped_encoder.safetensors").write_bytes(
        (tmp_path / "swapped_decoder.safetensors").read_bytes()
    )
    with pytest.raises(WeightsError, match="not in TAESD's layout"):
        load_foreign(parse_foreign(f"taesd:{tmp_path / 'swapped_encoder.safetensors'}"))


OBJECT = """
import torch.nn.functional as F

class Halved:
    def encode(self, x):
        return (F.avg_pool2d(x, 2),)
    def decode(self, z):
        return F.interpolate(z, scale_factor=2)

made = Halved()
no_model = 3

def broken():
    raise RuntimeError("no weights here")

class Constant(Halved):
    def decode(self, z):
        return z
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(OBJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_models"
    sys.modules.pop("my_models", None)


@pytest.mark.parametrize("attribute", ["made", "Halved"])
def test_a_python_object(module, attribute, pictures):
    codec = load_foreign(parse_foreign(f"{module}:{attribute}"))
    assert (codec.space.model, codec.space.downsampling_factor) == (f"my_models.{attribute}", 2)
    expected = pictures.reshape(2, 3, 16, 2, 24, 2).mean((3, 5))
    assert np.allclose(codec.encode(pictures), expected, atol=1e-6)


def test_what_is_no_model(module, tmp_path):
    (tmp_path / "text_encoder.pth").write_text("no weights")
    (tmp_path / "text_decoder.pth").write_text("no weights")
    (tmp_path / "empty").mkdir()
    for name, words in {
        "no_such_module:vae": "no such Python object",
        f"{module}:nothing": "no such Python object",
        f"{module}:no_model": "encode and decode",
        f"{module}:broken": "no weights here",
        f"{module}:Constant": "gave no picture of that size",
        "taesd:gone_encoder.pth": "no such file",
        "taesd:text_encoder.pth": "cannot be read as weights",
        "diffusers:empty": "diffusers cannot load empty",
        "diffusers:/not/here": "no such folder",
    }.items():
        with pytest.raises(WeightsError, match=words):
            load_foreign(parse_foreign(name))
    with pytest.raises(WeightsError, match="only auravae eval"):
        load_codec("diffusers:somewhere/else")
    (tmp_path / "small:copy").write_text("")
    assert parse_foreign("small:copy") is None and parse_foreign("linear") is None


def test_an_evaluation_measures_it_beside_ours(folder, module, tmp_path, pictures):
    (tmp_path / "photos").mkdir()
    pixels = from_unit(pictures[0])
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    models = ["linear", f"diffusers:{folder / 'kl'}", f"{module}:made"]
    result = evaluate(str(tmp_path / "photos"), models, lpips="none")
    assert [model["label"] for model in result.summary["models"]] == [
        "linear",
        "kl",
        "my_models.made",
    ]
    assert all(model["quality"]["psnr"]["pictures"] == 1 for model in result.summary["models"])
    assert result.summary["models"][2]["certificate"]["action_exact"]
    with pytest.raises(MissingInputError, match=r"nothing\.png"):
        evaluate("nothing.png", models)
