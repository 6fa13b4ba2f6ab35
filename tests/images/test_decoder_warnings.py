"""Warnings of decoders in several threads: each hears its own, and the process stays as it was."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from auravae_cli.images.decoder_warnings import decoder_warnings
from auravae_cli.images.read import count_pixels, read_image
from tests.images.test_read import exif, noise, saved


def test_pictures_read_in_threads_keep_their_notices_and_the_process_its_filters() -> None:
    odd = saved(noise(8, 8), "WEBP", exif=exif(6)[:-2])  # the tags break off, of which Pillow warns
    even = saved(noise(8, 8), "WEBP")
    before = list(warnings.filters), warnings.showwarning, warnings._showwarnmsg_impl  # type: ignore[attr-defined]
    overlap = threading.Barrier(4)

    def notices_of(data: bytes) -> int:
        overlap.wait(30)
        count_pixels(data)
        return len(read_image(data).notices)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(notices_of, [odd, even] * 100))
    assert found == [1, 0] * 100
    after = list(warnings.filters), warnings.showwarning, warnings._showwarnmsg_impl  # type: ignore[attr-defined]
    assert after == before


def test_other_threads_go_on_as_before() -> None:
    """What is no decoder's is neither shown nor taken: here it is an error, as pytest has it."""
    with decoder_warnings() as heard, ThreadPoolExecutor(1) as pool:
        other = pool.submit(warnings.warn, "of others", RuntimeWarning)
        with pytest.raises(RuntimeWarning):
            other.result(30)
    assert heard == []
