"""The ComfyUI nodes, called as ComfyUI calls them: by the names that they state."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from auravae_cli.adapters import comfyui
from auravae_cli.errors import LatentMismatchError, WeightsError
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import LoadedImage
from auravae_cli.model.codec import load_codec
from auravae_cli.symmetry.action import act, act_on_pixels
from auravae_cli.symmetry.group import GROUP
from auravae_cli.version import __version__

torch.set_num_threads(1)  # the tests run on two cores, side by side

REPOSITORY = Path(__file__).parents[2]
PACK = REPOSITORY / "integrations" / "comfyui"
TINY = REPOSITORY / "tests" / "golden" / "tiny_weights_bf16.safetensors"
DIRECTIONS = dict(zip(["horizontal", "vertical", "both"], GROUP[1:], strict=True))


def call(name, **inputs):
    """Run a node with the inputs that its INPUT_TYPES name; what it returns."""
    node = comfyui.NODE_CLASS_MAPPINGS[name]
    result = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(result, tuple)
    assert len(result) == len(node.RETURN_TYPES)
    return result[0]


@pytest.fixture(scope="module")
def linear():
    return call("AuraEquiVaeLoad", model="linear", device="cpu", dtype="auto")


@pytest.fixture(scope="module")
def tiny():
    return call("AuraEquiVaeLoad", model=str(TINY), device="cpu", dtype="float32")


@pytest.fixture
def image():
    """IMAGE [2, 37, 50, 3]: no multiples of 8, and nothing that a flip leaves as it is."""
    rows, columns = torch.meshgrid(torch.arange(37.0), torch.arange(50.0), indexing="ij")
    waves = [columns / 9, rows / 7, (rows + 2 * columns) / 20]
    one = torch.stack([0.5 + 0.4 * torch.sin(wave) for wave in waves], -1)
    return torch.stack([one, 1 - one])


@pytest.mark.parametrize("name", comfyui.NODE_CLASS_MAPPINGS)
def test_nodes_keep_the_conventions(name):
    node = comfyui.NODE_CLASS_MAPPINGS[name]
    inputs = node.INPUT_TYPES()
    named = {key for kind in ("required", "optional") for key in inputs.get(kind, {})}
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    assert named == set(parameters) - {"self"}
    for key, parameter in parameters.items():
        assert (
            key in inputs["required"] or key == "self" or parameter.default is not parameter.empty
        )
    for kind in inputs.values():
        for type_name, *_ in kind.values():
            assert type_name in ("IMAGE", "LATENT", "VAE") or isinstance(type_name, list)
    assert set(node.RETURN_TYPES) <= {"IMAGE", "LATENT", "VAE"}
    assert node.CATEGORY and node.DESCRIPTION
    assert comfyui.NODE_DISPLAY_NAME_MAPPINGS[name]


def test_the_folder_is_loaded_as_comfyui_loads_it():
    spec = importlib.util.spec_from_file_location(
        "custom_nodes.auraequivae", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.NODE_CLASS_MAPPINGS is comfyui.NODE_CLASS_MAPPINGS
    assert set(module.NODE_DISPLAY_NAME_MAPPINGS) == set(module.NODE_CLASS_MAPPINGS)


def test_the_folder_says_what_the_registry_asks_for():
    table = tomllib.loads((PACK / "pyproject.toml").read_text())
    assert table["project"]["version"] == __version__
    assert "comfyui" not in table["project"]["name"].lower()
    assert table["tool"]["comfy"]["DisplayName"]
    assert (PACK / "requirements.txt").read_text().split() == table["project"]["dependencies"]


@pytest.mark.parametrize("model", ["linear", "tiny"])
def test_a_picture_comes_back_in_its_size(request, image, model):
    vae = request.getfixturevalue(model)
    latent = call("AuraEquiVaeEncode", pixels=image, vae=vae)
    assert latent["samples"].shape == (2, 16, 5, 7)
    decoded = call("AuraEquiVaeDecode", samples=latent, vae=vae)
    assert decoded.shape == image.shape
    assert decoded.dtype == torch.float32
    assert decoded.min() >= 0
    assert decoded.max() <= 1
    if model == "linear":
        assert (decoded - image).abs().mean() < 0.05


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_flipped_latent_decodes_to_the_mirrored_picture(linear, image, direction):
    g = DIRECTIONS[direction]
    latent = call("AuraEquiVaeEncode", pixels=image, vae=linear)
    flipped = call("AuraEquiVaeFlip", samples=latent, direction=direction)
    decoded = call("AuraEquiVaeDecode", samples=latent, vae=linear)
    mirrored = decoded.flip([axis - 1 for axis in g.axes])
    result = call("AuraEquiVaeDecode", samples=flipped, vae=linear)
    assert torch.equal(result, mirrored)
    again = call("AuraEquiVaeFlip", samples=flipped, direction=direction, vae=linear)
    assert torch.equal(again["samples"], latent["samples"])
    assert again[comfyui.FRAME] == latent[comfyui.FRAME]


def test_a_mask_flips_too_and_all_else_stays(linear):
    samples = torch.randn(1, 16, 2, 3)
    mask = torch.arange(16.0 * 24).view(1, 1, 16, 24)
    given = {"samples": samples.clone(), "noise_mask": mask, "batch_index": [7]}
    flipped = call("AuraEquiVaeFlip", samples=given, direction="vertical")
    assert torch.equal(flipped["noise_mask"], mask.flip(-2))
    assert flipped["batch_index"] == [7]
    assert torch.equal(given["samples"], samples)
    assert comfyui.FRAME not in flipped


def test_a_latent_that_was_cropped_is_decoded_whole(linear, image):
    latent = call("AuraEquiVaeEncode", pixels=image, vae=linear)
    cropped = {**latent, "samples": latent["samples"][..., 1:4, :]}
    assert call("AuraEquiVaeDecode", samples=cropped, vae=linear).shape == (2, 24, 56, 3)
    made = {"samples": torch.zeros(1, 16, 2, 2)}
    assert call("AuraEquiVaeDecode", samples=made, vae=linear).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("model", ["linear", "tiny"])
def test_nodes_of_comfyui_take_the_vae(request, image, model):
    """What VAE Encode, VAE Decode and their tiled forms call."""
    vae = request.getfixturevalue(model)
    z = vae.encode(torch.cat([image, image[..., :1]], -1))  # with an alpha
    codec = load_codec(str(TINY) if model == "tiny" else model, device="cpu")
    middle = image[:, 2:34, 1:49].movedim(-1, 1)  # 5 and 2 pixels too many: 2 and 1 at the start
    assert torch.equal(z, codec.encode(middle * 2 - 1))
    assert torch.equal(vae.encode_tiled(image, tile_x=512, tile_y=512, overlap=64), z)
    decoded = vae.decode(z)
    assert decoded.shape == (2, 32, 48, 3)
    assert torch.equal(decoded, (codec.decode(z) / 2 + 0.5).clamp(0, 1).movedim(1, -1))
    tiled = vae.decode_tiled(z, tile_x=64, tile_y=64, overlap=8, tile_t=None, overlap_t=None)
    assert torch.equal(tiled, decoded)
    assert vae.spacial_compression_decode() == vae.spacial_compression_encode() == 8
    assert vae.temporal_compression_decode() is None
    assert vae.latent_channels == 16
    vae.throw_exception_if_invalid()
    assert not z.is_inference()


def test_the_weights_can_be_saved(tiny, linear):
    assert tiny.get_sd()["encoder.conv_in.weight"].shape[1] == 3
    assert {name.partition(".")[0] for name in tiny.get_sd()} == {"encoder", "decoder"}
    with pytest.raises(WeightsError, match="linear"):
        linear.get_sd()


def test_files_of_comfyui_are_offered_and_found(monkeypatch):
    folders = SimpleNamespace(
        get_filename_list=lambda kind: {"vae": ["mine.safetensors"]}[kind],
        get_full_path=lambda kind, name: {("vae", "mine.safetensors"): str(TINY)}[kind, name],
    )
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    ((names,), *_) = comfyui.LoadModel.INPUT_TYPES()["required"].values()
    assert names[0] == "small"
    assert {"linear", "mine.safetensors"} < set(names)
    vae = call("AuraEquiVaeLoad", model="mine.safetensors", device="cpu")
    assert vae.codec.space == load_codec(str(TINY), device="cpu").space


def test_a_file_that_is_no_such_model_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"other\.safetensors"):
        call("AuraEquiVaeLoad", model=str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize("name", ["AuraEquiVaeEncode", "AuraEquiVaeDecode", "AuraEquiVaeFlip"])
def test_another_vae_is_refused(name):
    foreign = SimpleNamespace()
    inputs = {
        "AuraEquiVaeEncode": {"pixels": torch.zeros(1, 8, 8, 3)},
        "AuraEquiVaeDecode": {"samples": {"samples": torch.zeros(1, 16, 1, 1)}},
        "AuraEquiVaeFlip": {"samples": {"samples": torch.zeros(1, 16, 1, 1)}, "direction": "both"},
    }[name]
    with pytest.raises(LatentMismatchError, match="SimpleNamespace"):
        call(name, vae=foreign, **inputs)


def test_the_frame_is_what_the_picture_was(linear, image):
    latent = call("AuraEquiVaeEncode", pixels=image, vae=linear)
    height, width, paddings = latent[comfyui.FRAME]
    assert (height, width) == (37, 50)
    assert {padding.padded(37, 50) for padding in paddings} == {(40, 56)}
    flipped = call("AuraEquiVaeFlip", samples=latent, direction="both")
    assert flipped[comfyui.FRAME] == (37, 50, tuple(p.act(GROUP[3]) for p in paddings))


@pytest.fixture
def photographs():
    """Four mirror images of a picture of 61 x 43 pixels, in a batch."""
    pixels = np.random.default_rng(0).integers(0, 256, (43, 61, 3), np.uint8)
    return np.stack([act_on_pixels(g, pixels) for g in GROUP])


def test_odd_pixels_are_where_the_command_puts_them(linear, photographs):
    """So that mirrored pictures have mirrored latents, and the node's are those of ``auravae encode``."""
    batch = torch.from_numpy(photographs.astype(np.float32) / 255)  # as Load Image makes it
    latent = call("AuraEquiVaeEncode", pixels=batch, vae=linear)
    for row, (g, pixels) in enumerate(zip(GROUP, photographs, strict=True)):
        prepared = Preparation().apply(LoadedImage(pixels, "ab", 1, ()), 8)
        expected = linear.codec.encode(torch.from_numpy(prepared.padded)[None])[0]
        torch.testing.assert_close(latent["samples"][row], expected, rtol=0, atol=1e-5)
        mirrored = act(g, latent["samples"][0], linear.codec.space.irreps)
        assert torch.equal(latent["samples"][row], mirrored)
    decoded = call("AuraEquiVaeDecode", samples=latent, vae=linear)
    for row, g in enumerate(GROUP):
        assert torch.equal(decoded[row], decoded[0].flip([axis - 1 for axis in g.axes]))


def test_some_latents_of_a_batch_keep_their_frames(linear, photographs):
    batch = torch.from_numpy(photographs.astype(np.float32) / 255)
    latent = call("AuraEquiVaeEncode", pixels=batch, vae=linear)
    decoded = call("AuraEquiVaeDecode", samples=latent, vae=linear)
    some = {**latent, "samples": latent["samples"][[3, 1]]}
    taken = call("AuraEquiVaeDecode", samples={**some, "batch_index": [3, 1]}, vae=linear)
    assert torch.equal(taken, decoded[[3, 1]])
    assert call("AuraEquiVaeDecode", samples=some, vae=linear).shape == (2, 48, 64, 3)
