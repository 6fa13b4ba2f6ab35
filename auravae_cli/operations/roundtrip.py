"""Encode and decode pictures, and measure the quality and the time."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS, STREAM
from auravae_cli.errors import InputImageError, UsageError
from auravae_cli.files.places import below
from auravae_cli.images.contact_sheet import DIFFERENCE_GAIN, contact_sheet, difference
from auravae_cli.images.metrics import psnr, ssim
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import LoadedImage, Pixels, read_image, to_8_bit
from auravae_cli.images.write import WRITABLE, picture_bytes, read_provenance
from auravae_cli.latents.dtypes import StoredDtype
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.model.codec import Codec
from auravae_cli.operations.batches import Outcome, Ready, done, run
from auravae_cli.operations.decode import DecodeOptions
from auravae_cli.operations.encode import EncodeOptions, padded, sizes_of
from auravae_cli.operations.jobs import Names, named_place, plan_jobs
from auravae_cli.operations.loading import Loading, codec_of
from auravae_cli.operations.outputs import (
    Job,
    holds,
    is_taken,
    refuse_to_replace,
    refuse_to_replace_input,
    write_result,
)
from auravae_cli.operations.suffixes import PICTURE_TAGS, PICTURES, ROUNDTRIP, SHEET
from auravae_cli.operations.timed_batches import Stopwatch, roundtrip_parts
from auravae_cli.symmetry.action import act_on_pixels
from auravae_cli.symmetry.group import GroupElement


@dataclass(frozen=True)
class RoundTrip:
    """One picture through the model: 8-bit pixels, numbers, and seconds of each stage."""

    original: Pixels
    reconstruction: Pixels
    flips: dict[GroupElement, Pixels]
    details: dict[str, Any]


@dataclass(frozen=True)
class ReadPicture:
    """A picture in progress, the place of its contact sheet, and the seconds that reading it took."""

    image: LoadedImage
    sheet: Path | None
    seconds: float


@dataclass(frozen=True)
class RoundTripper:
    """Reads a picture, encodes and decodes it, and writes its reconstruction.

    With ``elements``, also a contact sheet.
    """

    codec: Codec
    encode: EncodeOptions
    decode: DecodeOptions
    elements: tuple[GroupElement, ...]

    def read(self, job: Job) -> Ready[ReadPicture]:
        """Return the picture, and the places of its results. Raises OutputError if a file is in the way."""
        data = job.source.read_bytes(InputImageError)
        sheet = sheet_place(job.output) if job.output and self.elements else None
        for place in filter(None, [job.output, sheet]):
            # A foreign file is refused at once, an older round trip's when the result is known.
            found = read_provenance(place) if is_taken(place) else None
            ours = (found or {}).get("command") == "roundtrip"
            refuse_to_replace(place, self.encode.overwrite or ours)
            refuse_to_replace_input(place, data)
        started = time.perf_counter()
        preparation = self.encode.preparation
        loaded = read_image(
            data, background=preparation.background, max_pixels=self.encode.max_pixels
        )
        content = ReadPicture(loaded, sheet, time.perf_counter() - started)
        height, width = loaded.pixels.shape[:2]
        factor = self.codec.space.downsampling_factor
        padded = preparation.padded_size(height, width, factor)
        return Ready(job, content, self.codec, padded)

    def finish(self, batch: Sequence[Ready[ReadPicture]]) -> list[Outcome]:
        """Encode, decode and write."""
        return [self.write(ready.job, ready.content) for ready in batch]

    def write(self, job: Job, read: ReadPicture) -> Outcome:
        """Write the results of a picture."""
        trip = roundtrip(read.image.pixels, self.codec, self.encode, self.decode, self.elements)
        trip.details["seconds"] = {"read": read.seconds, **trip.details["seconds"]}
        note = {"command": "roundtrip", "model": self.codec.space.model}
        results = []
        if read.sheet is not None:
            sheet = contact_sheet(cells(trip))
            results.append((read.sheet, picture_bytes(sheet, ".png", provenance=note)))
            trip.details["sheet"] = str(read.sheet)
        started = time.perf_counter()
        suffix = self.decode.suffix if job.output is None else job.output.suffix
        quality = self.decode.quality
        content = picture_bytes(trip.reconstruction, suffix, quality=quality, provenance=note)
        _write([*results, (job.output, content)], self.encode.overwrite)
        trip.details["seconds"]["write"] = time.perf_counter() - started
        return done(job, read.image.notices, **trip.details)


def roundtrip(
    pixels: Pixels,
    codec: Codec,
    encode: EncodeOptions,
    decode: DecodeOptions,
    elements: tuple[GroupElement, ...] = (),
) -> RoundTrip:
    """Encode a picture [H, W, 3] and decode it, and its latent after each of ``elements``.

    A decoded flip is compared with the flipped picture. Metrics are computed on 8-bit pixels.
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
        "model": codec.space.model,
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
    """Return the captioned pictures of a contact sheet."""
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
    """Return the place of the contact sheet, beside the reconstruction."""
    return output.with_name(f"{output.stem.removesuffix(ROUNDTRIP)}{SHEET}.png")


def _compare(image: Pixels, reference: Pixels) -> dict[str, float | None]:
    value = psnr(image, reference)
    return {"psnr": value if np.isfinite(value) else None, "ssim": ssim(image, reference)}


def _db(value: float | None) -> str:
    return "identical" if value is None else f"{value:.2f} dB"


def _write(results: list[tuple[Path | None, bytes]], overwrite: bool) -> None:
    """Write all results or none, those without a place to standard output.

    Unchanged ones are kept. Raises OutputError if another file would be replaced.
    """
    new = [(place, c) for place, c in results if overwrite or not (place and holds(place, [c]))]
    for place, _ in new:
        if place is not None:
            refuse_to_replace(place, overwrite)
    for place, content in new:
        write_result(place, content)


def plan_roundtrip(
    pictures: Names, output: str | Path | None, passed_over: Counter[str] | None = None
) -> tuple[list[Job], list[Outcome]]:
    """The jobs of `roundtrip_files`, and the outcomes of pictures that have no place."""
    return plan_jobs(
        pictures,
        output,
        input_suffixes=PICTURES,
        suffix=".png",
        tag=ROUNDTRIP,
        output_suffixes=WRITABLE,
        result_tags=PICTURE_TAGS,
        passed_over=passed_over,
    )


def roundtrip_files(
    pictures: Names,
    output: str | Path | None = None,
    *,
    flips: Iterable[GroupElement | str] = (),
    model: str | Codec | Sequence[str | Codec] = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    latent_dtype: str = "float16",
    noise: float = 0.0,
    seed: int = 0,
    max_pixels: int = MAX_PIXELS,
    overwrite: bool = False,
    progress: Progress[Outcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """Encode pictures and decode them again, as ``auravae roundtrip`` does.

    Args:
        model: as for `encode_files`; of several, each gets a folder of its name in the output, and each
            outcome has its ``model`` in the details.
        flips: also decode the latents flipped by these, and write contact sheets.
        noise, seed: as for `decode_files`.
        pictures, output, preparation, latent_dtype, max_pixels, overwrite, progress, passed_over,
            loading:
            as for `encode_files`.

    Raises:
        UsageError, ModelError: as `encode_files`.
    """
    models = [model] if isinstance(model, str | Codec) else list(model)
    places = places_of(models, output)
    planned = [plan_roundtrip(pictures, place, passed_over) for place in places]
    encode = EncodeOptions(preparation, StoredDtype.parse(latent_dtype), max_pixels, overwrite)
    decode = DecodeOptions(noise=noise, seed=seed)
    codecs = [codec_of(one, ("encoder", "decoder"), loading, progress) for one in models]
    elements = tuple(map(GroupElement.of, flips))
    size_of = sizes_of(encode)

    def trips() -> Iterator[Outcome]:
        for codec, (jobs, refused) in zip(codecs, planned, strict=True):
            yield from refused
            watch = Stopwatch("roundtrip", roundtrip_parts(len(elements)), progress)
            watch.look_ahead(codec, jobs, padded(size_of, codec, encode))
            yield from run(jobs, RoundTripper(codec, encode, decode, elements), watch)

    return follow(trips(), sum(len(jobs) + len(refused) for jobs, refused in planned), progress)


def places_of(models: Sequence[str | Codec], output: str | Path | None) -> list[str | Path | None]:
    """Return where each model's results go. Raises UsageError if those of several would collide."""
    if len(models) == 1:
        return [output]
    names = [Path(m).stem if isinstance(m, str) else m.space.model for m in models]
    if output is None or str(output) == STREAM or len(set(names)) < len(names):
        raise UsageError(
            "several models, each with a folder of its name: name a folder for these, and no model twice",
            "output",
        )
    return [below(Path(named_place(output)), name) for name in names]
