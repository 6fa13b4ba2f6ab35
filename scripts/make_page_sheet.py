"""Draw docs/eval.webp: the page of an evaluation of the sample pictures, light and dark.

    PYTHONPATH=. python scripts/make_page_sheet.py [--output docs/eval.webp]

Needs Chromium and chromedriver; a minute on two cores.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from auravae_cli.files.atomic import write_atomically
from auravae_cli.images.write import picture_bytes
from tests.browser import Browser

SAMPLES = Path(__file__).parents[1] / "samples"
PICTURES = ("astronaut.jpg", "chelsea_exif6.jpg", "coffee.jpg", "rocket.webp")
WIDTH, HEIGHT = 1180, 800
FIRST_DIFFERENCE = "document.querySelector('.difference')"
TOP = "const e = [...document.querySelectorAll('h3')].find(h => h.textContent == arguments[0]);"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/eval.webp"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        command = [sys.executable, "-m", "auravae_cli", "eval", "-m", "linear", "-m", "small"]
        command += ["--sweeps", "1", "--flips", "1", "--html", str(page), "-q"]
        subprocess.run([*command, *(str(SAMPLES / name) for name in PICTURES)], check=True)
        browser = Browser(Path(folder) / "profile")
        try:
            halves = [shot(browser, page, scheme) for scheme in ("light", "dark")]
            split = (
                round(browser.run(f"return {FIRST_DIFFERENCE}.getBoundingClientRect().left")) - 8
            )
        finally:
            browser.close()
    whole = halves[0].copy()
    whole[:, split:] = halves[1][:, split:]
    write_atomically(options.output, picture_bytes(whole, ".webp", quality=80))


def shot(browser: Browser, page: Path, scheme: str) -> np.ndarray:
    """The coffee cup's part of the page, uint8 [H, W, 3]."""
    browser.resize(WIDTH, HEIGHT)
    browser.prefer(prefers_color_scheme=scheme)
    browser.open(page)
    browser.run(f"{TOP} e.scrollIntoView({{behavior: 'instant'}})", "coffee.jpg")
    with Image.open(io.BytesIO(browser.screenshot())) as image:
        return np.asarray(image.convert("RGB"))


if __name__ == "__main__":
    main()
