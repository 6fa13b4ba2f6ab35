"""docs/python.md, run as it stands."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest
from PIL import Image

import auravae_cli

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "python.md"
PHOTOS = ("astronaut.jpg", "coffee.jpg", "coffee_alpha.png", "rocket.webp")
CALLS = {n for n in auravae_cli.__all__ if n.endswith(("_files", "_store", "_latents"))} | {
    *("watch_folders", "evaluate", "benchmark", "predict_encode", "predict_decode"),
    *("predict_roundtrip", "verify_store", "diagnose", "train_model"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with ``photos``."""
    (tmp_path / "photos").mkdir()
    for name in PHOTOS:
        with Image.open(REPOSITORY / "samples" / name) as image:
            image.convert("RGB").crop((100, 60, 196, 140)).save(
                tmp_path / "photos" / f"{Path(name).stem}.jpg", quality=95
            )
    monkeypatch.chdir(tmp_path)


def test_every_example_gives_what_the_page_says(folder):
    flags = doctest.ELLIPSIS
    found = doctest.testfile(str(PAGE), module_relative=False, optionflags=flags)
    assert found.attempted > 25
    assert found.failed == 0


@pytest.mark.parametrize("name", sorted(CALLS - {"read_latents"}))
def test_every_call_is_on_the_page(name):
    assert name in PAGE.read_text(encoding="utf-8")
