"""The diffusers adapter: the interface of AutoencoderKL, in a pipeline, on disk and in training."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from safetensors.torch import load_file, save_file

from auravae_cli.adapters import diffusers_vae
from auravae_cli.adapters.diffusers_vae import AuraEquiVAE
from auravae_cli.errors import ComputeError, WeightsError
from auravae_cli.model.codec import load_codec
from auravae_cli.symmetry.group import GROUP, GroupElement

torch.set_num_threads(1)  # the tests run on two cores, side by side

REPOSITORY = Path(__file__).parents[2]
TINY = REPOSITORY / "tests" / "golden" / "tiny_weights_bf16.safetensors"
FLIPS = [str(g) for g in GROUP[1:]]


@pytest.fixture(scope="module")
def small():
    return AuraEquiVAE.from_model("small")


@pytest.fixture
def tiny():
    return AuraEquiVAE.from_model(str(TINY))


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def pipeline(vae):
    """A diffusion transformer of random weights on 16-channel latents of 8 x 8 cells."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=16,
        out_channels=32,
        num_layers=1,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    pipe = DiTPipeline(transformer.eval(), vae, DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generate(pipe):
    """Two pictures [2, 64, 64, 3] and the latents that the pipeline gave to its autoencoder."""
    seen = []
    decode = pipe.vae.decode
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipe.vae, "decode", lambda z: decode(seen.append(z) or z))
        generator = torch.Generator().manual_seed(1)
        result = pipe([3, 5], generator=generator, num_inference_steps=2, output_type="np")
    return result.images, seen[0]


def stated(vae):
    """What the config says of the model."""
    return {key: value for key, value in vae.config.items() if not key.startswith("_")}


@pytest.mark.parametrize("g", FLIPS)
def test_a_pipeline_generates_in_this_latent_space_and_flips_what_it_made(small, g):
    pipe = pipeline(small)
    pictures, z = generate(pipe)
    assert pictures.shape == (2, 64, 64, 3)
    assert z.shape == (2, 16, 8, 8)
    assert pictures.std() > 0.05
    with torch.no_grad():
        decoded = small.decode(z).sample
        flipped = small.decode(small.flip(z, g)).sample
    np.testing.assert_array_equal(
        pictures, ((decoded / 2 + 0.5).clamp(0, 1)).permute(0, 2, 3, 1).numpy()
    )
    mirrored = decoded.flip(GroupElement.parse(g).axes)
    assert torch.linalg.norm(flipped - mirrored) <= 3e-5 * torch.linalg.norm(decoded)
    plain = small.decode(z.flip(GroupElement.parse(g).axes)).sample  # without the signs
    assert torch.linalg.norm(plain - mirrored) > 0.05 * torch.linalg.norm(decoded)


def test_a_pipeline_is_saved_and_loaded_with_it(tiny, tmp_path):
    pipe = pipeline(tiny)
    pipe.save_pretrained(tmp_path)
    again = DiTPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.vae, AuraEquiVAE)
    np.testing.assert_array_equal(generate(again)[0], generate(pipe)[0])


@pytest.mark.parametrize("model", ["small", str(TINY)])
def test_it_computes_what_the_codec_computes(model, images):
    """The network as it is, since gradients may be asked for: without canonical mirror images."""
    vae, codec = (
        AuraEquiVAE.from_model(model),
        load_codec(model, device="cpu", dtype="float32", symmetrize="none"),
    )
    z = vae.encode(images).latent_dist.mode()
    assert torch.equal(z, codec.encode(images))
    expected = codec.decode(z)
    assert torch.equal(vae.decode(z).sample, expected)
    assert vae.space == codec.space
    assert torch.equal(vae(images).sample, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_has_the_format_that_is_asked_for(dtype):
    vae = AuraEquiVAE.from_model("small", dtype=dtype)
    assert {x.dtype for x in vae.parameters()} == {dtype}


def test_the_posterior_is_a_point(tiny, images):
    posterior = tiny.encode(images).latent_dist
    z = posterior.mode()
    generator = torch.Generator().manual_seed(7)
    before = generator.get_state()
    assert torch.equal(posterior.sample(generator), z)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(posterior.mean, z)
    assert posterior.parameters.shape == (2, 32, 4, 6)
    assert not posterior.std.any()
    assert not posterior.var.any()
    assert posterior.logvar.shape == z.shape
    assert posterior.kl().item() == 0


def test_the_forms_without_a_dict(tiny, images):
    (posterior,) = tiny.encode(images, return_dict=False)
    (decoded,) = tiny.decode(posterior.mode(), return_dict=False)
    (reconstruction,) = tiny(images, return_dict=False)
    assert torch.equal(decoded, reconstruction)


def test_the_config_is_what_pipelines_ask_for(small):
    config = small.config
    assert (config.scaling_factor, config.shift_factor, config.latent_channels) == (1.0, 0.0, 16)
    assert 2 ** (len(config.block_out_channels) - 1) == 8
    assert not config.force_upcast
    assert not hasattr(config, "latents_mean")


def test_a_folder_gives_back_the_same_bits(small, tmp_path, images):
    small.save_pretrained(tmp_path / "vae")
    names = {path.name for path in (tmp_path / "vae").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    again = AuraEquiVAE.from_pretrained(tmp_path / "vae")
    assert again.space == small.space
    assert stated(again) == stated(small)
    assert not again.training
    for name, tensor in small.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(again(images).sample, small(images).sample)


def test_number_formats(tiny, images):
    exact = tiny.encode(images).latent_dist.mode()
    half = tiny.to(torch.bfloat16)
    z = half.encode(images.bfloat16()).latent_dist.mode()
    assert z.dtype == torch.bfloat16
    assert 0 < (z.float() - exact).abs().max() < 0.2
    assert half.decode(z).sample.dtype == torch.bfloat16
    back = half.to(torch.float32)
    assert back.decode(exact).sample.dtype == torch.float32
    assert AuraEquiVAE.from_model(str(TINY), dtype=torch.float16).dtype == torch.float16


def test_tiling_is_exact(tiny, monkeypatch):
    images = torch.rand(1, 3, 320, 240, generator=torch.Generator().manual_seed(0)) * 2 - 1
    z = tiny.encode(images).latent_dist.mode()
    plain = tiny.decode(z).sample
    monkeypatch.setattr("auravae_cli.adapters.diffusers_vae.TILING_MEMORY", 1)
    for memory in (None, 24_000_000):
        tiny.enable_tiling(memory=memory)
        budget = tiny._plan((320, 240)).memory
        assert budget == memory if memory else budget < 30_000_000  # three maps of 9.8 MB
        torch.testing.assert_close(tiny.encode(images).latent_dist.mode(), z, rtol=0, atol=5e-4)
        torch.testing.assert_close(tiny.decode(z).sample, plain, rtol=0, atol=5e-4)
    tiny.disable_tiling()
    assert tiny._plan((320, 240)).memory is None
    assert torch.equal(tiny.decode(z).sample, plain)


def test_files_of_the_references_trainer_load(tiny, tmp_path):
    """It compiles each half, inside a wrapper for several GPUs; other loaders are in tests/model/network."""
    state = {}
    for name, tensor in load_file(TINY).items():
        half, _, rest = name.partition(".")
        state[f"module.{half}._orig_mod.{rest}"] = tensor
    save_file(state, tmp_path / "reference.safetensors")
    found = AuraEquiVAE.from_model(str(tmp_path / "reference.safetensors")).state_dict()
    expected = tiny.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_tiling_is_called_as_diffusers_calls_it(tiny):
    """AutoencoderKL took ``use_tiling``; others take sizes of tiles, or have them set."""
    sides = (512, 512)
    tiny.enable_tiling(True)
    whole = tiny._plan(sides).memory
    tiny.enable_tiling(tile_sample_min_height=64, tile_sample_min_width=96)
    small = tiny._plan(sides).memory
    assert small < whole
    assert small >= tiny._plan(sides).needs(64, 96)
    tiny.tile_sample_min_size = 512
    assert (tiny.tile_sample_min_width, tiny.tile_latent_min_size) == (512, 64)
    assert tiny._plan(sides).memory > small
    tiny.tile_latent_min_size = 8
    assert tiny.tile_sample_min_size == 64
    tiny.enable_tiling(False)
    assert tiny._plan(sides).memory is None
    assert isinstance(tiny, diffusers_vae.AutoencoderMixin)
    assert diffusers_vae.AutoencoderMixin.__module__.startswith("diffusers")


def test_what_is_compiled_is_the_plain_network(tiny, monkeypatch):
    """`torch.compile` traces what runs under it, and could not trace strips, threads and kernels in C."""
    z = torch.zeros(1, 16, 2, 3)
    expected = tiny.decode(z).sample
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(tiny, "_plan", None)
    with torch.no_grad():
        torch.testing.assert_close(tiny.decode(z).sample, expected, rtol=0, atol=1e-4)


def test_gradients_go_through_what_is_compiled():
    """Traced as a whole, backwards too; which instructions a backend makes of that is its own affair."""
    torch.manual_seed(0)
    vae = AuraEquiVAE(ch=64, ch_mult=(1,), num_res_blocks=0).requires_grad_(True)
    z = torch.randn(1, 16, 2, 3, requires_grad=True)
    decode = torch.compile(vae.decode, backend="aot_eager", fullgraph=True)
    trained = [z, *vae.decoder.parameters()]
    found, expected = (
        torch.autograd.grad(run(z).sample.square().sum(), trained) for run in (decode, vae.decode)
    )
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_budget_that_is_too_small_is_refused(tiny):
    tiny.enable_tiling(memory=1000)
    with pytest.raises(ComputeError, match="not enough memory"):
        tiny.decode(torch.zeros(1, 16, 8, 8))


def test_slicing_runs_one_picture_at_a_time(tiny, images, monkeypatch):
    whole = tiny(images).sample
    sizes = []
    genuine = tiny._plan
    tiny.enable_slicing()
    monkeypatch.setattr(tiny, "_plan", lambda sides: sizes.append(sides) or genuine(sides))
    torch.testing.assert_close(tiny(images).sample, whole, rtol=0, atol=5e-4)
    assert len(sizes) == 4
    tiny.disable_slicing()
    tiny(images)
    assert len(sizes) == 6


def test_what_it_gives_can_be_trained_on(tiny, images):
    """Autograd refuses tensors that were made in inference mode."""
    with torch.no_grad():
        z = tiny.encode(images).latent_dist.sample()
        decoded = tiny.decode(z).sample
    for given in (z, decoded):
        layer = torch.nn.Conv2d(given.shape[1], 4, 1)
        layer(given).square().mean().backward()
        assert layer.weight.grad.abs().sum() > 0


def test_gradients_reach_a_latent_and_unfrozen_weights(tiny):
    z = torch.randn(1, 16, 2, 3, requires_grad=True)
    tiny.decode(z).sample.square().mean().backward()
    assert z.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in tiny.parameters())
    tiny.requires_grad_(True)
    tiny.decode(z.detach()).sample.square().mean().backward()
    assert tiny.decoder.conv_in.weight.grad.abs().sum() > 0
    plain = tiny.decode(z).sample.detach()
    with torch.no_grad():
        torch.testing.assert_close(tiny.decode(z).sample, plain, rtol=0, atol=5e-4)


def test_hooked_layers_are_called(tiny, images):
    """As accelerate does where it fetches weights from the CPU for each layer."""
    called = []
    genuine = tiny.encoder.conv_in.forward
    tiny.encoder.conv_in.forward = lambda x: called.append(1) or genuine(x)
    tiny.encoder.conv_in._hf_hook = object()
    tiny.encode(images)
    assert called


@pytest.mark.parametrize("shape", [(1, 3, 30, 32), (1, 4, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_pictures_of_another_shape_are_refused(tiny, shape):
    with pytest.raises(ValueError, match=r"multiples of 8, found"):
        tiny.encode(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (16, 8, 8), (1, 16, 0, 8)])
def test_latents_of_another_shape_are_refused(tiny, shape):
    with pytest.raises(ValueError, match=r"expected \[B, 16, h, w\], found"):
        tiny.decode(torch.zeros(shape))


def test_what_is_not_finite_is_no_latent(tiny):
    with pytest.raises(ComputeError, match="NaN"):
        tiny.encode(torch.full((1, 3, 8, 8), torch.nan))


def test_flips_are_named_and_exact(tiny):
    z = torch.randn(2, 16, 3, 5).bfloat16()
    assert torch.equal(tiny.flip(tiny.flip(z, "h"), "h"), z)
    assert torch.equal(tiny.flip(tiny.flip(z, "h"), "v"), tiny.flip(z, "hv"))
    assert torch.equal(tiny.flip(z, "h")[:, 12:14], -z.flip(-1)[:, 12:14])
    with pytest.raises(ValueError, match="expected e, h, v or hv"):
        tiny.flip(z, "horizontal")


def test_the_linear_model_is_no_network():
    with pytest.raises(WeightsError, match="no network"):
        AuraEquiVAE.from_model("linear")


def test_a_missing_diffusers_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, diffusers_vae.__name__)
    with pytest.raises(ImportError, match="pip install diffusers"):
        importlib.import_module(diffusers_vae.__name__)
