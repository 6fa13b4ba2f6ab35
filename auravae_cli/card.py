"""The model card in a weights file's metadata: what a model of ours says about itself."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from auravae_cli.errors import WeightsError
from auravae_cli.group import Irreps

KEY = "auravae"
KINDS = ("linear", "network")


@dataclass(frozen=True)
class Card:
    """The facts that decide how weights are read; ``content`` is the whole card.

    ``kind`` is ``linear`` or ``network``; ``is_tied`` says that a network is stored by the
    representatives of its exactly equivariant weights.
    """

    kind: str
    is_tied: bool
    irreps: Irreps | None
    clamp: float | None
    content: dict[str, Any]


def read_card(path: Path) -> Card | None:
    """The card of a weights file; None where it has none, being somebody else's.

    Raises:
        WeightsError: there is a card, but no sound one.
    """
    try:
        with safe_open(path, framework="np") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError):  # whoever reads the tensors says what is wrong
        return None
    if text is None:
        return None
    try:
        content = json.loads(text)
        irreps = Irreps.parse(content["irreps"]) if "irreps" in content else None
        clamp = float(content["clamp"]) if "clamp" in content else None
        kind = content["kind"]
        if kind not in KINDS or (clamp is not None and not 0 < clamp < math.inf):
            raise ValueError(f"kind {kind!r}, clamp {clamp}")
        return Card(kind, content.get("tied") is True, irreps, clamp, content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(
            f"{path}: its model card is damaged ({error}); fetch it again"
        ) from error
