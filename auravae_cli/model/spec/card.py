"""The model card in a weights file's metadata, which describes a model of ours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from auravae_cli.errors import WeightsError
from auravae_cli.files.canonical_json import read_json
from auravae_cli.files.typed import Faults, shown, table
from auravae_cli.symmetry.group import Irreps

KEY = "auravae"
KINDS = ("linear", "network")


@dataclass(frozen=True)
class Card:
    """The facts that determine how to read weights; ``content`` is the whole card.

    ``kind`` is ``linear`` or ``network``; ``is_tied`` means that a network is stored by the
    representatives of its exactly equivariant weights.
    """

    kind: str
    is_tied: bool
    irreps: Irreps | None
    clamp: float | None
    content: dict[str, Any]


_read_card = table(
    {"kind": str, "tied": bool, "irreps": Irreps, "clamp": float},
    optional=("tied", "irreps", "clamp"),
    others=True,
)


def read_card(path: Path) -> Card | None:
    """Return the card of a weights file; None if it has none, as foreign files do.

    Raises:
        WeightsError: there is a card, but it is damaged.
    """
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError):  # whoever reads the tensors reports the error
        return None
    if text is None:
        return None
    try:
        content = read_json(text)
        found = _read_card(content)
        kind, clamp = found["kind"], found.get("clamp")
        if kind not in KINDS:
            raise Faults([f"kind: expected {' or '.join(KINDS)}, found {shown(kind)}"])
        if clamp is not None and clamp <= 0:
            raise Faults([f"clamp: expected a positive number, found {clamp}"])
        return Card(kind, found.get("tied", False), found.get("irreps"), clamp, content)
    except ValueError as error:
        raise WeightsError(
            f"{path}: its model card is damaged ({error}); fetch it again"
        ) from error
