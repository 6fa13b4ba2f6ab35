"""Parse the options of preparing pictures."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import typer
from PIL import ImageColor

from auravae_cli.cli.shared.numbers import parse_bytes
from auravae_cli.images.prepare import Preparation
from auravae_cli.symmetry.geometry import Buckets

if TYPE_CHECKING:
    from auravae_cli.cli.shared.options import ComputeDtype, Symmetry
    from auravae_cli.images.trainer_buckets import TrainerBuckets
    from auravae_cli.operations.batches import FailureLimit
    from auravae_cli.operations.loading import Loading


def read_preparation(
    crop: str | None,
    resize: int | None,
    center_crop: str | None,
    pad: str,
    background: str,
    buckets: str | None = None,
    buckets_of: str | None = None,
) -> Preparation:
    """Return the options as a `Preparation`. Raises typer.BadParameter if one is malformed."""
    try:
        ImageColor.getrgb(background)
    except ValueError as error:
        raise typer.BadParameter(
            f"{background!r}: expected a colour by name or as #rrggbb, such as white or #204060",
            param_hint="--background",
        ) from error
    named = [
        name
        for name, value in (("--buckets", buckets), ("--buckets-of", buckets_of))
        if value is not None
    ]
    if named and (resize is not None or center_crop is not None or named[1:]):
        others = "--resize and --center-crop" if not named[1:] else named[1]
        raise typer.BadParameter(
            f"buckets determine the size of pictures: leave out {others}", param_hint=named[0]
        )
    return Preparation(
        crop=_numbers(
            crop, r"(\d+),(\d+),([1-9]\d*),([1-9]\d*)", "X,Y,W,H, such as 0,0,512,512", "--crop"
        ),  # type: ignore[arg-type]
        resize=resize,
        center_crop=_center(center_crop),
        pad=pad,  # type: ignore[arg-type]
        background=background,
        buckets=_buckets(buckets) if buckets_of is None else _buckets_of(buckets_of),
    )


def _center(text: str | None) -> tuple[int, int] | None:
    """Parse WxH, like the sizes of `--crop`, to (height, width)."""
    if text is not None and text.isdecimal():
        text = f"{text}x{text}"
    sides = _numbers(
        text, r"([1-9]\d*)x([1-9]\d*)", "WxH or a side, such as 512x384 or 512", "--center-crop"
    )
    return None if sides is None else (sides[1], sides[0])


def _buckets(text: str | None) -> Buckets | None:
    if text is None:
        return None
    side, step = _numbers(
        text if ":" in text else f"{text}:64",
        r"([1-9]\d{0,4}):([1-9]\d{0,3})",
        "SIDE or SIDE:STEP, such as 512 or 512:64",
        "--buckets",
    )  # type: ignore[misc]
    if step % 8 or step > side:
        raise typer.BadParameter(
            f"{text!r}: a step of {step} does not fit: expected a multiple of 8 no larger than SIDE, such as 512:64",
            param_hint="--buckets",
        )
    return Buckets(side, step)


def _buckets_of(text: str) -> TrainerBuckets:
    from auravae_cli.images.trainer_buckets import parse_buckets

    try:
        return parse_buckets(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}", param_hint="--buckets-of") from error


def _numbers(text: str | None, pattern: str, form: str, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    match = re.fullmatch(pattern, text)
    if match is None:
        raise typer.BadParameter(f"{text!r}: expected {form}", param_hint=option)
    return tuple(map(int, match.groups()))


def read_limit(text: str | None) -> FailureLimit:
    """Parse ``--max-failures`` to a `FailureLimit`. Raises typer.BadParameter if it is malformed."""
    from auravae_cli.operations.batches import FailureLimit

    if text is None:
        return FailureLimit()
    if re.fullmatch(r"\d+", text):
        return FailureLimit(count=int(text))
    if re.fullmatch(r"\d+(\.\d+)?%", text) and float(text[:-1]) <= 100:
        return FailureLimit(share=float(text[:-1]) / 100)
    raise typer.BadParameter(
        f"{text!r}: expected a number such as 10, or a share such as 1%",
        param_hint="--max-failures",
    )


def read_loading(
    device: str, dtype: ComputeDtype, memory: str | None, symmetrize: Symmetry
) -> Loading:
    """How a model is to be loaded; typer.BadParameter where the memory is malformed."""
    return {
        "device": device,
        "dtype": dtype.value,
        "memory": parse_bytes(memory, "--memory"),
        "symmetrize": symmetrize.value,
    }
