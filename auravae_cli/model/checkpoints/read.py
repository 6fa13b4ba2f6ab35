"""Checkpoints: read any that holds this architecture, and refuse others with a reason.

The content decides what a file is, not its suffix: safetensors, or a torch pickle, which is only
loaded with ``weights_only=True`` and so cannot run code. torch is imported for pickles alone, and for
number formats that numpy has not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import LatentFileError, WeightsError
from auravae_cli.files.mapping import map_file
from auravae_cli.latents import safetensors_file
from auravae_cli.model.checkpoints.ties import expand
from auravae_cli.model.planning.layer_costs import PARTS
from auravae_cli.model.spec.card import read_card
from auravae_cli.model.spec.config import canonical_name
from auravae_cli.symmetry.group import Irreps

Float = NDArray[np.float32]
NESTED_KEYS = ("state_dict", "model", "ema", "module", "vae")
MAX_NESTING = 8
MOST_NUMBERS = 1 << 36  # of a pickle, where one number can stand for any shape
_FLOATS = ("float16", "bfloat16", "float32", "F64")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors under the reference's names, tied ones expanded, and the number formats of the file."""

    state: dict[str, Float]
    dtypes: tuple[str, ...]


def read_checkpoint(path: Path, parts: tuple[str, ...] = PARTS) -> Checkpoint:
    """Return the tensors of the requested halves. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if start[8:9] == b"{":
        found = _read_safetensors(path, parts)
    elif start[:2] in (b"PK", b"\x80\x02"):
        found = _read_pickle(path, parts)
    else:
        raise WeightsError(
            f"{path}: neither safetensors nor a torch checkpoint. If it was "
            "downloaded, it may be an error page or a Git LFS pointer; fetch it again"
        )
    card = read_card(path)
    if not (card and card.is_tied and card.irreps):
        return found
    return Checkpoint(_expanded(path, found.state, card.irreps), found.dtypes)


def _wanted(tensors: Mapping[str, Any], parts: tuple[str, ...]) -> dict[str, Any]:
    """Return the tensors of the requested halves, under the reference's names."""
    named = ((canonical_name(name), tensor) for name, tensor in tensors.items())
    return {name: tensor for name, tensor in named if name.partition(".")[0] in parts}


def _read_safetensors(path: Path, parts: tuple[str, ...]) -> Checkpoint:
    try:
        content, _ = safetensors_file.parse(map_file(path, LatentFileError), any_dtype=True)
    except LatentFileError as error:
        raise WeightsError(
            f"{path}: damaged or half-downloaded safetensors ({error}); fetch it again"
        ) from error
    found = _wanted(content, parts)
    if any(tensor.dtype.code.startswith("F8") for tensor in found.values()):
        return _read_with_torch(path, parts)
    for name, tensor in found.items():
        if tensor.dtype.name not in _FLOATS:
            raise _no_floats(path, name, tensor.dtype.name)
    state = {name: tensor.dtype.to_float32(tensor.values) for name, tensor in found.items()}
    names = {tensor.dtype.name for tensor in found.values()}
    return Checkpoint(state, tuple(sorted("float64" if n == "F64" else n for n in names)))


def _expanded(path: Path, state: dict[str, Float], irreps: Irreps) -> dict[str, Float]:
    """Return whole weights from the representatives of exactly equivariant ones."""
    try:
        return expand(state, irreps)
    except (ValueError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: its card says that it holds orbit representatives, but they cannot be "
            f"expanded ({reason})"
        ) from error


def _read_with_torch(path: Path, parts: tuple[str, ...]) -> Checkpoint:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
    return _of_tensors(path, _wanted(tensors, parts))


def _read_pickle(path: Path, parts: tuple[str, ...]) -> Checkpoint:
    import torch

    try:
        with path.open("rb") as file:  # given a path, torch would go by its suffix
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of every type on damaged files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{path}: cannot be loaded as weights alone ({reason}); a checkpoint that holds code "
            "is not loaded: save its state dict as safetensors"
        ) from error
    for _ in range(MAX_NESTING):  # a table can contain itself
        if not isinstance(content, Mapping):
            break
        nested = next((k for k in NESTED_KEYS if isinstance(content.get(k), Mapping)), None)
        if nested is None:
            break
        content = content[nested]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: expected a table of tensors, found {type(content).__name__}")
    tensors = {str(k): t for k, t in content.items() if isinstance(t, torch.Tensor)}
    return _of_tensors(path, _wanted(tensors, parts))


def _of_tensors(path: Path, tensors: Mapping[str, Any]) -> Checkpoint:
    """Return torch's tensors as arrays; integers are quantised, and mean nothing by themselves."""
    import torch

    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            found = "no values" if tensor.is_meta else f"{tensor.dtype} ({tensor.layout})"
            raise _no_floats(path, name, found)
    if sum(tensor.numel() for tensor in tensors.values()) > MOST_NUMBERS:
        raise WeightsError(f"{path}: its tensors are too large")
    dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    state = {name: tensor.detach().float().numpy() for name, tensor in tensors.items()}
    return Checkpoint(state, tuple(sorted(dtypes)))


def _no_floats(path: Path, name: str, found: str) -> WeightsError:
    return WeightsError(f"{path}: {name} holds {found}: expected plain floating-point values")
