"""LightningDiT's shards: safetensors with ``latents``, ``latents_flip`` [N, C, h, w] and ``labels`` [N].

Rules: hustvl/LightningDiT, extract_features.py and datasets/img_latent_dataset.py, as read in forks
that keep them unchanged. The reader takes ``latents`` or ``latents_flip`` at random, so both must
exist. It subtracts the means in ``latents_stats.pt``. If that is missing, the reader makes it from
``latents`` only, with means that are not 0 for the channels that a flip negates, so no flip commutes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.annotations import label_from
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    known,
    label_of,
    name_of,
    note_of,
    require_values,
    tensor,
)
from auravae_cli.files.typed import shown
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import BFLOAT16, Array
from auravae_cli.latents.latent_file import LatentFile
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import H

VALUES, FLIPPED, LABELS = "latents", "latents_flip", "labels"
_BLOCK_BYTES = 1 << 20


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one shard of a stack; a latent without a label gets 0."""
    shape = latents.values.shape
    labels = np.array([label_of(record) or 0 for record in latents.records], "<i8")
    metadata = {
        "total_size": str(shape[0]),
        "dtype": f"torch.{latents.dtype.name}",
        "device": "cpu",
        NOTE: note_of(latents),
    }
    entries = {
        VALUES: (latents.dtype, shape),
        FLIPPED: (latents.dtype, shape),
        LABELS: (safetensors_file.INT64, labels.shape),
    }

    def pieces() -> Iterator[bytes | memoryview]:
        yield safetensors_file.header_bytes(entries, metadata)
        for block in _blocks(latents):
            yield np.ascontiguousarray(block).data
        for block in _blocks(latents):
            yield act(H, block, latents.space.irreps).data
        yield labels.data

    yield Exported(f"latents_rank00_shard{number:03d}.safetensors", pieces)


def _blocks(latents: LatentFile) -> Iterator[Array]:
    """Yield some rows of a stack at a time."""
    at_once = max(1, _BLOCK_BYTES // max(1, latents.values[:1].nbytes))
    for start in range(0, len(latents.values), at_once):
        yield latents.values[start : start + at_once]


class Statistics:
    """``latents_stats.pt``: the mean and the standard deviation of each channel, [1, C, 1, 1].

    They are taken over what the reader draws from, latents and their flipped copies, so the means of
    channels that a flip negates are exactly 0.
    """

    name = "latents_stats.pt"

    def __init__(self) -> None:
        self._number = 0
        self._sums: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)

    def add(self, exported: Exported, latents: LatentFile) -> None:
        """Add the latents of a shard."""
        (rows, channels, height, width), signs = latents.values.shape, latents.space.irreps.signs(H)
        if not self._number:
            self._sums, self._squares = np.zeros(channels), np.zeros(channels)
        for block in _blocks(latents):
            flat = latents.dtype.to_float32(block).reshape(len(block), channels, height * width)
            self._sums += flat.sum(2, np.float64).sum(0) * (1 + np.array(signs))
            self._squares += 2 * np.square(flat, dtype=np.float64).sum((0, 2))
        self._number += 2 * rows * height * width

    def files(self) -> Iterator[Exported]:
        """Yield the file."""
        yield Exported(self.name, self._pieces)

    def _pieces(self) -> Iterator[bytes]:
        """Yield the statistics, as its reader saves them."""
        import torch

        mean = self._sums / max(1, self._number)
        variance = (self._squares - self._number * mean**2) / max(1, self._number - 1)
        deviation = np.sqrt(np.maximum(variance, 0))
        content = {
            name: torch.from_numpy(values.astype(np.float32)).reshape(1, -1, 1, 1)
            for name, values in (("mean", mean), ("std", deviation))
        }
        buffer = io.BytesIO()
        torch.save(content, buffer)
        yield buffer.getvalue()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""


def read(file: Foreign) -> Iterator[Found]:
    """Yield every row with its label."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    stack = tensor(tensors, VALUES)
    values, dtype = stack.values, stack.dtype
    labels = tensors[LABELS].values if LABELS in tensors else None
    if labels is not None and tensors[LABELS].dtype == BFLOAT16:  # which are words here
        labels = BFLOAT16.to_float32(labels)
    if values.ndim != 4 or (labels is not None and labels.shape != values.shape[:1]):
        found = {name: list(tensor.values.shape) for name, tensor in tensors.items()}
        raise LatentFileError(f"expected latents [N, C, h, w] and labels [N], found {shown(found)}")
    require_values(values)
    others = tuple(name for name in tensors if name not in (VALUES, LABELS))
    latents = known(values, dtype, metadata.get(NOTE))
    for row in range(len(values)):
        one = None if latents is None else latents.row(row)
        name = f"{file.stem}/{row:06d}"
        name = name_of(one.records[0], name) if one else name
        label = label_from(labels[row]) if labels is not None else None
        ignored = (*others, LABELS) if labels is not None and label is None else others
        if one and not label and label_of(one.records[0]) is None:
            label = None  # 0 was written for none
        facts = {"annotations": {} if label is None else {"label": label}}
        z, kind = (one.values, one.dtype) if one else (values[row], dtype)
        yield Found(name, z, kind, one, facts, ignored)


FORMAT = Format(
    name="lightningdit",
    rules="hustvl/LightningDiT, extract_features.py and datasets/img_latent_dataset.py",
    suffixes=frozenset((".safetensors",)),
    write=write,
    read=read,
    keeps=frozenset(("label", "stored_dtype")),
    note="the safetensors metadata key 'auravae'",
    flipped=FLIPPED,
    needs_flipped=True,
    dtypes=("float16", "bfloat16", "float32"),
    stacked=True,
    containers=(".safetensors",),
    index=Statistics,
    fills_labels=True,
    write_needs="torch",
)
