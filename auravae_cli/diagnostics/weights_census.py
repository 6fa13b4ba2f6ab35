"""Summarise a weights file: its tensors, parameters and types, and whether all values are finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import WeightsError
from auravae_cli.latents import safetensors_file
from auravae_cli.model.checkpoints.read import read_checkpoint
from auravae_cli.model.spec.card import read_card


@dataclass(frozen=True)
class WeightsSummary:
    """Both halves, as in the network; ``not_finite`` names the first tensor with NaN."""

    tensors: int
    parameters: int
    dtypes: tuple[str, ...]
    is_tied: bool
    not_finite: str | None


def count_weights(path: Path) -> WeightsSummary:
    """Count the weights of a checkpoint of any kind. Raises WeightsError."""
    card = read_card(path)
    if card is not None and card.kind == "linear":
        return _count_linear(path)
    found = read_checkpoint(path)
    return _summary(found.state, found.dtypes, bool(card and card.is_tied))


def _count_linear(path: Path) -> WeightsSummary:
    try:
        tensors, _ = safetensors_file.parse(path.read_bytes())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    values = {name: tensor.values for name, tensor in tensors.items()}
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    return _summary(values, tuple(sorted(dtypes)), False)


def _summary(
    values: Mapping[str, NDArray[Any]], dtypes: tuple[str, ...], is_tied: bool
) -> WeightsSummary:
    bad = (name for name, array in values.items() if not np.isfinite(array).all())
    parameters = sum(array.size for array in values.values())
    return WeightsSummary(len(values), parameters, dtypes, is_tied, next(bad, None))
