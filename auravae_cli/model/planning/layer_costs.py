"""The network as numbers: its layers, their operations and their bytes. Does not need torch.

The memory of a layer beside its input and output was measured on the CPU with
``python benchmarks/workspace.py``: measure again if layers change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from auravae_cli.model.spec.config import IMAGE_CHANNELS, Architecture

PARTS = ("encoder", "decoder")

TILE_ROWS = 6  # of the output, computed together: strips of whole tiles give the same bits
LEAST_CHANNELS = 16  # in, and
LEAST_SIDE = 8  # height and width, for which Winograd's transforms cost less than what they save
TILE_NUMBERS = (
    64  # numbers that NNPACK makes of a tile, for every channel in and out, and of each kernel
)
KERNEL_CHANNELS = 140  # input channels whose transformed kernels NNPACK holds at once

# Our own kernels, native.c: the columns of a tile, the numbers that it is made into, the bytes of a
# layer's weights, made ready, above which they are made each time, and three sizes that stand there, too.
TILE_COLUMNS, POINTS = 4, 8 * 6
NATIVE_WEIGHTS = 12 << 20
NATIVE_FEATURES, NATIVE_CHANNELS_OUT, TILES_OF_TAPS = 786432, 8, 64
# As COLUMNS_BYTES, GROUP and TILE_PAIRS in bfloat16.c.
PRODUCTS_BYTES, PRODUCTS_GROUP, TILE_PAIRS = 512 << 10, 32, 16

CONV, BLOCK, ATTENTION, DOWN, UP, OUT = "conv", "block", "attention", "down", "up", "out"


@dataclass(frozen=True)
class Layer:
    """One step of the network, at 1 / ``scale`` of the picture's height and width.

    ``kind`` is a 3x3 convolution, a residual block, attention, a step down or up (``scale`` is that
    of its input), or the norm, SiLU and convolution in the end. ``name`` is that of its tensors in
    checkpoints; the end has two of its own.
    """

    kind: str
    channels_in: int
    channels_out: int
    scale: int
    name: str = ""


@dataclass(frozen=True)
class Arithmetic:
    """How a device computes: the bytes of a number, by which methods, in how many threads.

    ``native``: by our own kernels; ``winograd``: by NNPACK where it suits.
    ``products``: those of hidden features with products of bfloat16. ``is_plain`` says that layers run on the whole picture where that fits, as on GPUs;
    ``live_features`` how many maps of the first width are in memory at once then, where that is known.
    """

    itemsize: int = 4
    winograd: bool = True
    threads: int = 1
    is_plain: bool = False
    live_features: int | None = None
    native: bool = False
    products: bool = False

    def multiplies(self, channels_in: int, channels_out: int) -> bool:
        """Whether a convolution is one of hidden features, with products of bfloat16."""
        return self.products and not (channels_in % 32 or channels_out % 32)

    def makes_weights(self, channels_in: int, channels_out: int) -> bool:
        """Whether each strip of a 3x3 convolution makes ready weights of its own: worth it for many rows alone."""
        ready = self.multiplies(channels_in, channels_out) or keeps_points(
            channels_in, channels_out
        )
        return not (self.native and ready)

    def is_winograd(self, channels_in: int, height: int, width: int) -> bool:
        """Whether NNPACK computes a 3x3 convolution of so many rows and columns, as `winograd` has it."""
        return self.winograd and channels_in >= LEAST_CHANNELS and min(height, width) >= LEAST_SIDE

    def workspace(self, channels_in: int, channels_out: int, height: int, width: int) -> int:
        """Return the bytes of NNPACK's tiles and kernels, which each thread keeps from then on."""
        tiles = -(-height // TILE_ROWS) * -(-width // TILE_ROWS)
        kernels = min(channels_in, KERNEL_CHANNELS) * channels_out
        return TILE_NUMBERS * self.itemsize * (tiles * (channels_in + channels_out) + kernels)

    def reordered(self, kernel: int, channels_in: int, channels_out: int, pixels: int) -> int:
        """Return the bytes of other convolutions' copies of weights, and input or output, in their own layouts."""
        weights = kernel**2 * channels_in * channels_out
        return self.itemsize * (weights + pixels * max(channels_in, channels_out))


def layers(architecture: Architecture, part: str) -> Iterator[Layer]:
    """Yield the layers of the ``encoder`` or the ``decoder`` in order."""
    widths = architecture.widths
    last, lowest = widths[-1], architecture.downsampling_factor
    kinds = {"block_1": BLOCK, "attn_1": ATTENTION, "block_2": BLOCK}
    middle = [Layer(kind, last, last, lowest, f"mid.{name}") for name, kind in kinds.items()]
    if part == "encoder":
        yield Layer(CONV, IMAGE_CHANNELS, architecture.ch, 1, "conv_in")
        for level, (before, width) in enumerate(pairwise((architecture.ch, *widths))):
            name = f"down.{level}"
            yield from _blocks(before, width, architecture.blocks[level], 2**level, name)
            if level < len(widths) - 1:
                yield Layer(DOWN, width, width, 2**level, f"{name}.downsample.conv")
        yield from middle
        yield Layer(OUT, last, architecture.latent_channels, lowest)
    else:
        yield Layer(CONV, architecture.latent_channels, last, lowest, "conv_in")
        yield from middle
        for level in reversed(range(len(widths))):
            before, width = widths[min(level + 1, len(widths) - 1)], widths[level]
            name = f"up.{level}"
            yield from _blocks(before, width, architecture.blocks[level] + 1, 2**level, name)
            if level:
                yield Layer(UP, width, width, 2**level, f"{name}.upsample.conv")
        yield Layer(OUT, widths[0], IMAGE_CHANNELS, 1)


def _blocks(before: int, width: int, number: int, scale: int, name: str) -> Iterator[Layer]:
    for index, channels in enumerate((before, *[width] * (number - 1))):
        yield Layer(BLOCK, channels, width, scale, f"{name}.block.{index}")


def weights_bytes(architecture: Architecture, part: str, arithmetic: Arithmetic) -> int:
    """Return the bytes of a half's weights as they are kept, which for our kernels is ready to be multiplied."""
    return sum(
        _kept_bytes(layer, convolution, arithmetic)
        for layer in layers(architecture, part)
        for convolution in _convolutions(layer)
    )


def _convolutions(layer: Layer) -> Iterator[tuple[int, int, int]]:
    """Yield the side of the kernel, the channels in and out of each convolution."""
    a, b = layer.channels_in, layer.channels_out
    if layer.kind == ATTENTION:
        yield from ((1, a, 3 * a), (1, a, a))
    else:
        yield 3, a, b
    if layer.kind == BLOCK:
        yield 3, b, b
        if a != b:
            yield 1, a, b


def _kept_bytes(layer: Layer, convolution: tuple[int, int, int], arithmetic: Arithmetic) -> int:
    side, channels_in, channels_out = convolution
    numbers = side**2 * channels_in * channels_out
    if not arithmetic.native:
        return arithmetic.itemsize * numbers
    if layer.kind != ATTENTION and arithmetic.multiplies(channels_in, channels_out):
        read = 2 if layer.kind == DOWN else side  # of the kernel
        return 2 * read**2 * channels_in * channels_out // 4  # the flips give the others
    are_points = side == 3 and layer.kind != DOWN and keeps_points(channels_in, channels_out)
    points = POINTS if are_points else side**2
    groups = -(-channels_out // NATIVE_CHANNELS_OUT)
    return 4 * points * channels_in * groups * NATIVE_CHANNELS_OUT


def keeps_points(channels_in: int, channels_out: int) -> bool:
    """Return whether a 3x3 convolution's weights are kept as our kernels multiply them, in five times their
    memory; those of wide ones are made so each time, which then costs little beside the products.
    """
    return 4 * POINTS * channels_in * channels_out <= NATIVE_WEIGHTS


def native_workspace(
    channels_in: int, channels_out: int, rows: int, columns: int, points: int = POINTS
) -> int:
    """Return the bytes that a thread keeps to compute ``rows`` and ``columns``, as in ``block_of``.

    ``points`` is how many numbers represent a kernel: 9 for downsampling, 1 for a shortcut.
    """
    is_winograd = points == POINTS
    high, wide = (TILE_ROWS, TILE_COLUMNS) if is_winograd else (1, 1)
    depth = channels_in if is_winograd else points * channels_in
    times, scratch_rows = (POINTS, 2 * (TILE_ROWS + 2)) if is_winograd else (1, 1)
    sizes = []
    are_points = not is_winograd or keeps_points(channels_in, channels_out)
    for lanes in (4, 8, 16):  # lanes of a processor's vectors
        group = 2 * lanes
        most = NATIVE_FEATURES // (4 * times * depth) // group * group
        most = max(group if are_points else TILES_OF_TAPS, min(8 * group, most))
        across = min(most, -(-columns // wide))
        length = -(-across // lanes) * lanes
        tiles = across * (min(-(-rows // high), most // across) - 1) + length
        tiles = -(-tiles // group) * group
        scratch = scratch_rows * (4 * length + group) + group
        kernels = 0 if are_points else POINTS * depth * NATIVE_CHANNELS_OUT
        sizes.append(4 * (times * (depth + NATIVE_CHANNELS_OUT) * tiles + scratch + kernels))
    return max(sizes)


def products_workspace(
    channels_in: int, channels_out: int, columns: int, points: int = POINTS
) -> int:
    """Return the bytes that a thread keeps for products of bfloat16, as in ``block_of`` of bfloat16.c."""
    taps, stride = {POINTS: (3, 1), 9: (2, 2), 1: (1, 1)}[points]
    per_column = channels_in * (2 * taps**2 + 4 * taps * stride)
    most = max(PRODUCTS_GROUP, PRODUCTS_BYTES // per_column // PRODUCTS_GROUP * PRODUCTS_GROUP)
    times = -(-columns // most)
    each = -(-columns // times)
    wide = -(-each // PRODUCTS_GROUP) * PRODUCTS_GROUP
    ring = 4 * taps * channels_in * stride * (wide + PRODUCTS_GROUP // 2)
    room = -(-(taps**2 * channels_in // 8) // TILE_PAIRS) * TILE_PAIRS
    return ring + wide * (16 * room + 4 * channels_out) + 128


def conv_flops(kernel: int, channels_in: int, channels_out: int, pixels: int) -> int:
    """Return the multiplications and additions of a direct convolution."""
    return 2 * kernel**2 * channels_in * channels_out * pixels


def layer_flops(layer: Layer, height: int, width: int) -> int:
    """Return the nominal operations of a layer, for a picture of ``height`` x ``width``."""
    pixels = (height // layer.scale) * (width // layer.scale)
    results = {DOWN: pixels // 4, UP: 4 * pixels}.get(layer.kind, pixels)
    flops = sum(conv_flops(*convolution, results) for convolution in _convolutions(layer))
    if layer.kind == ATTENTION:
        flops += attention_flops(layer.channels_in, pixels, pixels)
    return flops


def attention_flops(channels: int, queries: int, keys: int) -> int:
    """Return the operations of queries on keys, and of their weights on the values, over all heads."""
    return 4 * channels * queries * keys


def nominal_flops(architecture: Architecture, part: str, height: int, width: int) -> int:
    """Return the multiplications and additions of a whole run, with direct convolutions and without strips."""
    return sum(layer_flops(layer, height, width) for layer in layers(architecture, part))
