"""The error ledger of a shard of a store: the inputs that have no latent."""

from __future__ import annotations

from dataclasses import dataclass

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.storage import Storage
from auravae_cli.files.typed import read_as
from auravae_cli.store.names import failures_name


@dataclass(frozen=True)
class Failure:
    """An input without a latent, or a companion that it lacks: ``stage`` is where it failed, ``reason`` why.

    Stages: ``archive`` (the tar itself), ``read``, ``decode`` (and preparation), ``encode``.
    """

    key: str | None
    stage: str
    reason: str


def read_failures(storage: Storage, shard: str) -> list[Failure]:
    """Return the error ledger of a shard; empty if nothing failed. Raises StoreError."""
    name = failures_name(shard)
    try:
        lines = storage.read(name).splitlines()
    except FileNotFoundError:
        return []
    failures = []
    for number, line in enumerate(lines, 1):
        try:
            failures.append(read_as(Failure, read_json(line)))
        except ValueError as error:
            raise StoreError(
                f"{storage.root}/{name}: damaged ledger: line {number}: {error}"
            ) from error
    return failures
