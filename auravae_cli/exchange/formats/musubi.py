"""musubi-tuner's latent caches: safetensors with ``latents_FxHxW_dtype``.

Rules: kohya-ss/musubi-tuner, dataset/cache_io.py (save_latent_cache_common and one function for each
network; BucketBatchManager strips the size and the dtype off each key) and scale_shift_latents of the
trainers, at 30c658c4. It does not flip, and every tensor goes into the batch, so there is
no place for a flipped copy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    Network,
    folded,
    known,
    note_of,
    original_size,
    widened,
    without_frame,
)
from auravae_cli.files.typed import shown
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.latents.latent_file import LatentFile

FORMAT_VERSION = "1.0.1"
FULL_NAMES = {  # code in the file's name => full name in the metadata, whether [C, F, h, w]
    "zi": ("z_image", False),
    "qi": ("qwen_image", True),
    "kr2": ("krea2", True),
    "wan": ("wan", True),
    "hv": ("hunyuan_video", True),
}
ARCHS = {
    "zi": Network(shift=0.1159, scale=0.3611),
    "qi": Network(),
    "kr2": Network(),
    "wan": Network(),
    "hv": Network(scale=0.476986),
}
_NAME = re.compile(r"(.+)_\d{4,}x\d{4,}_[a-z0-9]+")
_KEY = re.compile(r"latents_(?:\d+x)?\d+x\d+_[a-z0-9_]+")


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file, with the values as they are stored."""
    architecture, has_frames = FULL_NAMES[choices.arch]
    channels, height, width = latents.values.shape
    original = original_size(latents)
    shape = (channels, 1, height, width) if has_frames else latents.values.shape
    values, dtype = latents.values, latents.dtype
    if choices.fold:  # in float32, since the rounding of others would show
        values, dtype = folded(widened(latents), choices.fold), FLOAT32
    metadata = {
        "architecture": architecture,
        "width": str(original[1]),
        "height": str(original[0]),
        "format_version": FORMAT_VERSION,
        NOTE: note_of(latents, choices.fold),
    }
    key = f"latents_1x{height}x{width}_{dtype.name}"
    header = safetensors_file.header_bytes({key: (dtype, shape)}, metadata)
    name = f"{names[0]}_{original[1]:04d}x{original[0]:04d}_{choices.arch}.safetensors"
    yield Exported(name, lambda: [header, values.tobytes()])


def read(file: Foreign) -> Iterator[Found]:
    """Yield the latent of a picture; videos have none."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    keys = [key for key in tensors if _KEY.fullmatch(key)]
    if len(keys) != 1:
        raise LatentFileError(
            f"expected one tensor 'latents_FxHxW_dtype', found {shown(list(tensors))}"
        )
    values, dtype = tensors[keys[0]].values, tensors[keys[0]].dtype
    values = without_frame(values)
    facts: dict[str, object] = {}
    size = metadata.get("height", ""), metadata.get("width", "")
    if all(side.isdecimal() and int(side) > 0 for side in size):
        facts["source_size"] = (int(size[0]), int(size[1]))
    match = _NAME.fullmatch(file.stem)
    ignored = tuple(key for key in tensors if key not in keys)
    latent = known(values, dtype, metadata.get(NOTE))
    yield Found(match[1] if match else file.stem, values, dtype, latent, facts, ignored)


FORMAT = Format(
    name="musubi",
    rules="kohya-ss/musubi-tuner, dataset/cache_io.py at 30c658c4",
    suffixes=frozenset((".safetensors",)),
    write=write,
    read=read,
    keeps=frozenset(("image_size", "source_size", "source", "stored_dtype")),
    note="the safetensors metadata key 'auravae'",
    archs=ARCHS,
    dtypes=("float16", "bfloat16", "float32"),
    apart=original_size,
    by_picture=True,
    turns_pictures=False,
    ignores=lambda name: name.endswith("_te.safetensors"),
    advice="training also needs its text encoder's caches; it looks into one folder, not below it",
)
