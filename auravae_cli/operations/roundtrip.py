"""Pictures => latents => pictures, with what that costs in quality and time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from auravae_cli.errors import InputImageError
from auravae_cli.images.contact_sheet import DIFFERENCE_GAIN, contact_sheet, difference
from auravae_cli.images.metrics import psnr, ssim
from auravae_cli.images.read import Pixels, read_image, to_8_bit
from auravae_cli.images.write import picture_bytes, read_provenance
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import Outcome, Ready, done, run
from auravae_cli.operations.decode import DecodeOptions
from auravae_cli.operations.encode import EncodeOptions
from auravae_cli.operations.outputs import (
    Job,
    holds,
    is_taken,
    refuse_to_replace,
    refuse_to_replace_input,
    write_result,
)
from auravae_cli.operations.suffixes import ROUNDTRIP, SHEET
from auravae_cli.operations.timed_batches import Stopwatch, roundtrip_parts
from auravae_cli.symmetry.action import act_on_pixels
from auravae_cli.symmetry.geometry import padding_for
from auravae_cli.symmetry.group import GroupElement


@dataclass(frozen=True)
class RoundTrip:
    """One picture through the model: 8-bit pixels, numbers, and seconds of each stage."""

    original: Pixels
    reconstruction: Pixels
    flips: dict[GroupElement, Pixels]
    details: dict[str, Any]


def roundtrip_files(
    jobs: Iterable[Job],
    codec: Codec,
    encode: EncodeOptions,
    decode: DecodeOptions,
    elements: tuple[GroupElement, ...],
) -> Iterator[Outcome]:
    """Write each reconstruction, and with ``elements`` a contact sheet; an outcome for each."""

    watch = Stopwatch("roundtrip", roundtrip_parts(len(elements)))

    def load(job: Job) -> Ready[bytes] | Outcome:
        return Ready(job, None, job.source.read_bytes(InputImageError))

    def finish(batch: Sequence[Ready[bytes]]) -> list[Outcome]:
        return [store(ready.job, ready.content) for ready in batch]

    def store(job: Job, data: bytes) -> Outcome:
        sheet_path = sheet_place(job.output) if job.output and elements else None
        for place in filter(None, [job.output, sheet_path]):
            # Somebody else's file is refused at once, an older round trip's when the result is known.
            found = read_provenance(place) if is_taken(place) else None
            ours = (found or {}).get("command") == "roundtrip"
            refuse_to_replace(place, encode.overwrite or ours)
            refuse_to_replace_input(place, data)
        started = time.perf_counter()
        loaded = read_image(
            data, background=encode.preparation.background, max_pixels=encode.max_pixels
        )
        read_seconds = time.perf_counter() - started

        def work() -> list[Outcome]:
            trip = roundtrip(loaded.pixels, codec, encode, decode, elements)
            trip.details["seconds"] = {"read": read_seconds, **trip.details["seconds"]}
            note = {"command": "roundtrip", "model": codec.space.model}
            results = []
            if sheet_path is not None:
                sheet = contact_sheet(cells(trip))
                results.append((sheet_path, picture_bytes(sheet, ".png", provenance=note)))
                trip.details["sheet"] = str(sheet_path)
            started = time.perf_counter()
            suffix = decode.suffix if job.output is None else job.output.suffix
            content = picture_bytes(
                trip.reconstruction, suffix, quality=decode.quality, provenance=note
            )
            _write([*results, (job.output, content)], encode.overwrite)
            trip.details["seconds"]["write"] = time.perf_counter() - started
            return [done(job, loaded.notices, **trip.details)]

        size = encode.preparation.size(*loaded.pixels.shape[:2])
        padded = padding_for(*size, codec.space.downsampling_factor).padded(*size)
        return watch.run(codec, (1, *padded), work)[0]

    return watch.over(run(jobs, load, finish))


def roundtrip(
    pixels: Pixels,
    codec: Codec,
    encode: EncodeOptions,
    decode: DecodeOptions,
    elements: tuple[GroupElement, ...] = (),
) -> RoundTrip:
    """Encode a picture [H, W, 3] and decode it, and its latent after each of ``elements``.

    A decoded flip is compared with the flipped picture. Metrics are of 8-bit pixels.
    """
    started = time.perf_counter()
    latent = codec.encode_image(pixels, encode.preparation, encode.stored_dtype)
    encoded = time.perf_counter()
    options = {"noise": decode.noise, "seed": decode.seed}
    reconstruction = codec.decode_latent(latent, **options)
    decoded = time.perf_counter()
    original = to_8_bit(encode.preparation.frame(pixels))
    flips = {g: codec.decode_latent(latent.act(g), **options) for g in elements}
    details: dict[str, Any] = {
        "image_size": list(original.shape[:2]),
        "latent_shape": list(latent.values.shape),
        **_compare(reconstruction, original),
        "seconds": {"encode": encoded - started, "decode": decoded - encoded},
    }
    if elements:
        details["flips"] = {
            str(g): _compare(flips[g], act_on_pixels(g, original)) for g in elements
        }
    return RoundTrip(original, reconstruction, flips, details)


def cells(trip: RoundTrip) -> list[tuple[str, Pixels]]:
    """The captioned pictures of a contact sheet."""
    numbers = trip.details
    captions = [
        ("original", trip.original),
        (f"reconstruction {_db(numbers['psnr'])}", trip.reconstruction),
        (f"difference x {DIFFERENCE_GAIN}", difference(trip.reconstruction, trip.original)),
    ]
    for g, flipped in trip.flips.items():
        captions.append((f"latent flipped by {g} {_db(numbers['flips'][str(g)]['psnr'])}", flipped))
    return captions


def sheet_place(output: Path) -> Path:
    """Where the contact sheet goes, beside the reconstruction."""
    return output.with_name(f"{output.stem.removesuffix(ROUNDTRIP)}{SHEET}.png")


def _compare(image: Pixels, reference: Pixels) -> dict[str, float | None]:
    value = psnr(image, reference)
    return {"psnr": value if np.isfinite(value) else None, "ssim": ssim(image, reference)}


def _db(value: float | None) -> str:
    return "identical" if value is None else f"{value:.2f} dB"


def _write(results: list[tuple[Path | None, bytes]], overwrite: bool) -> None:
    """Write results, to standard output where they have no place: all of them, or none.

    Those that stand there as they are stay. Raises OutputError where another file would be replaced.
    """
    new = [(place, c) for place, c in results if overwrite or not (place and holds(place, [c]))]
    for place, _ in new:
        if place is not None:
            refuse_to_replace(place, overwrite)
    for place, content in new:
        write_result(place, content)
