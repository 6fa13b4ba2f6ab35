"""Checkpoints: read any that holds this architecture, and refuse others with a reason.

The content decides what a file is, not its suffix: safetensors, or a torch pickle, which is only
loaded with ``weights_only=True`` and so cannot run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from auravae_cli.errors import WeightsError
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.tied import expand
from auravae_cli.model.spec.card import read_card
from auravae_cli.model.spec.config import Architecture, canonical_name as canonical_name
from auravae_cli.symmetry.group import Irreps

PARTS = {"encoder": Encoder, "decoder": Decoder}
NESTED_KEYS = ("state_dict", "model", "ema", "module", "vae")
MAX_NESTING = 8


def load_networks(
    path: Path, parts: tuple[str, ...], device: torch.device, dtype: torch.dtype
) -> tuple[dict[str, nn.Module], Architecture]:
    """Build the requested halves (``encoder``, ``decoder``) and fill them from a checkpoint.

    Raises:
        WeightsError: the file is damaged, of another architecture, or lacks a tensor.
    """
    state = read_checkpoint(path, parts)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    architecture = Architecture.from_shapes(shapes)
    if architecture is None:
        raise WeightsError(
            f"{path}: no AuraEquiVAE checkpoint: {len(shapes)} tensors of the {' and '.join(parts)}, first "
            f"{', '.join(sorted(shapes)[:3]) or 'none'}; expected names such as {parts[0]}.conv_in.weight"
        )
    networks = {}
    for part in parts:
        try:
            with torch.device("meta"):  # spends neither memory nor time on initial values
                network = PARTS[part](architecture)
        except RuntimeError as error:
            raise WeightsError(f"{path}: its shapes suggest {architecture}: too large") from error
        expected = {f"{part}.{name}": tuple(t.shape) for name, t in network.state_dict().items()}
        check_names(path, expected, {n: s for n, s in shapes.items() if n.startswith(part)})
        own = {name: state[f"{part}.{name}"] for name in network.state_dict()}
        _check_formats(path, part, own)
        network.load_state_dict({n: t.to(device, dtype) for n, t in own.items()}, assign=True)
        networks[part] = network.eval().requires_grad_(False)
    return networks, architecture


def read_checkpoint(path: Path, parts: tuple[str, ...] = tuple(PARTS)) -> dict[str, Tensor]:
    """Return the tensors of the requested halves under the reference's names. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
        if start[8:9] == b"{":
            return _read_safetensors(path, parts)
        if start[:2] in (b"PK", b"\x80\x02"):
            return _read_pickle(path, parts)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    raise WeightsError(
        f"{path}: neither safetensors nor a torch checkpoint: it starts with {start!r}. If it was "
        "downloaded, it may be an error page or a Git LFS pointer; fetch it again"
    )


def _wanted(name: str, parts: tuple[str, ...]) -> bool:
    return canonical_name(name).partition(".")[0] in parts


def _read_safetensors(path: Path, parts: tuple[str, ...]) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            names = [n for n in file.keys() if _wanted(n, parts)]  # noqa: SIM118 - no dict
            state = {canonical_name(name): file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(
            f"{path}: damaged or half-downloaded safetensors ({error}); fetch it again"
        ) from error
    card = read_card(path)
    return _expanded(path, state, card.irreps) if card and card.is_tied and card.irreps else state


def _expanded(path: Path, state: dict[str, Tensor], irreps: Irreps) -> dict[str, Tensor]:
    """Return whole weights from the representatives of exactly equivariant ones."""
    try:
        return expand(state, irreps)
    except (RuntimeError, IndexError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(
            f"{path}: its card says that it holds orbit representatives, but they cannot be "
            f"expanded ({reason})"
        ) from error


def _read_pickle(path: Path, parts: tuple[str, ...]) -> dict[str, Tensor]:
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
    tensors = {str(k): t for k, t in content.items() if isinstance(t, Tensor)}
    return {canonical_name(k): t for k, t in tensors.items() if _wanted(k, parts)}


def _check_formats(path: Path, part: str, tensors: Mapping[str, Tensor]) -> None:
    """Check for plain floating-point values: integers are quantised, and mean nothing by themselves."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            found = "no values" if tensor.is_meta else f"{tensor.dtype} ({tensor.layout})"
            raise WeightsError(
                f"{path}: {part}.{name} holds {found}: expected plain floating-point values"
            )


def check_names(
    path: Path, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]
) -> None:
    """Check that every expected tensor and no other is present, with its shape. Raises WeightsError."""
    missing = sorted(set(expected) - set(found))
    unexpected = sorted(set(found) - set(expected))
    wrong = [n for n in expected if n in found and found[n] != expected[n]]
    faults = [
        f"{len(names)} {what}, first {names[0]}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    if wrong:
        name = wrong[0]
        faults.append(f"{name} has shape {found[name]}, expected {expected[name]}")
    if faults:
        raise WeightsError(
            f"{path}: does not fit the architecture that its shapes suggest: {'; '.join(faults)}"
        )
