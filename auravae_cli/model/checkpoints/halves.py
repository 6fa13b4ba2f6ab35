"""The halves of a network from a checkpoint: what each must hold, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from auravae_cli.errors import WeightsError
from auravae_cli.model.checkpoints.read import Float, read_checkpoint
from auravae_cli.model.planning.layer_costs import ATTENTION, BLOCK, OUT, Layer, layers
from auravae_cli.model.spec.config import Architecture

Shapes = Mapping[str, tuple[int, ...]]


def load_halves(
    path: Path, parts: tuple[str, ...]
) -> tuple[dict[str, dict[str, Float]], Architecture]:
    """Return the tensors of the requested halves (``encoder``, ``decoder``) under their names there.

    Raises:
        WeightsError: the file is damaged, of another architecture, or lacks a tensor.
    """
    state = read_checkpoint(path, parts).state
    shapes = {name: tensor.shape for name, tensor in state.items()}
    architecture = Architecture.from_shapes(shapes)
    if architecture is None:
        raise WeightsError(
            f"{path}: no AuraEquiVAE checkpoint: {len(shapes)} tensors of the {' and '.join(parts)}, first "
            f"{', '.join(sorted(shapes)[:3]) or 'none'}; expected names such as {parts[0]}.conv_in.weight"
        )
    halves = {}
    for part in parts:
        expected = expected_shapes(architecture, part)
        check_names(path, expected, {n: s for n, s in shapes.items() if n.startswith(part)})
        halves[part] = {name.removeprefix(f"{part}."): state[name] for name in expected}
    return halves, architecture


def expected_shapes(architecture: Architecture, part: str) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every tensor of a half."""
    return {
        f"{part}.{name}": shape
        for layer in layers(architecture, part)
        for name, shape in _tensors(layer)
    }


def _tensors(layer: Layer) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of a layer."""
    name, a, b = layer.name, layer.channels_in, layer.channels_out
    if layer.kind == BLOCK:
        yield from _norm(f"{name}.norm1", a)
        yield from _convolution(f"{name}.conv1", a, b)
        yield from _norm(f"{name}.norm2", b)
        yield from _convolution(f"{name}.conv2", b, b)
        if a != b:
            yield from _convolution(f"{name}.nin_shortcut", a, b, 1)
    elif layer.kind == ATTENTION:
        yield from _norm(f"{name}.norm", a)
        yield f"{name}.qkv.weight", (3 * a, a, 1, 1)
        yield f"{name}.proj_out.weight", (a, a, 1, 1)
    elif layer.kind == OUT:
        yield from _norm("norm_out", a)
        yield from _convolution("conv_out", a, b)
    else:
        yield from _convolution(name, a, b)


def _norm(name: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels,)
    yield f"{name}.bias", (channels,)


def _convolution(
    name: str, channels_in: int, channels_out: int, size: int = 3
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (channels_out, channels_in, size, size)
    yield f"{name}.bias", (channels_out,)


def check_names(path: Path, expected: Shapes, found: Shapes) -> None:
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
