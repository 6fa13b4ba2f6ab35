"""auravae encode, if the result is a store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from auravae_cli.cli.reports.outcomes import Reporter

if TYPE_CHECKING:
    from auravae_cli.cli.commands.encode import EncodeRequest


@dataclass(frozen=True)
class StoreRequest:
    """What the user asked for that only applies to a store."""

    shard_size: int | None
    workers: int | None
    retry_failures: bool
    prune: bool
    verify: bool
    picture: str | None
    on_ray: bool
    address: str | None


def fill_store(
    names: list[str],
    output: str | None,
    asked: EncodeRequest,
    wanted: StoreRequest,
    reporter: Reporter,
) -> int:
    """Encode into a store. Return the exit code."""
    from auravae_cli.cli.reports.store_progress import StoreReporter
    from auravae_cli.operations.encode_store import encode_store

    place = _place(output, asked)
    with StoreReporter(reporter, place, "; --prune drops what is not named") as report:
        encode_store(
            names,
            place,
            model=asked.model,
            preparation=asked.preparation,
            latent_dtype=asked.latent_dtype,
            max_pixels=asked.max_pixels,
            batch_size=asked.batch_size,
            workers=wanted.workers,
            shard_size=wanted.shard_size,
            limit=asked.limit,
            retry_failures=wanted.retry_failures,
            prune=wanted.prune,
            verify=wanted.verify,
            picture=wanted.picture,
            part=asked.part,
            on_ray=wanted.on_ray,
            address=wanted.address,
            progress=report,
            passed_over=reporter.passed_over,
            **asked.loading,
        )
    return report.code


def predict_store(
    names: list[str],
    output: str | None,
    asked: EncodeRequest,
    wanted: StoreRequest,
    reporter: Reporter,
) -> int:
    """Print the cost of all files, including those of finished shards. Return the exit code."""
    from auravae_cli.cli.reports.dry_run import DryRunReporter
    from auravae_cli.forecast.predict import predict_encode_store

    with DryRunReporter(reporter, "encode") as report:
        predict_encode_store(
            names,
            _place(output, asked),
            model=asked.model,
            preparation=asked.preparation,
            max_pixels=asked.max_pixels,
            batch_size=asked.batch_size,
            shard_size=wanted.shard_size,
            part=asked.part,
            calibrating=report.calibrating,
            progress=report,
            passed_over=reporter.passed_over,
            **asked.loading,
        )
    return reporter.code


def _place(output: str | None, asked: EncodeRequest) -> str:
    from auravae_cli.operations.encode_store import NAME_THE_STORE

    if output is None:
        raise typer.BadParameter(NAME_THE_STORE, param_hint="--output")
    if asked.overwrite:
        raise typer.BadParameter(
            "a store is resumed or refused, never overwritten: remove it, or name another",
            param_hint="--overwrite",
        )
    return output
