"""The page of eval in a real browser: sliders, dark and light, tables, no errors, no network."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import MISSING, Browser

pytestmark = [
    pytest.mark.xdist_group("eval page"),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]
EVIL = '"><img src=x onerror="window.hacked=1"><script>window.hacked=1<!--.png'.replace("/", "")

CLIP = """
const at = document.querySelectorAll('.compare')[arguments[0]];
const box = at.getBoundingClientRect(), right = getComputedStyle(at.querySelector('.before')).clipPath;
return [right, at.querySelector('input').value, box.left, box.top, box.width, box.height];
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory, program) -> Path:
    """A page of three pictures by two models, one picture of an evil name."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "photos").mkdir()
    random = np.random.default_rng(0)
    for name, (height, width) in ((EVIL, (64, 80)), ("b.png", (200, 320)), ("c.png", (40, 40))):
        small = Image.fromarray(random.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        small.resize((width, height)).save(folder / "photos" / name, "PNG")
    arguments = ("-m", "linear", "--symmetrize", "--html", folder / "page.html", "-q")
    command, environment = program
    subprocess.run([*command, "eval", folder / "photos", *arguments], env=environment, check=True)
    return folder / "page.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    """One browser for all tests of this file."""
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def opened(chromium, page):
    """The page, opened anew in a wide window; nothing was logged, nothing but it was asked for."""
    chromium.prefer(prefers_color_scheme="light")
    chromium.resize(1280, 900)
    chromium.requests()
    chromium.open(page)
    yield chromium
    assert chromium.log() == []
    asked = {url for url in chromium.requests() if not url.startswith("data:image/")}
    assert asked == {page.as_uri()}
    assert chromium.run("return window.hacked") is None


def test_all_pictures_load(opened):
    sizes = opened.run("return [...document.images].map(i => [i.complete, i.naturalWidth])")
    assert len(sizes) == 3 + 3 * 2 + 2 * (3 * 3 + 4 + 3 + 2 + 16)  # and two in each slider
    assert all(complete and width > 0 for complete, width in sizes)
    assert EVIL in opened.run("return document.querySelector('main').textContent")


def test_the_slider_moves_by_keyboard(opened):
    assert opened.run(CLIP, 0)[:2] == ["inset(0px 50% 0px 0px)", "50"]
    opened.type(".compare input", "right", "right", "right")
    assert opened.run(CLIP, 0)[:2] == ["inset(0px 47% 0px 0px)", "53"]
    opened.type(".compare input", "home")
    assert opened.run(CLIP, 0)[:2] == ["inset(0px 100% 0px 0px)", "0"]
    opened.type(".compare input", "end", "left")
    assert opened.run(CLIP, 0)[:2] == ["inset(0px 1% 0px 0px)", "99"]
    told = opened.run("return document.querySelector('.compare input').ariaValueText")
    assert told == "99% original, the rest linear"
    assert opened.run(CLIP, 1)[1] == "50"


@pytest.mark.parametrize("kind", ["mouse", "touch"])
def test_the_slider_moves_by_pointer(opened, kind):
    opened.run(
        "document.querySelector('.compare').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    _, _, left, top, width, height = opened.run(CLIP, 0)
    before = opened.screenshot()
    opened.drag((left + width / 2, top + height / 2), (left + 0.2 * width, top + height / 2), kind)
    clip, value, *_ = opened.run(CLIP, 0)
    assert 18 <= int(value) <= 22
    assert clip == f"inset(0px {100 - int(value)}% 0px 0px)"
    assert opened.screenshot() != before


def test_the_slider_shows_both_pictures(opened):
    """What is left of the handle is the original's pixels, the rest the reconstruction's."""
    sources = opened.run(
        "const a = document.querySelector('article'), s = q => a.querySelector(q).src;"
        "return [s('.before img'), s('.original img'), s('.after img'), s('.reconstruction img')]"
    )
    assert sources[0] == sources[1] != sources[2] == sources[3]


CHOOSE = """
const choice = document.querySelector(arguments[0]);
choice.value = arguments[1];
choice.dispatchEvent(new Event('change'));
const of = (article, sides) => sides.map(side => article.querySelector(side + ' img').src);
return [...document.querySelectorAll('article')].map(a => [
  ...of(a, ['.before', '.after']), a.querySelector('.side.left').textContent, a.querySelector('.side.right').textContent,
  ...[...a.querySelectorAll('figure.reconstruction img')].map(i => i.src), a.querySelector('.original img').src,
]);
"""


def test_a_model_is_compared_with_a_model_in_all_pictures_at_once(opened):
    for before, after, left, right, _, second, original in opened.run(
        CHOOSE, ".of-right", "linear-symmetrized"
    ):
        assert (left, right) == ("original", "linear-symmetrized")
        assert (before, after) == (original, second)
    for before, after, left, right, first, second, _ in opened.run(CHOOSE, ".of-left", "linear"):
        assert (left, right) == ("linear", "linear-symmetrized")
        assert (before, after) == (first, second)
    told = opened.run("return document.querySelector('.compare input').ariaValueText")
    assert told == "50% linear, the rest linear-symmetrized"


VIEW = """
const at = document.querySelector('.compare');
const of = side => getComputedStyle(at.querySelector(side + ' img')).transform;
return [of('.before'), of('.after'), at.querySelector('input').value];
"""


def test_both_sides_zoom_and_move_as_one(opened):
    opened.run(
        "document.querySelector('button.in').click(); document.querySelector('button.in').click()"
    )
    before, after, value = opened.run(VIEW)
    assert before == after and before.startswith("matrix(4, 0, 0, 4, ")
    opened.run(
        "document.querySelector('.compare').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    _, _, left, top, width, height = opened.run(CLIP, 0)
    opened.drag(
        (left + 0.2 * width, top + height / 2), (left + 0.3 * width, top + height / 2), "mouse"
    )
    moved, also, same = opened.run(VIEW)
    assert (
        moved == also != before and same == value
    )  # a drag far from the handle moves the pictures
    opened.drag(
        (left + width / 2, top + height / 2), (left + 0.7 * width, top + height / 2), "mouse"
    )
    still, _, further = opened.run(VIEW)
    assert still == moved and 68 <= int(further) <= 72
    opened.run("for (let i = 0; i < 9; i++) document.querySelector('button.out').click()")
    assert opened.run(VIEW)[0] == "matrix(1, 0, 0, 1, 0, 0)"


def test_dark_and_light(opened):
    colours = {}
    script = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    for scheme in ("light", "dark"):
        opened.prefer(prefers_color_scheme=scheme)
        colours[scheme] = [
            sum(map(int, colour.removeprefix("rgb(").rstrip(")").split(",")))
            for colour in opened.run(script)
        ]
    assert colours["light"][0] > 700 > 150 > colours["light"][1]
    assert colours["dark"][0] < 150 < 600 < colours["dark"][1]


def test_nothing_overflows_a_narrow_window(opened):
    for width in (390, 1280):
        opened.resize(width, 844)
        assert opened.run("return document.documentElement.scrollWidth") == width


def test_every_control_is_reached_and_has_a_name(opened):
    names = opened.run(
        "return [...document.querySelectorAll('a, button, input, select, [tabindex]')].map(e => "
        "e.ariaLabel || e.textContent || e.labels?.[0]?.textContent)"
    )
    assert names and all(name.strip() for name in names)
    opened.run("document.querySelector('.compare input').focus()")
    outline = "return getComputedStyle(document.querySelector('.compare')).outlineStyle"
    assert opened.run(outline) == "solid"


def test_tables_sort(opened):
    column = (
        "const t = document.querySelector('table.sortable'); t.closest('details').open = true;"
        "return [...t.tBodies[0].rows].map(r => Number(r.cells[3].dataset.value))"
    )
    worst_first = opened.run(column)
    assert worst_first == sorted(worst_first)
    click = "document.querySelectorAll('table.sortable button')[3].click();"
    assert opened.run(click + column) == sorted(worst_first)
    assert opened.run(click + column) == sorted(worst_first, reverse=True)
    heads = "return [...document.querySelectorAll('[aria-sort]')].map(h => h.ariaSort)"
    assert opened.run(heads) == ["descending"]


def test_motion_and_print(opened):
    opened.prefer(prefers_reduced_motion="reduce")
    scroll = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert opened.run(scroll) == "auto"
    opened.command("Emulation.setEmulatedMedia", media="print")
    assert (
        opened.run("return getComputedStyle(document.querySelector('.viewer')).display") == "none"
    )
    opened.command("Emulation.setEmulatedMedia", media="")
