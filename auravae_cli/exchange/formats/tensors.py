"""Tensors as diffusers passes them: [1, C, h, w], unscaled, in safetensors or a torch pickle.

Rules: huggingface/diffusers has no file of its own for latents; its pipelines give and take
[B, C, h, w] (``output_type="latent"``), and scripts save it as ``latents``, or the bare tensor.
These latents have scaling factor 1 and shift factor 0. Pickles are only loaded with ``weights_only``.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import (
    NOTE,
    Choices,
    Exported,
    Foreign,
    Format,
    Found,
    dtype_of,
    each,
    known,
    latent_among,
    note_of,
)
from auravae_cli.files.limits import FILE_BYTES
from auravae_cli.files.mapping import BytesFile
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import BFLOAT16, Array, StoredDtype
from auravae_cli.latents.latent_file import LatentFile, stack

VALUES = "latents"
_NAMES = (VALUES, "latent", "samples", "latent_tensor", "z")  # names that others use for latents


def write_safetensors(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield ``latents`` [1, C, h, w]: a shard of ours with one row, which diffusers accepts."""
    one = stack([latents])
    yield Exported(f"{names[0]}.safetensors", lambda: [one.header(note_of(one)), one.values.data])


def write_pickle(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield the bare tensor [1, C, h, w], which any version of torch loads with ``weights_only``."""
    yield Exported(f"{names[0]}.pt", lambda: [saved(latents.values[None], latents.dtype)])


def saved(values: Array, dtype: StoredDtype) -> bytes:
    """Return a tensor as `torch.save` writes it."""
    import torch

    values = np.array(values, order="C")  # a copy, since torch warns of arrays that are read-only
    if dtype == BFLOAT16:
        tensor = torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(values)
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    return buffer.getvalue()


def read_safetensors(file: Foreign) -> Iterator[Found]:
    """Yield the tensor with one of the usual names, or the only one; every latent of a batch."""
    tensors, metadata = safetensors_file.parse(file.content, any_dtype=True)
    name = _choose(tensors)
    values, dtype = tensors[name].values, tensors[name].dtype
    ignored = tuple(key for key in tensors if key != name)
    latents = known(values, dtype, metadata.get(NOTE), own_file=True)
    if latents is None:
        yield from each(Found(file.stem, values, dtype, ignored=ignored))
        return
    if not latents.is_shard:
        yield Found(file.stem, latents.values, latents.dtype, latents, ignored=ignored)
        return
    for row in range(len(latents.records)):
        one, tag = latents.row(row), f"-{row}" if latents.records[1:] else ""
        yield Found(file.stem + tag, one.values, one.dtype, one, ignored=ignored)


def read_pickle(file: Foreign) -> Iterator[Found]:
    """Yield a tensor, or the tensors of a table; every latent of a batch."""
    import torch

    content = loaded(file.content)
    ignored: tuple[str, ...] = ()
    if isinstance(content, Mapping):
        tensors = {str(key): item for key, item in content.items()}
        name = _choose({k: t for k, t in tensors.items() if isinstance(t, torch.Tensor)})
        ignored, content = tuple(key for key in tensors if key != name), tensors[name]
    values, dtype = array_of(content)
    yield from each(Found(file.stem, values, dtype, ignored=ignored))


def loaded(content: bytes | memoryview) -> Any:
    """Return what `torch.save` wrote, without running any code in it. Raises LatentFileError."""
    import torch

    FILE_BYTES.check(max(len(content), _unpacked(content)), LatentFileError)
    try:
        return torch.load(io.BytesIO(bytes(content)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of every type on damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise LatentFileError(
            f"cannot be loaded as weights alone ({reason}); a file that holds code is not loaded"
        ) from error


def _unpacked(content: bytes | memoryview) -> int:
    """Return the size of all members of a zip, which torch unpacks; 0 for pickles of the older kind."""
    try:
        with zipfile.ZipFile(cast(Any, BytesFile(content))) as archive:
            return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return 0


def array_of(tensor: Any) -> tuple[Array, StoredDtype]:
    """Return the values of a tensor; bfloat16 as words. Raises LatentFileError if it is not a tensor, or too large."""
    import torch

    if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
        raise LatentFileError(f"expected a tensor, found {type(tensor).__name__}")
    tensor = tensor.detach()
    # With strides of 0, one value can stand for many.
    FILE_BYTES.check(tensor.numel() * tensor.element_size(), LatentFileError)
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(np.uint16), BFLOAT16
    try:
        values = np.ascontiguousarray(tensor.numpy())
    except (TypeError, RuntimeError) as error:
        raise LatentFileError(f"dtype {tensor.dtype}: expected a float: {error}") from error
    return values, dtype_of(values)


def _choose(tensors: Mapping[str, Any]) -> str:
    name = latent_among(list(tensors), _NAMES)
    if name is None:
        found = ", ".join(map(repr, list(tensors)[:4])) or "none"
        raise LatentFileError(f"expected one tensor {VALUES!r}, found {found}")
    return name


SAFETENSORS = Format(
    name="safetensors",
    rules="huggingface/diffusers, output_type='latent'",
    suffixes=frozenset((".safetensors",)),
    write=write_safetensors,
    read=read_safetensors,
    keeps=frozenset(("stored_dtype",)),
    note="the safetensors metadata key 'auravae'",
    dtypes=("float16", "bfloat16", "float32"),
    advice="pass them as they are: scaling_factor 1, shift_factor 0",
)
PICKLE = Format(
    name="pt",
    rules="huggingface/diffusers, output_type='latent', and torch.load(weights_only=True)",
    suffixes=frozenset((".pt", ".pth")),
    write=write_pickle,
    read=read_pickle,
    keeps=frozenset(("stored_dtype",)),
    dtypes=("float16", "bfloat16", "float32"),
    needs="torch",
    advice="pass them as they are: scaling_factor 1, shift_factor 0",
)
