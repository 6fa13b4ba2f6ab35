"""A run in rows gives what the plain run gives, however little memory there is, and keeps to it."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from auravae_cli.images.read import from_unit
from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu import native
from auravae_cli.model.cpu.block_norms import Affine
from auravae_cli.model.cpu.buffers import Buffers
from auravae_cli.model.cpu.lazy_layers import Convolved, Doubled, Halved, Residual, first_half
from auravae_cli.model.cpu.lazy_maps import LazyMap, StoredMap, keep as keep_rows, statistics
from auravae_cli.model.cpu.native_half import NativeHalf
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.network.torch_half import TorchHalf
from auravae_cli.model.network.torch_threads import crew
from auravae_cli.model.planning import run_plan as plan_module, strip_plan
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.run_plan import SHARE_OF_FREE
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS, Pass, Search
from auravae_cli.model.spec.registry import find_model
from tests.model.modules import modules_of


@pytest.fixture(params=["native", "torch"])
def kernels(request):
    """Our own kernels, and without them."""
    if request.param == "native" and native.kernels() is None:
        pytest.skip("no C compiler here")
    return request.param == "native"


SMALL = find_model("small").architecture


@pytest.fixture(scope="module")
def small():
    """The modules of `small`, on the CPU in float32."""
    return modules_of("small")


@pytest.fixture(scope="module")
def natives(small):
    """Its halves by our own kernels."""
    return {part: native_half(module) for part, module in small.items()}


@pytest.fixture
def halves(small, natives, kernels):
    """Its halves by our own kernels, or by torch."""
    return natives if kernels else {part: TorchHalf(module) for part, module in small.items()}


def native_half(module):
    return NativeHalf({name: tensor.numpy() for name, tensor in module.state_dict().items()})


def plan_for(architecture, part, size, megabytes=None, **arithmetic):
    """One within a budget, or without; where no plan fits it, nothing is kept that must not be."""
    search = Search(tuple(layers(architecture, part)), 1, *size, Arithmetic(**arithmetic))
    if megabytes is None:
        return search.everything_kept()
    return search.cheapest(int(megabytes * 2**20)) or search.thinnest()


def run(plan, half, part, x, architecture=SMALL, buffers=None):
    """What a half makes of a tensor in strips."""
    chain = layers(architecture, part)
    if isinstance(half, NativeHalf):
        return torch.from_numpy(Streamer(plan, half, buffers).run(chain, x.numpy()))
    with torch.inference_mode(), crew():
        return Streamer(plan, half, buffers).run(chain, x)


def pictures(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth + 0.1 * torch.randn(1, 3, height, width, generator=generator)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("megabytes", [0, 16, 24, None])
@pytest.mark.parametrize(("height", "width"), [(8, 16), (72, 40)])
def test_the_result_is_that_of_the_plain_run(
    small, halves, kernels, height, width, megabytes, threads
):
    images = pictures(height, width)

    def streamed(part, x):
        how = {"threads": threads, "native": kernels}
        plan = plan_for(SMALL, part, (height, width), megabytes, **how)
        return run(plan, halves[part], part, x)

    with torch.no_grad():
        latents = small["encoder"](images)
        decoded = small["decoder"](latents)
    streamed_latents = streamed("encoder", images)
    streamed_decoded = streamed("decoder", latents)
    torch.testing.assert_close(streamed_latents, latents, atol=2e-5, rtol=0)
    torch.testing.assert_close(streamed_decoded, decoded, atol=2e-5, rtol=0)
    steps = [from_unit(x[0].numpy()).astype(int) for x in (decoded, streamed_decoded)]
    difference = np.abs(steps[0] - steps[1])
    assert difference.max() <= 1 and (difference == 0).mean() > 0.999


@pytest.mark.parametrize("megabytes", [0, None])
def test_other_widths_and_bfloat16(codec, tiny_path, kernels, megabytes):
    """The tiny reference checkpoint: heads of one, two blocks a level; bfloat16 rounds alike."""
    images, architecture = pictures(48, 40), codec.autoencoder.architecture
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.06)):
        full = dtype == torch.float32
        how = {"itemsize": dtype.itemsize, "winograd": full, "native": full and kernels}
        x = images.to(dtype)
        for part, module in modules_of(str(tiny_path), dtype).items():
            plan = plan_for(architecture, part, (48, 40), megabytes, **how)
            half = native_half(module) if full and kernels else TorchHalf(module)
            with torch.no_grad():
                expected = module(x)
            found = run(plan, half, part, x, architecture)
            assert found.dtype == dtype
            error = (found.float() - expected.float()).norm() / expected.float().norm()
            assert error < tolerance
            x = expected


@pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (72, 40)])
def test_neither_memory_nor_strips_nor_threads_change_a_bit(small, natives, part, height, width):
    """Of what our own kernels compute: maps that are computed again, and again in other strips."""
    x = pictures(height, width)
    found, plans = [], set()
    with torch.no_grad():
        x = small["encoder"](x) if part == "decoder" else x
    for threads in (1, 3):
        chain, how = tuple(layers(SMALL, part)), Arithmetic(threads=threads, native=True)
        search = Search(chain, 1, height, width, how)
        least = search.least()
        starts = ((1, 0.0), (1.5, 0.35), (2.5, 0.65))  # without looking further
        tight = [search._greedy(int(times * least), share).plan for times, share in starts]
        for plan in (search.everything_kept(), *tight):
            plans |= {plan.passes}
            found.append(run(plan, natives[part], part, x))
    assert len(plans) > 3 or (height, width) == (8, 8)
    assert all(torch.equal(result, found[0]) for result in found)


@pytest.mark.parametrize("strips", [1, 2, 3])
@pytest.mark.parametrize("height", [2, 6, 14])
def test_every_layer_by_itself(kernels, height, strips):
    """All cuts of all strips, against torch on the whole."""
    tolerance = 1e-5 if kernels else 1e-6
    torch.manual_seed(0)
    x = torch.randn(2, 4, height, 6)
    layers = nn.ModuleDict({"conv": nn.Conv2d(4, 5, 3, padding=1)})
    layers["downsample"] = nn.Conv2d(4, 4, 3, stride=2)
    conv, down = layers["conv"], layers["downsample"]
    doubled = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    with torch.inference_mode():
        half = native_half(layers.requires_grad_(False)) if kernels else TorchHalf(layers)
        source = StoredMap(x.numpy() if kernels else x, half)
        ready = half.convolution("conv")
        for rows, expected in (
            (Convolved(source, ready), conv(x)),
            (Halved(source, half.convolution("downsample")), down(F.pad(x, (0, 1, 0, 1)))),
            (Doubled(source, ready), conv(doubled)),
        ):
            how = Pass(min(strips, -(-rows.shape[2] // BLOCK_ROWS)), 1)
            found = torch.as_tensor(keep_rows(rows, how, is_measured=False).values)
            torch.testing.assert_close(found, expected, atol=tolerance, rtol=1e-5)


def test_statistics_do_not_depend_on_the_strips_nor_lose_digits(halves, kernels):
    """A mean that dwarfs the deviation, where sums of squares in float32 would fail."""
    torch.manual_seed(0)
    x = 300 + torch.randn(1, 64, 5 * BLOCK_ROWS + 3, 24)
    weight, bias = torch.randn(64), torch.randn(64)
    source = StoredMap(x.numpy() if kernels else x, halves["encoder"])
    with crew():
        known = [
            statistics(source, how) for how in (Pass(6, 1), Pass(2, 1), Pass(3, 2), Pass(1, 1))
        ]
    first, *others = (Affine.of(weight.numpy(), bias.numpy(), one) for one in known)
    for again in others:
        assert (first.scale == again.scale).all() and (first.shift == again.shift).all()
    exact = F.group_norm(x.double(), 32, weight.double(), bias.double(), 1e-6)
    found = torch.from_numpy(first(x.double().numpy()))
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [64, 200])
def test_neither_threads_nor_strips_change_more_than_rounding(halves, side, monkeypatch):
    """Strips are cut between the convolutions' tiles and the norms' blocks."""
    images, found = pictures(side, side), []
    given = torch.get_num_threads()
    buffers = Buffers()
    for threads, cached in ((1, 1 << 30), (1, 1 << 18), (2, 5 << 19), (3, 1)):
        monkeypatch.setattr(strip_plan, "CACHED_BYTES", cached)
        plan = plan_for(SMALL, "encoder", (side, side), threads=threads)
        torch.set_num_threads(threads)
        try:
            found.append(run(plan, halves["encoder"], "encoder", images, buffers=buffers))
        finally:
            torch.set_num_threads(given)
    for latents in found:
        torch.testing.assert_close(latents, found[0], atol=5e-5, rtol=0)


def test_memory_is_used_again(halves):
    """The second picture of a size needs hardly any new memory for its features, nor gets the first's."""
    buffers, images = Buffers(), pictures(96, 64)

    def encode(x):
        plan = plan_for(SMALL, "encoder", (96, 64))
        return run(plan, halves["encoder"], "encoder", x, buffers=buffers)

    first = encode(images)
    held, kept = buffers.nbytes, first.clone()
    encode(-images)
    assert 0 < held <= buffers.nbytes <= 1.02 * held
    assert torch.equal(first, kept)


def test_a_picture_that_does_not_fit_plainly_is_streamed(monkeypatch):
    codec = load_codec("small", device="cpu")
    photo = from_unit(pictures(128, 160)[0].numpy())
    expected = codec.encode_image(photo)
    picture = codec.decode_latent(expected)
    codec.autoencoder._buffers.clear()
    little = codec.autoencoder.least_memory(128, 160)
    monkeypatch.setattr(plan_module, "free_memory", lambda: int(little / SHARE_OF_FREE))
    assert codec.autoencoder.plan("decoder", 1, 128, 160).tiles > 1
    found = codec.encode_image(photo)
    np.testing.assert_allclose(found.to_float32(), expected.to_float32(), atol=4e-3)
    assert np.abs(codec.decode_latent(expected).astype(int) - picture).max() <= 1


class Counted(LazyMap):
    """Rows that know how often they were asked for."""

    def __init__(self, values, half):
        super().__init__(tuple(values.shape), half)
        self.values, self.asked = values, 0

    def fill(self, out, start):
        self.asked += out.shape[2]
        out[...] = self.values[:, :, start : start + out.shape[2]]


def test_a_block_asks_once_for_its_input(halves, kernels):
    """Not once for the sum and once for the convolutions, which would double with every block."""
    half, name = halves["decoder"], "mid.block_1"
    x = torch.randn(1, 256, 64, 8)
    source, how = Counted(x.numpy() if kernels else x, half), Pass(1, 1)
    with torch.inference_mode(), crew():
        first = half.norm(f"{name}.norm1", statistics(source, how))
        hidden = first_half(name, source, first)
        second = half.norm(f"{name}.norm2", statistics(hidden, how))
        output = Residual(source, hidden, name, (first, second))
        source.asked = 0
        output.rows(12, 24)
    # Two rows more on each side, and those of the tiles that they lie in.
    assert source.asked == (12 + 2 * 7 if kernels else 12 + 4)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("megabytes", [None, 40, 24])
def test_what_is_kept_is_what_the_plan_counts(halves, kernels, part, megabytes):
    """Maps and the memory that lies ready, at every step, in a picture after another one, too."""
    size, buffers, kept = (96, 128), Buffers(), []

    class Watched(Streamer):
        def _remember(self, rows):
            result = super()._remember(rows)
            kept.append(self._live() + self._buffers.nbytes)
            return result

    x = torch.randn(1, 3, *size) if part == "encoder" else torch.randn(1, 16, 12, 16)
    strips = plan_for(SMALL, part, size, megabytes, native=kernels)
    with torch.inference_mode(), crew():
        for _ in range(2):
            given = x.numpy() if kernels else x
            Watched(strips, halves[part], buffers).run(layers(SMALL, part), given)
            assert max(kept) <= strips.peak
            kept.clear()


def test_the_memory_asked_for_is_kept_to_by_every_command(monkeypatch, tmp_path):
    """From the option to the streamer."""
    from tests.cli.conftest import run_main

    rooms, genuine = [], Streamer.__init__

    def watched(self, plan, *arguments):
        rooms.append(plan.peak)
        genuine(self, plan, *arguments)

    monkeypatch.setattr(Streamer, "__init__", watched)
    photo = tmp_path / "a.png"
    Image.fromarray(from_unit(pictures(64, 96)[0].numpy())).save(photo)
    model = ("-m", "small", "--device", "cpu", "--memory", "24M")
    assert run_main("encode", photo, *model).code == 0
    assert run_main("decode", tmp_path / "a.safetensors", *model).code == 0
    assert run_main("roundtrip", photo, *model).code == 0
    assert len(rooms) == 4 and max(rooms) <= 24 << 20
    refused = run_main(
        "encode", photo, "--overwrite", *model[:-1], "1M", "-o", tmp_path / "b.safetensors"
    )
    assert refused.code == 1
    assert re.search(r"96 x 64 pixels take at least \d+ MiB, and 1 MiB may be used", refused.err)
