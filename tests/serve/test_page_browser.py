"""The page in a real browser, driven from end to end."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auravae_cli import H, V, psnr
from auravae_cli.serve.app import app
from auravae_cli.symmetry.action import act_on_pixels
from tests.browser import MISSING, Browser
from tests.serve.conftest import running as run_service

pytestmark = [
    pytest.mark.xdist_group("serve page"),
    pytest.mark.skipif(bool(MISSING), reason=MISSING),
]
DONE = "return document.querySelector('#doing').textContent.startsWith('done')"
FACTS = "return Object.fromEntries([...document.querySelectorAll(arguments[0] + ' > div')].map(d => [d.children[0].textContent, d.children[1].textContent]))"
BLOB = """
const answer = await fetch(document.querySelector(arguments[0]).href);
const bytes = new Uint8Array(await answer.arrayBuffer());
return btoa(bytes.reduce((text, byte) => text + String.fromCharCode(byte), ''));
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def photo(coffee, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "cup.png"
    Image.open(io.BytesIO(coffee)).crop((0, 0, 100, 75)).save(path)
    return path


@pytest.fixture
def page(chromium, service):
    """The page, opened anew; in the end nothing was logged, and nobody else was asked."""
    chromium.prefer(prefers_color_scheme="light")
    chromium.resize(1280, 900)
    chromium.log(), chromium.requests()
    chromium.visit(service.url)
    chromium.wait("return document.querySelector('#model').textContent.includes('linear on cpu')")
    yield chromium
    assert chromium.log() == []
    asked = {re.sub(r"^(blob:)?", "", url) for url in chromium.requests()}
    assert {url for url in asked if not url.startswith((service.url, "data:,"))} == set()


def take(page: Browser, path: Path) -> None:
    page.run("document.querySelector('#doing').textContent = ''")
    page.choose("#file", path)
    page.wait(DONE)


def press(page: Browser, selector: str) -> None:
    page.run("document.querySelector('#doing').textContent = ''")
    page.click(selector)
    page.wait(DONE)


def taken(page: Browser, selector: str) -> bytes:
    return base64.b64decode(page.run(BLOB, selector))


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_picture_its_reconstruction_and_its_flips(page, linear, photo, service):
    take(page, photo)
    original = pixels(photo.read_bytes())
    latent = linear.encode_image(photo.read_bytes() and original)
    plain = linear.decode_latent(latent)
    facts = page.run(FACTS, "#facts")
    assert facts["picture"] == "100 × 75 pixels"
    assert facts["latent"].startswith("16 × 10 × 13, float16, ")
    assert facts["PSNR of the reconstruction"].startswith(
        f"{psnr(plain, original):.2f} dB; largest difference "
    )
    assert np.array_equal(pixels(taken(page, "#take-picture")), plain)

    for selector, g in (("#flip-h", H), ("#flip-v", H @ V)):
        press(page, selector)
        told = page.run(FACTS, "#flip-facts")
        turned = linear.decode_latent(latent.act(g))
        value = psnr(turned, np.ascontiguousarray(act_on_pixels(g, original)))
        assert told["PSNR against the flipped picture"].startswith(f"{value:.2f} dB")
        assert told["PSNR against the flipped reconstruction"] == "identical in every pixel"
        assert np.array_equal(pixels(taken(page, "#take-picture")), turned)
    name = page.run("return document.querySelector('#take-latent').download")
    assert name == "cup.hv.safetensors"
    sent = service.post("/v1/encode", photo.read_bytes()).body
    assert taken(page, "#take-latent") == service.post("/v1/flip?by=hv", sent).body
    assert page.run("return document.querySelectorAll('.negated').length") == 4
    press(page, "#flip-h")
    labels = page.run(
        "return [...document.querySelectorAll('.negated canvas')].map(c => c.ariaLabel)"
    )
    assert labels == [f"Channel {n}, parity eo, negated by the flip" for n in (14, 15)]
    press(page, "#flip-v")
    assert page.run("return document.querySelector('#flip').hidden")


def test_maps_of_channels_have_the_colours_of_the_command(page, photo, linear):
    from auravae_cli.model.preview import channel_map, map_range

    take(page, photo)
    latent = linear.encode_image(pixels(photo.read_bytes())).to_float32()
    top = map_range(latent)
    assert page.run("return document.querySelector('.top').textContent") == f"{top:.2f}"
    for channel in (0, 13):
        found = page.run(
            """const c = document.querySelectorAll('#maps canvas')[arguments[0]];
            return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]""",
            channel,
        )
        rgb = np.array(found).reshape(10, 13, 4)[..., :3]
        expected = channel_map(latent[channel], top).astype(int)
        assert np.abs(rgb - expected).max() <= 1


def test_noise_and_keys(page, photo, linear):
    take(page, photo)
    latent = linear.encode_image(pixels(photo.read_bytes()))
    page.run("document.querySelector('#doing').textContent = ''")
    page.type("#noise", "right", "right")
    page.wait("return document.querySelector('#noise-told').textContent === '0.10'")
    page.wait(DONE)
    noisy = linear.decode_latent(latent, noise=0.1, seed=0)
    page.wait("return document.querySelector('#noise').value === '0.1'")
    assert np.array_equal(pixels(taken(page, "#take-picture")), noisy)
    page.type("#at", "home", "right")
    clip = "return getComputedStyle(document.querySelector('#original')).clipPath"
    assert page.run(clip) == "inset(0px 99% 0px 0px)"
    told = page.run("return document.querySelector('#at').ariaValueText")
    assert told == "1% original, the rest reconstruction"
    page.run("document.querySelector('#doing').textContent = ''")
    page.run(PRESS, "H")  # with Caps Lock
    page.wait(DONE)
    assert page.run("return document.querySelector('#flip-h').ariaPressed") == "true"


def test_a_latent_file(page, service, photo, tmp_path):
    path = tmp_path / "z.safetensors"
    path.write_bytes(service.post("/v1/encode?latent_dtype=bfloat16", photo.read_bytes()).body)
    take(page, path)
    assert page.run("return document.querySelector('#left').textContent") == "preview"
    assert "bfloat16" in page.run(FACTS, "#facts")["latent"]
    press(page, "#flip-v")
    assert page.run(FACTS, "#flip-facts") == {
        "PSNR against the flipped reconstruction": "identical in every pixel"
    }


def test_a_file_that_is_none_is_told(page, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"not a picture")
    page.choose("#file", path)
    page.wait("return !document.querySelector('#error').hidden")
    assert page.run("return document.querySelector('#error').textContent").startswith(
        "not a picture"
    )
    page.log()  # the browser notes the status 422
    assert page.run("return document.querySelector('#results').hidden")


DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), c => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], arguments[1]));
dispatchEvent(new DragEvent('drop', {dataTransfer: transfer}));
"""
PRESS = (
    "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"
)


def drop(page: Browser, content: bytes, name: str) -> None:
    page.run(DROP, base64.b64encode(content).decode(), name)


def test_a_dropped_file_and_the_sheet(page, service, photo):
    drop(page, photo.read_bytes(), "dropped.png")
    page.wait(DONE)
    page.run(
        """window.links = [];
        HTMLAnchorElement.prototype.click = function () { window.links.push(this); };"""
    )
    press(page, "#take-sheet")
    script = BLOB.replace("document.querySelector(arguments[0])", "window.links[0]")
    sheet = base64.b64decode(page.run(script))
    assert sheet == service.post("/v1/roundtrip?give=sheet&flip=all", photo.read_bytes()).body
    assert page.run("return window.links[0].download") == "dropped.sheet.png"


def test_a_new_file_ends_the_work_on_the_one_before(page, photo):
    """Wherever that stands: here the browser decodes a picture of it, which nothing can abort."""
    page.run(
        """const decode = window.createImageBitmap;
        window.createImageBitmap = (...given) => new Promise(done => {
          window.release = () => done(decode(...given));
          window.createImageBitmap = decode;
        });"""
    )
    drop(page, photo.read_bytes(), "first.png")
    page.wait("return !!window.release")
    drop(page, photo.read_bytes(), "second.png")
    page.wait(DONE)
    page.requests()
    page.run("window.release()")
    assert page.run(PRESS, "h") is None
    page.wait("return !document.querySelector('#flip').hidden")
    assert page.run(FACTS, "#facts")["file"] == "second.png"
    assert not [url for url in page.requests() if url.endswith("/v1/encode?")]


def test_a_flip_waits_for_no_file_that_is_loading(page, photo):
    take(page, photo)
    page.run(
        """window.fetch = (_, { signal }) => new Promise((_, refuse) => {
          signal.addEventListener('abort', () => refuse(signal.reason));
        });"""
    )
    drop(page, photo.read_bytes(), "next.png")
    page.run(PRESS, "h")
    assert page.run("return document.querySelector('#results').inert")
    assert page.run("return document.querySelector('#doing').textContent") == "reading the picture"
    page.click("#cancel")
    page.wait("return !document.querySelector('#results').inert")
    assert page.run(FACTS, "#facts")["file"] == "cup.png"


def test_notices_stay_when_the_latent_is_flipped(page, tmp_path):
    path = tmp_path / "clear.png"
    Image.new("RGBA", (16, 8), (200, 0, 0, 100)).save(path)
    take(page, path)
    press(page, "#flip-h")
    assert page.run(FACTS, "#facts")["conversions"] == "alpha composited on white"


@pytest.mark.parametrize("what", ["nothing", "a file that is gone"])
def test_what_cannot_be_read_is_told(page, photo, what):
    if what == "nothing":
        page.run("dispatchEvent(new DragEvent('drop', {dataTransfer: new DataTransfer()}))")
    else:
        page.run("Blob.prototype.text = () => Promise.reject(new Error('could not be found'))")
        drop(page, photo.read_bytes(), "gone.png")
    page.wait("return !document.querySelector('#error').hidden")
    told = page.run("return document.querySelector('#error').textContent")
    assert told.startswith("no file was dropped" if what == "nothing" else "could not be found")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_every_window(page, photo, scheme, width, tmp_path):
    page.prefer(prefers_color_scheme=scheme)
    page.resize(width, 800)
    take(page, photo)
    press(page, "#flip-h")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    for text, minimum in (("body", 7), (".soft", 4.5), ("figcaption", 4.5), ("#flip-h", 4.5)):
        assert page.run(CONTRAST, text) > minimum, text
    image = Image.open(io.BytesIO(page.screenshot(whole=True))).convert("L")
    assert (np.asarray(image).mean() < 110) == (scheme == "dark")


CONTRAST = """
const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
  .map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
const element = document.querySelector(arguments[0]);
let behind = element;
while (rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
const [high, low] = pair.map(rgb).map(light).sort((a, b) => b - a);
return (high + .05) / (low + .05);
"""


def test_everything_has_a_name_and_the_keyboard_reaches_it(page, photo):
    take(page, photo)
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and node["role"]["value"] in {"button", "slider", "link", "image", "img", "heading"}
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    reached = set()
    for _ in range(20):
        page.key("Tab")
        reached.add(page.run("return document.activeElement.id || document.activeElement.tagName"))
    assert reached >= {"file", "at", "noise", "flip-h", "flip-v", "take-latent", "take-sheet"}


def test_work_can_be_cancelled(chromium, start, linear, photo):
    import threading
    from dataclasses import replace

    class Slow:
        def __init__(self) -> None:
            self.gate = threading.Event()

        encode = staticmethod(linear.autoencoder.encode)

        def decode(self, latents):
            assert self.gate.wait(60)
            return linear.autoencoder.decode(latents)

    model = Slow()
    running = start(replace(linear, autoencoder=model))
    try:
        chromium.visit(running.url)
        chromium.choose("#file", photo)
        chromium.wait("return document.querySelector('#doing').textContent === 'decoding'")
        chromium.wait("return document.querySelector('#seconds').textContent === '1 s'")
        assert not chromium.run("return document.querySelector('#progress').hidden")
        chromium.click("#cancel")
        chromium.wait("return document.querySelector('#doing').textContent === 'cancelled'")
        running.waits_until(lambda: running.service.requests.used == 0)
    finally:
        model.gate.set()


def test_the_page_of_paths(page, service):
    page.visit(f"{service.url}/docs")
    page.wait("return document.querySelectorAll('h2').length > 10")
    text = page.run("return document.body.textContent")
    assert "POST /v1/encode" in text and "Colour behind transparent pixels" in text


def test_a_token_is_asked_for(chromium, start, photo):
    """The file is sent again with the token, although it was dropped."""
    running = start(token="secret")
    chromium.visit(running.url)
    drop(chromium, photo.read_bytes(), "dropped.png")
    chromium.wait("return !document.querySelector('#ask-token').hidden")
    chromium.run("document.querySelector('#token').value = 'secret'")
    chromium.click("#ask-token button")
    chromium.wait(DONE)
    assert chromium.run("return document.querySelector('#error').hidden")
    chromium.log()


def test_a_service_that_has_stopped_is_told(chromium, linear, photo):
    with run_service(app(linear)) as running:
        chromium.visit(running.url)
        chromium.wait("return document.querySelector('#model').textContent.includes('linear')")
    chromium.choose("#file", photo)
    chromium.wait("return !document.querySelector('#error').hidden")
    told = chromium.run("return document.querySelector('#error').textContent")
    assert told.startswith("the service does not answer")
    chromium.log()
