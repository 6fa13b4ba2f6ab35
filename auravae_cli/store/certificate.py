"""The certificate of equivariance: the measured cost of flipping a model's latents, as JSON.

It names the weights and the data, so it can be used alone or be added to a store. Needs only
numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.storage import Storage
from auravae_cli.files.typed import table
from auravae_cli.latents.latent_file import LatentSpace, space_from_json, space_to_json
from auravae_cli.store.settings import require_format
from auravae_cli.symmetry.group import GROUP

FORMAT, FORMAT_VERSION = "auravae-certificate", 1
CERTIFICATE_FILE = "certificate.json"  # in a store
ELEMENTS = tuple(str(g) for g in GROUP[1:])
ROUNDING = 1e-4  # relative errors below this are rounding of float32 and of convolution algorithms
NOTHING, LITTLE = 0.01, 0.5  # dB of PSNR: losses below these are called so
PARTS = ("whole", "border", "inside")
ERRORS = (
    "encoder_error",
    "encoder_error_border",
    "encoder_error_inside",
    "encoder_error_of_files",
    "encoder_error_without_signs",
    "encoder_error_without_flip",
    "decoder_error",
)

PictureRows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Certificate:
    """A certificate: its latent space, its one-line statement, and its full content."""

    space: LatentSpace
    statement: str
    content: dict[str, Any]

    def to_bytes(self) -> bytes:
        """Return the file's bytes in readable form: sorted keys, one per line."""
        return (write_json(self.content, sort_keys=True, indent=1) + "\n").encode()


def make_certificate(
    space: LatentSpace,
    rows: PictureRows,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    version: str,
) -> Certificate:
    """Make a certificate from the flip measures of pictures (`flipmeasures.measure_flips`), each with its ``picture``.

    Args:
        space: the model's latent space.
        rows: one per picture, at least one.
        data: the pictures' number and digest.
        settings: how it was measured: ``symmetry``, ``compute_dtype``, ``device``, ``stored_dtype`` and more.
        version: the version of this tool.
    """
    elements = {g: _element(rows, g) for g in ELEMENTS}
    action, preparation = (
        all(row[f"{n}_exact"] for row in rows) for n in ("action", "preparation")
    )
    statement = f"{_statement(elements, action)} {_how(settings)}"
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool_version": version,
        **space_to_json(space),
        "data": dict(data),
        "settings": dict(settings),
        "action_exact": action,
        "preparation_exact": preparation,
        "elements": elements,
        "statement": statement,
    }
    return Certificate(space, statement, content)


def parse_certificate(data: bytes) -> Certificate:
    """Parse a certificate's file. Raises ValueError if it is not one or is damaged."""
    try:
        content = read_json(data)
        require_format(content, FORMAT, FORMAT_VERSION)
        statement = _read_rest(content)["statement"]
        return Certificate(space_from_json(content), statement, content)
    except ValueError as error:
        raise ValueError(f"no certificate that this auravae reads: {error}") from error


_read_rest = table({"elements": dict[str, Any], "statement": str}, others=True)


def read_certificate(storage: Storage) -> Certificate | None:
    """Return the certificate of a store; None if it has none. Raises StoreError."""
    try:
        return parse_certificate(storage.read(CERTIFICATE_FILE))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{storage.root}/{CERTIFICATE_FILE}: {error}") from error


def mismatch(found: LatentSpace, space: LatentSpace) -> str | None:
    """Return why a certificate for ``found`` does not apply to latents in ``space``; None if it does."""
    for name, theirs, ours in (
        ("weights", found.weights_sha256[:12], space.weights_sha256[:12]),
        ("representation", str(found.irreps), str(space.irreps)),
        ("symmetrized", found.is_symmetrized, space.is_symmetrized),
    ):
        if theirs != ours:
            return (
                f"a certificate of model {found.model!r} ({name} {theirs}) says nothing of latents of "
                f"{space.model!r} ({name} {ours}); measure that one with auravae eval --certify"
            )
    return None


def decibels(mean_squares: float | None) -> float | None:
    """Return the PSNR in dB of a mean square, for a data range of 1; None if there is no error."""
    return -10 * math.log10(mean_squares) if mean_squares else None


def _element(rows: PictureRows, g: str) -> dict[str, Any]:
    """Return the numbers of one flip: mean and worst over pictures."""
    numbers = {n: _spread([(row[g][n], row["picture"]) for row in rows]) for n in ERRORS}
    for part in PARTS:
        suffix = "" if part == "whole" else f"_{part}"
        numbers[f"decoder_psnr{suffix}"] = _decoder(rows, g, part)
        gaps = [(_gap(r[g], part), r["picture"]) for r in rows]
        numbers[f"flip_gap{suffix}"] = _spread(gaps)
    return numbers


def _gap(numbers: Mapping[str, Any], part: str) -> float | None:
    """Return the loss of PSNR in dB from decoding a flipped latent; negative if it gains."""
    plain, flipped = (numbers[f"{kind}_mse"][part] for kind in ("plain", "flipped"))
    if plain is None or flipped is None:
        return None
    if not plain or not flipped / plain:
        return 0.0 if plain == flipped else math.copysign(100.0, flipped - plain)
    return 10 * math.log10(flipped / plain)


def _decoder(rows: PictureRows, g: str, part: str) -> dict[str, Any]:
    """Return PSNR(D(gz), gD(z)); the mean is taken over the squares. None if there is no difference."""
    squares = [(r[g]["decoder_mse"][part], r["picture"]) for r in rows]
    known = [(value, picture) for value, picture in squares if value is not None]
    if not known:
        return {"mean": None, "worst": None, "worst_picture": None}
    worst, picture = max(known)
    mean, low = decibels(sum(v for v, _ in known) / len(known)), decibels(worst)
    return {
        "mean": mean and round(mean, 4),
        "worst": low and round(low, 4),
        "worst_picture": picture,
    }


def _spread(values: list[tuple[float | None, str]]) -> dict[str, Any]:
    """Return the mean and the largest; None if no picture has a value (none has an inside)."""
    known = [(value, picture) for value, picture in values if value is not None]
    if not known:
        return {"mean": None, "worst": None, "worst_picture": None}
    worst, picture = max(known)
    mean = sum(value for value, _ in known) / len(known)
    return {
        "mean": float(f"{mean:.6g}"),
        "worst": float(f"{worst:.6g}"),
        "worst_picture": picture,
    }


_WAYS = {"none": "plain", "mean": "averaged over the flips", "canonical": "canonical"}


def _how(settings: Mapping[str, Any]) -> str:
    """Return what of the model was measured, and at which precision: elsewhere it may differ."""
    way = _WAYS[settings["symmetry"]]
    place = "a CPU" if settings["device"] == "cpu" else settings["device"]
    return f"Measured {way}, in {settings['compute_dtype']} on {place}, latents as {settings['stored_dtype']}."


def _statement(elements: Mapping[str, Any], action_exact: bool) -> str:
    """Return what a user can rely on, in one line."""
    if not action_exact:
        return "Do not flip latents: the action itself is not exact. Please report this as a bug."
    gap = max(numbers["flip_gap"]["worst"] for numbers in elements.values())
    error = max(numbers["encoder_error"]["worst"] for numbers in elements.values())
    files = max(numbers["encoder_error_of_files"]["worst"] for numbers in elements.values())
    if gap <= NOTHING:
        decoding = "decodes as well as the plain one"
    elif gap <= LITTLE:
        decoding = f"decodes up to {gap:.2f} dB worse than the plain one"
    else:
        decoding = (
            f"decodes up to {gap:.1f} dB worse than the plain one: look before you rely on it"
        )
    if max(error, files) <= ROUNDING:
        encoding = "and is what encoding the mirrored picture gives, up to rounding"
    elif error <= ROUNDING:
        encoding = "and is what encoding the mirrored, prepared picture gives; preparation differs"
    else:
        encoding = f"but encoding the mirrored picture gives another latent (by up to {error:.0%})"
    return f"A flipped latent {decoding}, {encoding}."
