"""The facts of a latent file: sizes, model, source, values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from auravae_cli.errors import AuraVaeError, LatentFileError
from auravae_cli.latents.latent_file import LatentFile, parse_latents, read_latents
from auravae_cli.latents.record import record_to_json
from auravae_cli.latents.statistics import ChannelStatistics
from auravae_cli.operations.inputs import collect
from auravae_cli.operations.names import none_found
from auravae_cli.operations.suffixes import LATENTS
from auravae_cli.store.survey import add_values


def describe_files(
    latents: Sequence[str],
) -> Iterator[tuple[str, dict[str, Any] | AuraVaeError]]:
    """The name of each latent file, and its facts or why there are none.

    Raises UsageError where the folders named hold none.
    """
    sources = collect(latents, LATENTS)
    if latents and not sources:
        raise none_found(latents, LATENTS, "latent files, or folders of them")
    for source in sources:
        try:
            if source.path is None:
                content = parse_latents(source.read_bytes(LatentFileError))
            else:
                content = read_latents(source.path)
            yield source.name, describe(content)
        except AuraVaeError as error:
            yield source.name, error


def describe(latents: LatentFile) -> dict[str, Any]:
    """Return the facts of a latent file as JSON types."""
    statistics = ChannelStatistics.empty(latents.space.irreps.dim, latents.space.clamp)
    add_values(statistics, latents)
    number = statistics.number
    is_whole = number == latents.values.size // len(
        number
    )  # otherwise its mean is shown as unknown
    facts: dict[str, Any] = {
        "shape": list(latents.values.shape),
        "dtype": latents.dtype.name,
        "model": latents.space.model,
        "weights_sha256": latents.space.weights_sha256,
        "representation": str(latents.space.irreps),
        "downsampling_factor": latents.space.downsampling_factor,
        "clamp": latents.space.clamp,
        **({"symmetrized": True} if latents.space.is_symmetrized else {}),
        "tool_version": latents.tool_version,
    }
    if not latents.is_shard:
        facts |= record_to_json(latents.records[0])
    return facts | {
        "not_finite": statistics.not_finite,
        "minimum": float(statistics.minimum.min()) if number.any() else None,
        "maximum": float(statistics.maximum.max()) if number.any() else None,
        "clamped": statistics.clamped,
        "mean_per_channel": rounded(np.where(is_whole, statistics.mean, np.nan)),
        "deviation_per_channel": rounded(np.where(is_whole, statistics.deviation, np.nan)),
    }


def rounded(values: Any) -> list[float | None]:
    """Return numbers for JSON, to four digits; None if there is none."""
    return [round(float(value), 4) + 0.0 if math.isfinite(value) else None for value in values]
