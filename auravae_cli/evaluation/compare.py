"""Compare two kept evaluations picture by picture: what changed, and is it more than chance?

Every number is paired by the sha256 of its picture. The mean of the differences gets an interval by the
paired bootstrap (Efron 1979): the pictures are drawn again with replacement, 10,000 times, and the middle 95 %
of the means are kept. A change counts if 0 is not in it. That is chance among pictures like these; with few
pictures intervals are too narrow, and of twenty numbers that did not change, one seems to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import UsageError
from auravae_cli.evaluation.csv_table import flat
from auravae_cli.evaluation.page.tables import flip_gap
from auravae_cli.evaluation.results import FORMAT, RESULTS_FILE, SUMMARY_FILE, parse_line
from auravae_cli.evaluation.row import LOWER_IS_BETTER, METRICS
from auravae_cli.evaluation.transforms import NAMES
from auravae_cli.files.canonical_json import read_json

RESAMPLES, SHARE = 10_000, 0.95
LEAST_PICTURES = 10  # with fewer, intervals would be too narrow
_AT_ONCE = 1 << 22  # numbers drawn together

Rows = dict[str, dict[str, Any]]  # by the sha256 of the picture


@dataclass(frozen=True)
class KeptEvaluation:
    """The rows of an evaluation by model and picture, and its settings if they are known."""

    models: Mapping[str, Rows]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
    """A number of a row that can be compared: its name, its column, and which way is better."""

    name: str
    column: str
    lower_is_better: bool


MEASURES = (
    *(Measure(metric, metric, metric in LOWER_IS_BETTER) for metric in METRICS),
    Measure("flip gap dB", "flip_gap", True),
    *(Measure(f"PSNR, noise {level}", f"psnr_noise_{level}", False) for level in ("0.1", "0.3")),
    Measure("PSNR, 10 trips", "psnr_after_10", False),
    Measure("crop loss dB", "crop_loss", True),
    *(Measure(f"error, {n}", f"{n.replace(' ', '_')}_encoder_error", True) for n in NAMES),
)


def compare_runs(first: Path, second: Path) -> dict[str, Any]:
    """Return what changed from one kept evaluation to another, as plain data.

    Args:
        first: a folder of ``eval -o``, or its ``results.jsonl`` or ``summary.json``. second: another one.

    Raises:
        UsageError: a file holds no results, or the two have no model or no picture in common.
    """
    a, b = read_kept(first), read_kept(second)
    pairs = [(label, label) for label in a.models if label in b.models]
    if not pairs and len(a.models) == len(b.models) == 1:
        pairs = [(next(iter(a.models)), next(iter(b.models)))]
    if not pairs:
        raise UsageError(
            f"no model in common: {first} has {', '.join(a.models)}, {second} has {', '.join(b.models)}",
            "compare",
        )
    found = [_compare_models(a.models[x], b.models[y], x, y) for x, y in pairs]
    if not any(model["pictures"] for model in found):
        raise UsageError(f"no picture in common: {first} and {second}", "compare")
    return {
        "first": str(first),
        "second": str(second),
        "models": found,
        "notes": list(_notes(a, b, pairs, found)),
    }


def _notes(
    a: KeptEvaluation,
    b: KeptEvaluation,
    pairs: Sequence[tuple[str, str]],
    found: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    for name in sorted({*a.settings, *b.settings}):
        x, y = (kept.settings.get(name) for kept in (a, b))
        if x != y and a.settings and b.settings:
            yield f"{name} differs: {x} and {y}; what depends on it is not comparable"
    alone = [*(x for x in a.models if x not in dict(pairs))]
    alone += [y for y in b.models if y not in dict(pairs).values()]
    if alone:
        yield f"only in one of them: {', '.join(alone)}"
    if any(model["pictures"] < LEAST_PICTURES for model in found):
        yield f"fewer than {LEAST_PICTURES} pictures in common: intervals are too narrow"


def _compare_models(a: Rows, b: Rows, x: str, y: str) -> dict[str, Any]:
    common = sorted(a.keys() & b.keys())
    columns = [({**_columns(a[sha])}, {**_columns(b[sha])}) for sha in common]
    numbers = []
    for measure in MEASURES:
        values = [
            (before[measure.column], after[measure.column])
            for before, after in columns
            if before.get(measure.column) is not None and after.get(measure.column) is not None
        ]
        if values:
            numbers.append(_compare_numbers(measure, np.array(values, np.float64)))
    return {"first": x, "second": y, "pictures": len(common), "numbers": numbers}


def _columns(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**flat(row), "flip_gap": flip_gap(row)}


def _compare_numbers(measure: Measure, values: NDArray[np.float64]) -> dict[str, Any]:
    before, after = values.mean(0)
    low, high = paired_bootstrap(values[:, 1] - values[:, 0])
    verdict = "same"
    if low > 0 or high < 0:
        verdict = "better" if (high < 0) == measure.lower_is_better else "worse"
    return {
        "name": measure.name,
        "pictures": len(values),
        "first": float(before),
        "second": float(after),
        "change": float(after - before),
        "interval": [low, high],
        "verdict": verdict,
    }


def paired_bootstrap(differences: NDArray[np.float64]) -> tuple[float, float]:
    """Return the interval that holds the middle 95 % of the means of resampled differences."""
    number, random = len(differences), np.random.default_rng(0)
    means = []
    at_once = max(1, _AT_ONCE // number)
    for start in range(0, RESAMPLES, at_once):
        size = (min(at_once, RESAMPLES - start), number)
        means.append(differences[random.integers(0, number, size)].mean(1))
    tail = (1 - SHARE) / 2
    low, high = np.quantile(np.concatenate(means), (tail, 1 - tail))
    return float(low), float(high)


def read_kept(path: Path) -> KeptEvaluation:
    """Read the results of a folder, or of one of its files. Raises UsageError."""
    results = path / RESULTS_FILE if path.is_dir() else path
    if results.name == SUMMARY_FILE:
        results = results.with_name(RESULTS_FILE)
    try:
        lines = results.read_bytes().splitlines()
        summary = results.with_name(SUMMARY_FILE)
        beside = read_json(summary.read_bytes()) if summary.is_file() else None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{results}: cannot be read: {reason}", "compare") from error
    models: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {}
    for line in lines:
        row = parse_line(line)
        if row is None:
            continue  # cut off, or of another version
        rows = models.setdefault(row["model"], {})
        key, sha = row.pop("id", ""), row["sha256"]
        if sha in rows and rows[sha][0] != key:
            raise UsageError(
                f"{results} holds several results of {row['model']} for one picture, by other settings: "
                "keep each run in its own folder",
                "compare",
            )
        rows[sha] = key, row
    if not models:
        raise UsageError(
            f"{results}: no results of auravae eval that this version reads", "compare"
        )
    return KeptEvaluation(
        {m: {s: row for s, (_, row) in rows.items()} for m, rows in models.items()},
        _settings(beside),
    )


def _settings(summary: Any) -> dict[str, Any]:
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        return {}
    settings = summary.get("settings")
    return settings if isinstance(settings, dict) else {}
