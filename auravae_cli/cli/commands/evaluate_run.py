"""auravae eval: from options to a run, and from its results to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from auravae_cli.cli.reports.evaluation import EvalReporter
from auravae_cli.cli.reports.outcomes import EXIT_SOME_FAILED, Reporter
from auravae_cli.cli.shared import options as opt
from auravae_cli.cli.terminal.lines import say
from auravae_cli.errors import InputImageError, OutputError, StoreError
from auravae_cli.evaluation.csv_table import csv_bytes
from auravae_cli.evaluation.pictures import Album, choose, make_pictures
from auravae_cli.evaluation.results import (
    FORMAT,
    FORMAT_VERSION,
    SUMMARY_FILE,
    Results,
)
from auravae_cli.evaluation.rfid import frechet_distance, load_inception
from auravae_cli.evaluation.run import EvalOptions, Evaluation, Perceptual, Survey
from auravae_cli.evaluation.summary import certify, describe_data, summarise
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.places import below
from auravae_cli.files.scratch import publish_bytes, scratch_folder
from auravae_cli.files.storage import Storage, open_storage
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.operations.input_shards import InputShard, count_file_shards, make_shards
from auravae_cli.operations.outputs import is_taken, refuse_to_replace, write_result
from auravae_cli.operations.sources import find_files
from auravae_cli.store.certificate import CERTIFICATE_FILE, Certificate, mismatch, read_certificate
from auravae_cli.store.format import require_format, require_settings
from auravae_cli.version import __version__

SHARD_SIZE = 1000
LPIPS_ADVICE = (
    "its weights are not here; pip install 'auravae[metrics]', then python -c \"import lpips; "
    "lpips.LPIPS(net='vgg')\" fetches them; or name a file of them with --lpips (none: no note)"
)


@dataclass(frozen=True)
class EvalRequest:
    """What the user asked for, as parsed."""

    names: list[str]
    listed: str | None
    models: list[str]
    symmetrize: bool
    device: str
    compute_dtype: str
    memory: int | None
    options: EvalOptions
    lpips: str | None
    rfid: str | None
    folder: Path | None
    csv: Path | None
    html: Path | None
    html_images: int
    certificate: Path | None
    certify: str | None
    overwrite: bool


def run_evaluation(request: EvalRequest, reporter: Reporter) -> int:
    """Measure, report and write; the exit code."""
    shards = _find_shards(request)
    _refuse_outputs(request)
    results = Results(request.folder)
    codecs = _load_codecs(request)
    certified = _certified(request, codecs)
    evaluation = Evaluation(
        codecs,
        shards,
        request.options,
        results,
        _load_lpips(request, codecs, reporter),
        load_inception(request.rfid, _device(codecs)) if request.rfid else None,
    )
    report = EvalReporter(reporter)
    survey = report.waiting("reading the pictures", evaluation.survey)
    report.follow(evaluation.run(survey), evaluation.pending(survey))
    summary, certificates, rows = _conclude(evaluation, survey, request)
    _write(request, summary, certificates, rows, certified)
    if request.html is not None and rows:
        page = report.waiting(
            "drawing the page", lambda: _page(request, evaluation, survey, summary, rows)
        )
        write_result(request.html, page)
    report.finish(summary, rows)
    return EXIT_SOME_FAILED if evaluation.failures or not rows else 0


def _find_shards(request: EvalRequest) -> list[InputShard]:
    names = opt.read_names(request.names, request.listed)
    try:
        files = find_files(names)
        shards = make_shards(files, count_file_shards(files, SHARD_SIZE))
    except InputImageError as error:
        raise typer.BadParameter(str(error)) from error
    if not files:
        raise typer.BadParameter("no input: expected pictures, folders, patterns, tars or a list")
    return shards


def _refuse_outputs(request: EvalRequest) -> None:
    """Nothing is measured first and refused afterwards. Raises OutputError."""
    for path in filter(None, (request.csv, request.html, request.certificate)):
        refuse_to_replace(path, request.overwrite)
    if (request.certificate or request.certify) and request.options.flips == 0:
        raise typer.BadParameter("a certificate needs some pictures", param_hint="--flips")
    if request.folder is None:
        return
    path = request.folder / SUMMARY_FILE
    if is_taken(path) and not request.overwrite:
        try:
            require_format(read_json(path.read_bytes()), FORMAT, FORMAT_VERSION)
            ours = True
        except (OSError, ValueError):
            ours = False
        if not ours:
            raise OutputError(f"{path} is no summary of auravae eval: name another folder with -o")


def _load_codecs(request: EvalRequest) -> dict[str, Codec]:
    """The models by label: their names, told apart where two have the same. Raises ModelError."""
    codecs: dict[str, Codec] = {}
    for model in dict.fromkeys(request.models):
        codec = load_codec(
            model, device=request.device, dtype=request.compute_dtype, memory=request.memory
        )
        label = codec.space.model
        if label in codecs:
            label = f"{label}-{codec.space.weights_sha256[:8]}"
        codecs[label] = codec
        if request.symmetrize:
            codecs[f"{label}-symmetrized"] = codec.symmetrized()
    if request.certificate and len(codecs) > 1:
        raise typer.BadParameter(
            f"one certificate for {len(codecs)} models: name one, or take a folder with -o",
            param_hint="--certificate",
        )
    return codecs


def _certified(request: EvalRequest, codecs: dict[str, Codec]) -> tuple[Storage, str] | None:
    """The store that is to have a certificate, and the label of its model. Raises StoreError."""
    if request.certify is None:
        return None
    storage = open_storage(request.certify)
    settings = require_settings(storage)
    if not request.overwrite and CERTIFICATE_FILE in {entry.name for entry in storage.entries()}:
        read_certificate(storage)  # says so where it is damaged
        raise StoreError(f"{storage.root} has a certificate already: replace it with --overwrite")
    reasons = {label: mismatch(codec.space, settings.space) for label, codec in codecs.items()}
    for label, reason in reasons.items():
        if reason is None:
            return storage, label
    raise StoreError(f"{storage.root}: {next(iter(reasons.values()))}")


def _load_lpips(
    request: EvalRequest, codecs: dict[str, Codec], reporter: Reporter
) -> Perceptual | None:
    if request.lpips == "none":
        return None
    if request.lpips is None and not _has_lpips():
        if not reporter.quiet:
            say(f"note: no LPIPS: {LPIPS_ADVICE}")
        return None
    from auravae_cli.evaluation.perceptual import load_perceptual

    return load_perceptual(request.lpips, _device(codecs))


def _has_lpips() -> bool:
    """Whether the lpips package and its weights are here; without the package, torch is not loaded."""
    from importlib.util import find_spec

    if find_spec("lpips") is None:
        return False
    from auravae_cli.evaluation.perceptual import is_installed

    return is_installed()


def _device(codecs: dict[str, Codec]) -> str:
    """Where networks of metrics run: with the models that are networks."""
    return max((codec.device for codec in codecs.values()), key=lambda device: device != "cpu")


def _conclude(
    evaluation: Evaluation, survey: Survey, request: EvalRequest
) -> tuple[dict[str, Any], dict[str, Certificate], list[dict[str, Any]]]:
    """The summary, the certificates by label, and all rows."""
    models, certificates, every = [], {}, []
    for label, codec in evaluation.codecs.items():
        rows = evaluation.rows(label, survey)
        if not rows:
            continue
        every += rows
        model = summarise(label, codec, rows, request.options.measure)
        if request.rfid:
            model["quality"]["rfid"] = _rfid(rows)
        models.append(model)
        certificate = certify(codec, rows, request.options.measure)
        if certificate is not None:
            certificates[label] = certificate
    pictures = {row["picture"]: row for row in every}
    summary = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool_version": __version__,
        "data": describe_data(list(pictures.values())),
        "settings": {
            "stored_dtype": request.options.measure.stored_dtype.name,
            "preparation": request.options.measure.preparation.to_json(),
            "lpips": evaluation.lpips and evaluation.lpips.digest,
        },
        "models": models,
        "failures": [vars(bad) for bad in evaluation.failures],
    }
    return summary, certificates, every


def _page(
    request: EvalRequest,
    evaluation: Evaluation,
    survey: Survey,
    summary: dict[str, Any],
    rows: list[dict[str, Any]],
) -> bytes:
    """The page; its pictures are kept beside the results. Raises ModelError, OutputError."""
    from auravae_cli.evaluation.page.data import PageData
    from auravae_cli.evaluation.page.document import page_bytes

    first = summary["models"][0]
    certificate = first["certificate"]
    flips = certificate["elements"].values() if certificate else ()
    gaps = [
        (numbers["flip_gap"]["worst"], numbers["flip_gap"]["worst_picture"]) for numbers in flips
    ]
    mine = [row for row in rows if row["model"] == first["label"]]
    choice = choose(mine, max(gaps, default=(0, None))[1], request.html_images)
    album = Album(request.folder)
    for bad in make_pictures(evaluation, survey, choice, album):
        say(f"note: {bad.picture} is not on the page: {bad.reason}")

    def find(label: str, picture: str, name: str) -> bytes | None:
        return album.find(evaluation.identity(label, survey.pictures[picture]), name)

    by_name = {(row["model"], row["picture"]): row for row in rows}
    return page_bytes(PageData(summary, by_name, choice, find))


def _rfid(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    pairs = [row["inception"] for row in rows]
    value = frechet_distance([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return None if value is None else {"mean": value, "pictures": len(pairs)}


def _write(
    request: EvalRequest,
    summary: dict[str, Any],
    certificates: dict[str, Certificate],
    rows: list[dict[str, Any]],
    certified: tuple[Storage, str] | None,
) -> None:
    """Everything that was asked for. Raises OutputError, StoreError."""
    for path, content in _files(request, summary, certificates, rows):
        write_result(path, content)
    if certified is not None:
        storage, label = certified
        if label in certificates:
            with scratch_folder(storage) as scratch:
                content = certificates[label].to_bytes()
                publish_bytes(storage, scratch, CERTIFICATE_FILE, content)


def _files(
    request: EvalRequest,
    summary: dict[str, Any],
    certificates: dict[str, Certificate],
    rows: list[dict[str, Any]],
) -> Iterator[tuple[Path, bytes]]:
    if request.folder is not None:
        for label, certificate in certificates.items():
            place = below(request.folder, f"certificate-{label}.json")
            yield place, certificate.to_bytes()
        text = write_json(summary, indent=1, sort_keys=True)
        yield request.folder / SUMMARY_FILE, text.encode() + b"\n"
    if request.csv is not None:
        yield request.csv, csv_bytes(rows)
    if request.certificate is not None and certificates:
        yield request.certificate, next(iter(certificates.values())).to_bytes()
