"""The types of a line of an evaluation's results, for everything that tables and pages show."""

from __future__ import annotations

from typing import Annotated, Any

from auravae_cli.evaluation.parities import Products
from auravae_cli.evaluation.rfid import features_of
from auravae_cli.evaluation.spectra import RINGS
from auravae_cli.evaluation.sweeps import STORAGE_TYPES
from auravae_cli.files.typed import Faults, Natural, Positive, or_none, reader, table
from auravae_cli.latents.sums import LatentSums
from auravae_cli.store.certificate import ELEMENTS, ERRORS, PARTS

METRICS = ("psnr", "ssim", "ms_ssim", "lpips", "ciede2000", "grid", "text_error")
LOWER_IS_BETTER = frozenset(("lpips", "ciede2000", "grid", "text_error"))


def _square(value: Any) -> float:
    found: float = reader(float)(value)
    if found < 0:
        raise Faults([f": expected no negative number, found {found}"])
    return found


def _moments(value: Any) -> str:
    """Check the text of `Moments`, which is what a line keeps."""
    text: str = reader(str)(value)
    LatentSums.from_text(text)
    return text


def _features(value: Any) -> str:
    text: str = reader(str)(value)
    features_of(text)
    return text


def _products(value: Any) -> Any:
    """Check the text of `Products`, which is what a line keeps."""
    found = table({"matrix": str, "flipped": _square, "plain": _square})(value)
    Products.from_json(found)
    return found


def _ring_values(value: Any) -> list[float | None]:
    found = reader(tuple[float | None, ...])(value)
    if len(found) != RINGS:
        raise Faults([f": expected {RINGS} numbers, found {len(found)}"])
    return list(found)


# A small picture has no inside, and so no numbers of it.
_squares = table(dict.fromkeys(PARTS, or_none(_square)) | {"whole": _square})
_flip = table(
    {
        **dict.fromkeys(ERRORS, or_none(_square)),
        **dict.fromkeys(("encoder_error", "encoder_error_of_files", "decoder_error"), _square),
        **dict.fromkeys(("decoder_mse", "plain_mse", "flipped_mse"), _squares),
        "products": or_none(_products),
        "best_mse": or_none(_square),
    }
)
_flips = table({"action_exact": bool, "preparation_exact": bool, **dict.fromkeys(ELEMENTS, _flip)})
_pair = reader(tuple[Annotated[str, _features], Annotated[str, _features]])
_stored = table({"psnr": float | None, "bytes": Natural})
_move = table({"encoder_error": _square, "psnr": float | None, "plain_psnr": float | None})
_spectra = table(
    {
        **dict.fromkeys(("latent", "original", "reconstruction"), _ring_values),
        "response": or_none(_ring_values),
    }
)


def _transforms(value: Any) -> dict[str, Any]:
    return {name: _move(numbers) for name, numbers in reader(dict[str, Any])(value).items()}


_space = table(
    {
        "transforms": _transforms,
        "drift": dict[str, float | None],
        "crop_loss": float | None,
        "border": float | None,
        "spectra": or_none(_spectra),
    }
)

read_row = table(
    {
        "id": str,
        "picture": str,
        "model": str,
        "sha256": str,
        "image_size": tuple[Positive, Positive],
        "latent_shape": tuple[Positive, Positive, Positive] | None,
        **dict.fromkeys(METRICS, float | None),
        "noise": dict[str, float | None] | None,
        "storage": or_none(table(dict.fromkeys(STORAGE_TYPES, _stored))),
        "space": or_none(_space),
        "flips": or_none(_flips),
        "moments": or_none(_moments),
        "seconds": table({"encode": float | None, "decode": float | None}),
        "inception": or_none(_pair),
    },
    optional=("inception",),
    others=True,
)
