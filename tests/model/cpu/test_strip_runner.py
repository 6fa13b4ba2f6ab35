"""A run in rows gives what the plain run gives, however little memory there is, and keeps to it."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from auravae_cli.images.read import from_unit
from auravae_cli.model.codec import load_codec
from auravae_cli.model.cpu import native, strip_runner
from auravae_cli.model.cpu.block_norms import Affine
from auravae_cli.model.cpu.buffers import Buffers
from auravae_cli.model.cpu.lazy_layers import Convolved, Doubled, Halved, Residual, first_half
from auravae_cli.model.cpu.lazy_maps import LazyMap, StoredMap, keep as keep_rows, statistics
from auravae_cli.model.cpu.strip_runner import Streamer
from auravae_cli.model.planning import run_plan as plan_module, strip_plan
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.run_plan import SHARE_OF_FREE
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS, Pass, Search


@pytest.fixture(params=["native", "torch"])
def kernels(request, monkeypatch):
    """Our own kernels, and without them."""
    if request.param == "torch":
        monkeypatch.setattr(native, "kernels", lambda: None)
    elif native.kernels() is None:
        pytest.skip("no C compiler here")
    return request.param == "native"


@pytest.fixture(scope="module")
def small():
    """The network of `small`, on the CPU in float32."""
    return load_codec("small", device="cpu").autoencoder


def streamer(architecture, part, size, megabytes=None, buffers=None, **arithmetic):
    """One within a budget, or without; where no plan fits it, nothing is kept that must not be."""
    search = Search(tuple(layers(architecture, part)), 1, *size, Arithmetic(**arithmetic))
    if megabytes is None:
        return Streamer(search.everything_kept(), buffers)
    return Streamer(search.cheapest(int(megabytes * 2**20)) or search.thinnest(), buffers)


def pictures(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 4, generator=generator) * 2 - 1
    smooth = nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth + 0.1 * torch.randn(1, 3, height, width, generator=generator)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("megabytes", [0, 16, 24, None])
@pytest.mark.parametrize(("height", "width"), [(8, 16), (72, 40)])
def test_the_result_is_that_of_the_plain_run(small, kernels, height, width, megabytes, threads):
    encoder, decoder = small.parts["encoder"], small.parts["decoder"]
    images = pictures(height, width)

    def run(part):
        how = {"threads": threads, "native": kernels}
        return streamer(small.architecture, part, (height, width), megabytes, **how)

    with torch.inference_mode():
        latents = encoder(images)
        streamed_latents = run("encoder").encode(encoder, images)
        decoded = decoder(latents)
        streamed_decoded = run("decoder").decode(decoder, latents)
    torch.testing.assert_close(streamed_latents, latents, atol=2e-5, rtol=0)
    torch.testing.assert_close(streamed_decoded, decoded, atol=2e-5, rtol=0)
    steps = [from_unit(x[0].numpy()).astype(int) for x in (decoded, streamed_decoded)]
    difference = np.abs(steps[0] - steps[1])
    assert difference.max() <= 1 and (difference == 0).mean() > 0.999


@pytest.mark.parametrize("megabytes", [0, None])
def test_other_widths_and_bfloat16(codec, kernels, megabytes):
    """The tiny reference checkpoint: heads of one, two blocks a level; bfloat16 rounds alike."""
    images = pictures(48, 40)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.06)):
        encoder = codec.autoencoder.parts["encoder"].to(dtype)
        decoder = codec.autoencoder.parts["decoder"].to(dtype)
        try:
            with torch.inference_mode():
                latents = encoder(images.to(dtype))
                full = dtype == torch.float32
                how = {"itemsize": dtype.itemsize, "winograd": full, "native": full and kernels}
                architecture, size = codec.autoencoder.architecture, (48, 40)
                run = streamer(architecture, "encoder", size, megabytes, **how)
                found = run.encode(encoder, images.to(dtype))
                run = streamer(architecture, "decoder", size, megabytes, **how)
                decoded, streamed_decoded = decoder(latents), run.decode(decoder, latents)
        finally:
            encoder.float(), decoder.float()
        assert found.dtype == dtype
        for a, b in ((found, latents), (streamed_decoded, decoded)):
            error = (a.float() - b.float()).norm() / b.float().norm()
            assert error < tolerance


@pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")
@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (72, 40)])
def test_neither_memory_nor_strips_nor_threads_change_a_bit(small, part, height, width):
    """Of what our own kernels compute: maps that are computed again, and again in other strips."""
    x = pictures(height, width)
    found, plans = [], set()
    with torch.inference_mode():
        x = small.parts["encoder"](x) if part == "decoder" else x
        for threads in (1, 3):
            chain, how = tuple(layers(small.architecture, part)), Arithmetic(threads=threads)
            search = Search(chain, 1, height, width, dataclasses.replace(how, native=True))
            least = search.least()
            starts = (
                (1, 0.0),
                (1.5, 0.35),
                (2.5, 0.65),
            )  # without looking further, which takes longer
            tight = [search._greedy(int(times * least), share).plan for times, share in starts]
            for plan in (search.everything_kept(), *tight):
                run, plans = Streamer(plan), plans | {plan.passes}
                found.append(
                    (run.encode if part == "encoder" else run.decode)(small.parts[part], x)
                )
    assert len(plans) > 3 or (height, width) == (8, 8)
    assert all(torch.equal(result, found[0]) for result in found)


@pytest.mark.parametrize("strips", [1, 2, 3])
@pytest.mark.parametrize("height", [2, 6, 14])
def test_every_layer_by_itself(kernels, height, strips):
    """All cuts of all strips, against torch on the whole."""
    tolerance = 1e-5 if kernels else 1e-6
    torch.manual_seed(0)
    x = torch.randn(2, 4, height, 6)
    conv, down = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(4, 4, 3, stride=2)
    doubled = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
    with torch.inference_mode():
        for rows, expected in (
            (Convolved(StoredMap(x), conv), conv(x)),
            (Halved(StoredMap(x), down), down(nn.functional.pad(x, (0, 1, 0, 1)))),
            (Doubled(StoredMap(x), conv), conv(doubled)),
        ):
            how = Pass(min(strips, -(-rows.shape[2] // BLOCK_ROWS)), 1)
            torch.testing.assert_close(
                keep_rows(rows, how).values, expected, atol=tolerance, rtol=1e-5
            )


def test_statistics_do_not_depend_on_the_strips_nor_lose_digits(kernels):
    """A mean that dwarfs the deviation, where sums of squares in float32 would fail."""
    torch.manual_seed(0)
    x = 300 + torch.randn(1, 64, 5 * BLOCK_ROWS + 3, 24)
    norm = nn.GroupNorm(32, 64, eps=1e-6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    first = Affine(norm, statistics(StoredMap(x), 32, Pass(6, 1)))
    scale, shift = first.scale, first.shift
    for how in (Pass(2, 1), Pass(3, 2), Pass(1, 1)):
        again = Affine(norm, statistics(StoredMap(x), 32, how))
        assert torch.equal(scale, again.scale) and torch.equal(shift, again.shift)
    exact = nn.functional.group_norm(x.double(), 32, norm.weight.double(), norm.bias.double(), 1e-6)
    torch.testing.assert_close((x.double() * scale + shift), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [64, 200])
def test_neither_threads_nor_strips_change_more_than_rounding(small, kernels, side, monkeypatch):
    """Strips are cut between the convolutions' tiles and the norms' blocks."""
    images, found = pictures(side, side), []
    given = torch.get_num_threads()
    buffers = Buffers()
    for threads, cached in ((1, 1 << 30), (1, 1 << 18), (2, 5 << 19), (3, 1)):
        monkeypatch.setattr(strip_plan, "CACHED_BYTES", cached)
        run = streamer(
            small.architecture, "encoder", (side, side), buffers=buffers, threads=threads
        )
        torch.set_num_threads(threads)
        try:
            with torch.inference_mode():
                found.append(run.encode(small.parts["encoder"], images))
        finally:
            torch.set_num_threads(given)
    for latents in found:
        torch.testing.assert_close(latents, found[0], atol=5e-5, rtol=0)


def test_memory_is_used_again(small):
    """The second picture of a size needs no new memory for its features, nor gets the first's."""
    buffers, images = Buffers(), pictures(96, 64)

    def run(x):
        one = streamer(small.architecture, "encoder", (96, 64), buffers=buffers)
        return one.encode(small.parts["encoder"], x)

    with torch.inference_mode():
        first = run(images)
        held, kept = buffers.nbytes, first.clone()
        run(-images)
    assert buffers.nbytes == held > 0
    assert torch.equal(first, kept)


def test_a_picture_that_does_not_fit_plainly_is_streamed(monkeypatch):
    codec = load_codec("small", device="cpu")
    photo = from_unit(pictures(64, 96)[0].numpy())
    expected = codec.encode_image(photo)
    picture = codec.decode_latent(expected)
    codec.autoencoder._buffers.clear()
    mebi = 24 if native.kernels() is None else 16
    monkeypatch.setattr(plan_module, "free_memory", lambda: int((mebi << 20) / SHARE_OF_FREE))
    assert codec.autoencoder.plan("decoder", 1, 64, 96).tiles > 1
    used = []
    for name in ("encode", "decode"):
        method = getattr(strip_runner.Streamer, name)
        monkeypatch.setattr(
            strip_runner.Streamer, name, lambda *a, m=method: used.append(m) or m(*a)
        )
    found = codec.encode_image(photo)
    np.testing.assert_allclose(found.to_float32(), expected.to_float32(), atol=4e-3)
    assert np.abs(codec.decode_latent(expected).astype(int) - picture).max() <= 1
    assert len(used) == 2


class Counted(LazyMap):
    """Rows that know how often they were asked for."""

    def __init__(self, values):
        super().__init__(tuple(values.shape), values.dtype, values.device)
        self.values, self.asked = values, 0

    def fill(self, out, start):
        self.asked += out.shape[2]
        out.copy_(self.values[:, :, start : start + out.shape[2]])


def test_a_block_asks_once_for_its_input(small):
    """Not once for the sum and once for the convolutions, which would double with every block."""
    block = small.parts["decoder"].mid.block_1
    source, how = Counted(torch.randn(1, 256, 64, 8)), Pass(1, 1)
    with torch.inference_mode():
        first = Affine(block.norm1, statistics(source, 32, how))
        hidden = first_half(block, source, first)
        second = Affine(block.norm2, statistics(hidden, 32, how))
        output = Residual(source, hidden, block, (first, second))
        source.asked = 0
        output.rows(12, 24)
    # Two rows more on each side, and those of the tiles that they lie in.
    assert source.asked == (12 + 4 if native.kernels() is None else 12 + 2 * 7)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("megabytes", [None, 40, 24])
def test_what_is_kept_is_what_the_plan_counts(small, part, megabytes):
    """Maps and the memory that lies ready, at every step, in a picture after another one, too."""
    size, buffers, kept = (96, 128), Buffers(), []

    class Watched(Streamer):
        def _remember(self, rows):
            result = super()._remember(rows)
            kept.append(self._live() + self._buffers.nbytes)
            return result

    x = torch.randn(1, 3, *size) if part == "encoder" else torch.randn(1, 16, 12, 16)
    plan = small.plan(part, 1, *size) if megabytes is None else None
    search = Search(tuple(layers(small.architecture, part)), 1, *size, Arithmetic())
    strips = plan.strips if plan else search.cheapest(megabytes << 20)
    with torch.inference_mode():
        for _ in range(2):
            run = Watched(strips, buffers)
            (run.encode if part == "encoder" else run.decode)(small.parts[part], x)
            assert max(kept) <= strips.peak
            kept.clear()


def test_the_memory_asked_for_is_kept_to_by_every_command(monkeypatch, tmp_path):
    """From the option to the streamer."""
    from tests.cli.conftest import run_main

    rooms, genuine = [], strip_runner.Streamer.__init__

    def watched(self, plan, *arguments):
        rooms.append(plan.peak)
        genuine(self, plan, *arguments)

    monkeypatch.setattr(strip_runner.Streamer, "__init__", watched)
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
