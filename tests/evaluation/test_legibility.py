"""Whether text stays legible, as an OCR engine reads it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from auravae_cli.errors import UsageError
from auravae_cli.evaluation import legibility, session
from auravae_cli.evaluation.legibility import text_errors
from auravae_cli.evaluation.run import EvalOptions

LINES = {(10, 10, 50, 20): "letters", (0, 30, 60, 40): "in lines"}


class Engine:
    """Reads lines as they are numbered by their first pixel's red, of which each lacks letters if it is dark."""

    name = "made up 1.0"

    def find(self, pixels):
        return list(LINES)

    def read(self, pixels):
        number, green = int(pixels[2, 2, 0]), int(pixels[2, 2, 1])
        text = list(LINES.values())[number] if number < len(LINES) else ""
        return text[: len(text) - green]


def lettered(*missing):
    pixels = np.full((48, 64, 3), 9, np.uint8)
    for number, ((left, top, right, bottom), lost) in enumerate(zip(LINES, missing, strict=True)):
        rows, columns = slice(max(0, top - 2), bottom), slice(max(0, left - 2), right)
        pixels[rows, columns] = (number, lost, 0)
    return pixels


def test_letters_that_are_lost_are_counted():
    original = lettered(0, 0)
    found = text_errors(Engine(), original, [original, lettered(2, 1), np.full_like(original, 7)])
    assert found == [0, 3 / 15, 1]
    blank = np.full_like(original, 7)
    assert text_errors(Engine(), blank, [original]) == [None]


def test_an_evaluation_has_it_in_every_table(tmp_path, monkeypatch):
    Image.fromarray(lettered(0, 0)).save(tmp_path / "a.png")
    Image.fromarray(lettered(1, 4)).save(tmp_path / "b.png")
    (tmp_path / "made").mkdir()
    for name in "ab":
        Image.fromarray(lettered(2, 4)).save(tmp_path / "made" / f"{name}.png")
    monkeypatch.setattr(session, "load_reader", Engine)
    files = session.EvaluationFiles(csv=tmp_path / "n.csv", html=tmp_path / "page.html")
    result = session.evaluate(
        [str(tmp_path / "a.png"), str(tmp_path / "b.png")],
        [f"folder:{tmp_path / 'made'}"],
        lpips="none",
        text=True,
        options=EvalOptions(flips=0, sweeps=0),
        files=files,
    )
    (model,) = result.summary["models"]
    assert model["quality"]["text_error"]["worst"] == 6 / 15
    assert model["quality"]["text_error"]["mean"] == pytest.approx((6 / 15 + 1 / 10) / 2)
    assert result.summary["settings"]["text"] == "made up 1.0"
    assert "text_error" in (tmp_path / "n.csv").read_text().splitlines()[0]
    assert "Text error" in (tmp_path / "page.html").read_text()


def test_without_an_engine(monkeypatch):
    monkeypatch.setattr(legibility, "PACKAGE", "no-such-package-of-ours")
    with pytest.raises(UsageError, match=r"pip install rapidocr-onnxruntime"):
        legibility.load_reader()


def test_the_engine_reads_what_is_written():
    pytest.importorskip("rapidocr_onnxruntime")
    image = Image.new("RGB", (480, 200), "white")
    draw = ImageDraw.Draw(image)
    draw.text((20, 20), "The quick brown fox", fill=(20, 20, 60), font=ImageFont.load_default(24))
    pixels = np.asarray(image)
    grey = np.full_like(pixels, 200)
    assert text_errors(legibility.load_reader(), pixels, [pixels, grey]) == [0, 1]
