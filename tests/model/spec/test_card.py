"""Model cards: read where there is one, refused where it is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from safetensors.numpy import save

from auravae_cli.errors import WeightsError
from auravae_cli.model.spec.card import KEY, Card, read_card
from auravae_cli.model.spec.registry import WEIGHTS_PATH, known_models
from auravae_cli.symmetry.group import Irreps


def write(path: Path, metadata: dict[str, str] | None) -> Path:
    path.write_bytes(save({"x": np.zeros(1, np.float32)}, metadata))
    return path


def card_of(content: Any, folder: Path) -> Card | None:
    return read_card(write(folder / "w.safetensors", {KEY: json.dumps(content)}))


def test_a_whole_card(tmp_path: Path) -> None:
    content = {"kind": "network", "tied": True, "irreps": "6xee+2xoo", "clamp": 3, "steps": 5}
    expected = Card("network", True, Irreps.parse("6xee+2xoo"), 3.0, content)
    assert card_of(content, tmp_path) == expected


def test_what_a_card_may_leave_out(tmp_path: Path) -> None:
    assert card_of({"kind": "linear"}, tmp_path) == Card(
        "linear", False, None, None, {"kind": "linear"}
    )


def test_weights_are_tied_only_where_the_card_says_so(tmp_path: Path) -> None:
    card = card_of({"kind": "network", "tied": False}, tmp_path)
    assert card is not None and not card.is_tied


@pytest.mark.parametrize("tied", [None, 1, "true"])
def test_it_says_so_by_true_alone(tmp_path: Path, tied: object) -> None:
    with pytest.raises(WeightsError, match="tied: expected bool, found"):
        card_of({"kind": "network", "tied": tied}, tmp_path)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_files_of_others_have_no_card(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    assert read_card(write(tmp_path / "w.safetensors", metadata)) is None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 64, None])
def test_what_is_no_safetensors_file_has_no_card(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "w.pt"
    if content is not None:
        path.write_bytes(content)
    assert read_card(path) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "5",
        "[]",
        '["kind", "irreps"]',
        "{}",
        '{"irreps": "16xee"}',
        '{"kind": "network", "irreps": "16xzz"}',
        '{"kind": "network", "irreps": 16}',
        '{"kind": "network", "irreps": null}',
        '{"kind": "network", "clamp": "wide"}',
        '{"kind": "network", "clamp": null}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_a_damaged_card_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "w.safetensors", {KEY: text})
    with pytest.raises(WeightsError, match="card is damaged") as caught:
        read_card(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "facts",
    [{"kind": 5}, {"kind": "pyramid"}, {"clamp": -1}, {"clamp": 0}, {"clamp": float("nan")}],
    ids=str,
)
def test_a_card_that_makes_no_sense_is_refused(tmp_path: Path, facts: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="card is damaged"):
        card_of({"kind": "network", **facts}, tmp_path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)


@given(content=st.dictionaries(st.sampled_from(["kind", "tied", "irreps", "clamp"]), JSON) | JSON)
def test_any_json_is_a_card_or_refused(
    content: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        card = card_of(content, folder)
    except WeightsError:
        return
    assert card is not None and card.kind == content["kind"]


def test_the_embedded_weights_have_the_card_of_their_config() -> None:
    for config in known_models().values():
        if config.weights and (WEIGHTS_PATH / config.weights).is_file():
            card = read_card(WEIGHTS_PATH / config.weights)
            assert card is not None and card.kind == config.kind
            assert card.irreps in (None, config.space.irreps)
            assert card.clamp in (None, config.space.clamp)
