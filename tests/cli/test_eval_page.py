"""eval --html: a page that holds everything, is sound, and can be made again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from auravae_cli.model.codec import Codec

EVIL = "<script>alert(1)<!--.png"
VOID = {"img", "input", "meta", "br", "hr"}


class Page(HTMLParser):
    """A page read strictly: every element is closed where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.source = path.read_bytes().decode()
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]

    @property
    def text(self):
        return " ".join(text for tag, text in self.texts if tag not in ("style", "script"))


@pytest.fixture
def photos(work, picture):
    """A folder of four pictures, one of an evil name."""
    for name, size in (
        ("a.png", (40, 56)),
        ("b.png", (43, 61)),
        ("c.png", (171, 165)),
        (EVIL, (24, 24)),
    ):
        picture(f"photos/{name}", *size, shift=5 * size[0])
    return Path("photos")


def test_the_page_is_sound(auravae, photos):
    options = ("-m", "linear", "--symmetrize", "--html", "page.html", "--sweeps", "2")
    assert auravae("eval", photos, *options).code == 0
    page = Page(Path("page.html"))
    assert page.source.startswith("<!DOCTYPE html>\n")
    assert [a["lang"] for a in page.all("html")] == ["en"]
    assert len(page.all("main")) == len(page.all("nav")) == len(page.all("h1")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for attributes in page.all("a")]
    assert links and all(link[0] == "#" and link[1:] in ids for link in links)
    for _, attributes in page.elements:
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids
    images = page.all("img")
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in images)
    per_model = 4 * 3 + 4 + 3 + 2 + 16  # pictures, orbit and what it changes, colours, channels
    assert len(images) == 4 + 2 * per_model
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in pairwise(levels))
    for drawing in page.all("svg"):
        assert drawing["role"] == "img" and len(drawing["aria-labelledby"].split()) == 2
    assert len(page.all("svg")) == len(page.all("title")) - 1 == len(page.all("desc")) == 11
    assert len(page.all("details")) == 12
    sliders = [attributes for attributes in page.all("input") if attributes["type"] == "range"]
    assert len(sliders) == 4 and all(slider["aria-label"] for slider in sliders)


def test_nothing_but_itself(auravae, photos):
    auravae("eval", photos, "--html", "page.html")
    page = Page(Path("page.html"))
    (policy,) = (a["content"] for a in page.all("meta") if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; ")
    for kind in ("style", "script"):
        (text,) = (text for tag, text in page.texts if tag == kind)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not any("style" in a or any(n.startswith("on") for n in a) for _, a in page.elements)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert len(page.all("script")) == len(page.all("style")) == 1
    assert EVIL in page.text and EVIL not in page.source


def test_its_numbers_are_those_of_the_results(auravae, photos):
    auravae("eval", photos, "-o", "RUN", "--html", "page.html", "-q")
    text = Page(Path("page.html")).text
    (model,) = json.loads(Path("RUN/summary.json").read_bytes())["models"]
    quality = model["quality"]
    first = text.index(f"{quality['psnr']['mean']:.2f}")
    assert first < text.index(model["certificate"]["statement"])  # it opens with quality
    for shown in (
        f"{quality['psnr']['mean']:.2f}",
        f"worst {quality['psnr']['worst']:.2f}",
        f"{quality['ssim']['mean']:.4f}",
        model["certificate"]["statement"],
        model["weights_sha256"],
        *(f"{point['psnr']:.2f}" for point in model["noise"]["points"]),
        *(f"{kind['cost']:.4f}" for kind in model["storage"]["types"]),
        *(f"{value:.3f}" for value in model["latent"]["deviation"]),
        "Not measured: LPIPS, Text error, rFID.",
        "MS-SSIM of linear is of 1 of 4 pictures.",
    ):
        assert shown in text, shown
    for parity, number in (("ee", 12), ("oe", 2), ("eo", 2)):
        assert Page(Path("page.html")).source.count(f'class="parity {parity}" title') == number


def test_it_is_made_again_without_the_model(auravae, photos, monkeypatch, tree):
    options = ("-o", "RUN", "-m", "linear", "--html")
    assert auravae("eval", photos, *options, "page.html").code == 0
    kept = {name: data for name, data in tree(Path("RUN")).items() if "pictures/" in str(name)}
    assert len(kept) == 4 * 4 + 8
    with monkeypatch.context() as patch:
        for half in ("encode_unit", "decode"):
            patch.setattr(Codec, half, lambda *_: pytest.fail("the model ran"))
        assert auravae("eval", photos, *options, "again.html").code == 0
    assert Path("again.html").read_bytes() == Path("page.html").read_bytes()
    for path in list(Path("RUN/pictures").rglob("difference.webp"))[:2]:
        path.write_bytes(b"")
    assert auravae("eval", photos, *options, "repaired.html").code == 0
    assert Path("repaired.html").read_bytes() == Path("page.html").read_bytes()
    assert tree(Path("RUN")) | kept == tree(Path("RUN"))


def test_one_picture(auravae, photos):
    result = auravae("eval", photos / "a.png", "--html", "page.html", "-m", "linear")
    assert result.code == 0
    page = Page(Path("page.html"))
    assert "What linear does to 1 picture " in page.text + " "
    assert not [a for a in page.all("input") if a["type"] == "radio"]


def test_many_pictures(auravae, work, picture):
    for number in range(30):
        picture(f"photos/{number:02}.png", 16 + number % 3, 24, shift=number)
    options = ("--html", "page.html", "--html-images", "8", "--flips", "3", "--sweeps", "0")
    assert auravae("eval", "photos", *options).code == 0
    page = Page(Path("page.html"))
    assert len(page.all("article")) == 8
    assert "8 of 30 pictures are shown" in page.text and "The numbers are of all 30." in page.text
    for words in ("The worst 4", "Around the median 2", "The best 2", "30 lines", "--sweeps 0"):
        assert words in page.text
    flips = json.loads(auravae("eval", "photos", "--flips", "3", "--json").text.splitlines()[-1])
    elements = flips["models"][0]["certificate"]["elements"].values()
    worst = max((e["flip_gap"]["worst"], e["flip_gap"]["worst_picture"]) for e in elements)[1]
    assert f"The orbit of the latent of {worst}," in page.text


def test_nothing_of_flips(auravae, photos):
    assert auravae("eval", photos, "--html", "page.html", "--flips", "0").code == 0
    page = Page(Path("page.html"))
    assert "Flips were not measured (--flips 0)" in page.text
    assert "Worst flip gap" not in page.text


def test_failures_are_on_the_page(auravae, photos, monkeypatch):
    Path("photos/bad & ugly.png").write_text("no picture")
    result = auravae("eval", photos, "--html", "page.html")
    assert result.code == 1
    page = Page(Path("page.html"))
    assert (
        "1 failures" in page.text and "bad & ugly.png" in page.text and "not a picture" in page.text
    )


def test_pictures_that_are_gone_meanwhile(auravae, photos, monkeypatch):
    import auravae_cli.evaluation.pictures as module

    def fails(*_):
        raise MemoryError

    monkeypatch.setattr(module, "draw", fails)
    result = auravae("eval", photos, "--html", "page.html", "--sweeps", "0")
    assert result.code == 0
    assert result.err.count("is not on the page: not enough memory") == 4
    assert "This picture could not be drawn again." in Page(Path("page.html")).text


def test_the_page_replaces_nothing(auravae, photos):
    Path("page.html").write_text("mine")
    result = auravae("eval", photos, "--html", "page.html")
    assert result.code == 1 and "page.html exists already" in result.err
    assert Path("page.html").read_text() == "mine"
    assert auravae("eval", photos, "--html", "page.html", "--overwrite").code == 0
    assert auravae("eval", photos, "--html", "photos").code == 1


def test_names_that_are_no_text(auravae, photos):
    name = b"photos/\xff\xfe.png".decode(errors="surrogateescape")
    try:
        shutil.copy(photos / "a.png", name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert auravae("eval", photos, "--html", "page.html", "--sweeps", "0").code == 0
    assert "\ufffd\ufffd.png" in Page(Path("page.html")).text


def test_large_pictures_are_reduced(auravae, picture, work):
    picture("large.png", 300, 1500)
    auravae("eval", "large.png", "--html", "page.html", "--sweeps", "0")
    page = Page(Path("page.html"))
    assert "original, 1500 x 300, shown at 720 x 144" in page.text.replace("\u00d7", "x")
    assert max(int(image["width"]) for image in page.all("img")) == 720
