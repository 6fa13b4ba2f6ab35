"""Networks prepared for a GPU give what their modules give. Here they run in torch, on the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.engine import prepared_halves
from auravae_cli.model.gpu import channels_last, fused
from auravae_cli.model.gpu.channels_last import Doubling, Features, prepare
from auravae_cli.model.network.autoencoder import Decoder, Encoder, Level
from auravae_cli.model.network.layers import Upsample
from auravae_cli.model.network.torch_half import TorchHalf
from auravae_cli.model.network.torch_threads import crew
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.strip_plan import Search
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.torch_network import TorchNetwork
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import GroupElement
from tests.model.modules import modules_of

ARCHITECTURES = {
    "widths that grow": Architecture(32, (1, 2, 4), 1, 4),
    "widths of small": Architecture(32, (3, 2, 4), 2, 16),
    "one level": Architecture(64, (1,), 1, 4),
}
SIZES = [(2, 5, 3), (1, 1, 1), (1, 4, 9)]


def network(kind, architecture, seed=0):
    """Random weights, with biases that show where they are lost."""
    torch.manual_seed(seed)
    module = kind(architecture).eval().requires_grad_(False)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.normal_(0.3, 0.5)
    return module


def given(kind, architecture, size):
    batch, height, width = size
    if kind is Decoder:
        return torch.randn(batch, architecture.latent_channels, height, width)
    factor = architecture.downsampling_factor
    return torch.randn(batch, 3, factor * height, factor * width)


def error(found, expected):
    assert found.shape == expected.shape
    return float((found.double() - expected).norm() / expected.norm())


@pytest.fixture(params=ARCHITECTURES)
def architecture(request):
    return ARCHITECTURES[request.param]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", [Encoder, Decoder])
@torch.inference_mode()
def test_float32_agrees_with_float64(kind, architecture, size):
    module, x = network(kind, architecture), given(kind, architecture, size)
    expected = copy.deepcopy(module).double()(x.double())
    found = prepare(copy.deepcopy(module), torch.float32)(x)
    assert found.dtype == torch.float32 and found.is_contiguous()
    assert error(found, expected) < 1e-5


@pytest.mark.parametrize("kind", [Encoder, Decoder])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@torch.inference_mode()
def test_it_errs_no_more_than_the_modules_do(kind, dtype):
    """In 16 bits it rounds less often: biases, norms and folded weights once. The mean of some nets."""
    architecture = ARCHITECTURES["widths of small"]
    ours, plain = [], []
    for seed in range(3):
        module = network(kind, architecture, seed)
        x = given(kind, architecture, (1, 6, 6))
        expected = copy.deepcopy(module).double()(x.to(dtype).double())
        plain.append(error(copy.deepcopy(module).to(dtype)(x.to(dtype)), expected))
        ours.append(error(prepare(module, dtype)(x.to(dtype)), expected))
    assert np.mean(ours) < np.mean(plain) < 0.05


@pytest.mark.parametrize("kind", [Encoder, Decoder])
@torch.inference_mode()
def test_the_input_is_left_alone(kind, architecture):
    x = given(kind, architecture, (1, 3, 3))
    before = x.clone()
    run = prepare(network(kind, architecture), torch.float32)
    assert torch.equal(run(x), run(x))
    assert torch.equal(x, before)


@torch.inference_mode()
def test_a_batch_is_its_pictures():
    architecture = ARCHITECTURES["widths that grow"]
    run = prepare(network(Decoder, architecture), torch.float32)
    x = given(Decoder, architecture, (3, 4, 4))
    alone = torch.cat([run(item[None]) for item in x])
    torch.testing.assert_close(run(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Encoder, Decoder])
def test_the_modules_share_their_weights_and_still_run(kind, architecture):
    """What does not fit the memory runs in rows, from the modules."""
    module = network(kind, architecture)
    prepared = prepare(module, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    shared = [c for c in convs if c.weight.data_ptr() in _pointers(prepared)]
    assert len(shared) >= len(convs) - len(architecture.ch_mult)
    x = given(kind, architecture, (1, 8, 8)).bfloat16()
    side = 8 * architecture.downsampling_factor
    chain = tuple(layers(architecture, kind.__name__.lower()))
    plan = Search(chain, 1, side, side, Arithmetic(2, winograd=False)).thinnest()
    with torch.inference_mode(), crew():
        expected = prepared(x).double()
        assert error(Streamer(plan, TorchHalf(module)).run(chain, x), expected) < 0.05
        assert error(module(x), expected) < 0.05


def _pointers(thing, seen=None):
    """The addresses of all tensors within an object."""
    seen = {} if seen is None else seen
    if id(thing) in seen:
        return set()
    seen[id(thing)] = thing
    if isinstance(thing, torch.Tensor):
        return {thing.data_ptr()}
    inner = (
        thing
        if isinstance(thing, list)
        else vars(thing).values()
        if hasattr(thing, "__dict__")
        else []
    )
    return set().union(*(_pointers(item, seen) for item in inner), set())


@pytest.mark.parametrize("form", ["transposed", "merged"])
@torch.inference_mode()
def test_both_forms_of_the_step_up(form):
    torch.manual_seed(0)
    layer = Upsample(32).requires_grad_(False)
    x = torch.randn(2, 32, 8, 4).to(memory_format=torch.channels_last)
    expected = copy.deepcopy(layer).double()(x.double())
    found = getattr(Doubling(layer.conv, torch.float32), form)(x)
    whole = found.values + layer.conv.bias[:, None, None]
    assert error(whole, expected) < 1e-6
    mean = found.statistics.mean.mean(1)  # of chunks of equal size
    torch.testing.assert_close(mean, found.values.mean((2, 3)), rtol=0, atol=1e-5)


@torch.inference_mode()
def test_with_the_kernels(monkeypatch):
    """A level down and one up, through the Triton kernels in its interpreter."""
    pytest.importorskip("triton", reason="Triton is not installed on this system")
    kernels, device = fused.triton_kernels(), "cuda" if torch.cuda.is_available() else "cpu"
    monkeypatch.setattr(fused, "kernels_for", lambda _: kernels)
    torch.manual_seed(0)
    x = torch.randn(1, 32, 4, 6).to(device, memory_format=torch.channels_last)
    for step in ("downsample", "upsample"):
        level = Level(32, 64, 1, step).requires_grad_(False).to(device)
        expected = copy.deepcopy(level).double()(x.double() + 0.5)
        pending = torch.full((32,), 0.5, device=device)
        prepared = channels_last.Level(level, torch.float32, pending)
        found = prepared(Features(x)).values + prepared.pending[:, None, None]
        assert error(found, expected) < 1e-5


def prepared_codec(path) -> Codec:
    """The codec of a checkpoint, with its network prepared as for a GPU."""
    codec = load_codec(str(path), device="cpu", dtype="float32")
    architecture, modules = codec.autoencoder.architecture, modules_of(str(path))
    prepared = prepared_halves(modules, torch.float32, architecture.downsampling_factor)
    where = torch.device("cpu"), torch.float32
    network = TorchNetwork(modules, architecture, *where, 1 << 40, prepared)
    assert network.engine == "channels-last" != codec.engine
    return Codec(codec.space, network)


@pytest.mark.parametrize("g", ["e", "h", "v", "hv"])
def test_the_golden_numbers(g, golden, tiny_path):
    codec, expected = prepared_codec(tiny_path), load_file(golden / "tiny_io.safetensors")
    latent = codec.autoencoder.encode(expected["image"])
    assert error(torch.from_numpy(latent), torch.from_numpy(expected["latent_raw"])) < 1e-5
    flipped = act(GroupElement.parse(g), expected["latent"], codec.space.irreps)
    decoded = expected["decoded" if g == "e" else f"decoded_{g}"]
    found = codec.decode(flipped)
    assert found.dtype == np.float32
    assert error(torch.from_numpy(found), torch.from_numpy(decoded)) < 1e-5


@pytest.mark.parametrize("g", ["h", "v", "hv"])
def test_small_stays_equivariant(g):
    from auravae_cli.model.spec.registry import find_weights

    codec = prepared_codec(find_weights("small")[0])
    g = GroupElement.parse(g)
    z = np.random.default_rng(0).standard_normal((1, 16, 6, 5)).astype(np.float32)
    picture = codec.decode(z)
    flipped = codec.decode(act(g, z, codec.space.irreps))
    assert np.abs(flipped - np.flip(picture, g.axes)).max() < 1e-5 * np.abs(picture).max()
    x = np.random.default_rng(1).uniform(-1, 1, (1, 3, 40, 48)).astype(np.float32)
    latent = codec.encode(x)
    found = codec.encode(np.flip(x, g.axes).copy())
    assert np.abs(found - act(g, latent, codec.space.irreps)).max() < 1e-5 * np.abs(latent).max()
