"""A whole evaluation: from names of pictures and models to numbers, certificates and a page.

::

    names --find--> shards, models --Evaluation--> rows --summarise, certify--> files, a store's
                                                    '--choose, make_pictures--> the page
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.errors import InputImageError, OutputError, StoreError, UsageError
from auravae_cli.evaluation.compare import compare_runs as compare_runs
from auravae_cli.evaluation.csv_table import csv_bytes
from auravae_cli.evaluation.legibility import load_reader
from auravae_cli.evaluation.models import Models, load_models, metric_device
from auravae_cli.evaluation.pictures import Album, choose, make_pictures
from auravae_cli.evaluation.processes import Setup, count_devices, measure_by_processes
from auravae_cli.evaluation.protocols import find_protocol
from auravae_cli.evaluation.ray_judges import measure_by_ray
from auravae_cli.evaluation.reconstructions import Reconstructions
from auravae_cli.evaluation.results import FORMAT, FORMAT_VERSION, SUMMARY_FILE, Results
from auravae_cli.evaluation.rfid import frechet_distance, load_inception
from auravae_cli.evaluation.run import (
    EvalOptions,
    Evaluation,
    Perceptual,
    PictureFailure,
    Survey,
)
from auravae_cli.evaluation.summary import (
    certify,
    describe_data,
    summarise,
    summarise_reconstructions,
)
from auravae_cli.files.canonical_json import read_json, write_json
from auravae_cli.files.places import below
from auravae_cli.files.scratch import publish_bytes, scratch_folder
from auravae_cli.files.storage import Storage, open_storage
from auravae_cli.machine.progress import Phase, Progress, begin, follow
from auravae_cli.model.codec import MODE, Codec
from auravae_cli.operations.encode_store import SHARD_SIZE, absolute
from auravae_cli.operations.input_shards import InputShard, count_file_shards, make_shards
from auravae_cli.operations.jobs import Names, listed
from auravae_cli.operations.loading import Loading
from auravae_cli.operations.names import none_found
from auravae_cli.operations.outputs import is_taken, refuse_to_replace, write_result
from auravae_cli.operations.sources import find_files
from auravae_cli.operations.suffixes import PICTURES, TARS
from auravae_cli.store.certificate import CERTIFICATE_FILE, Certificate, mismatch, read_certificate
from auravae_cli.store.settings import require_format, require_settings
from auravae_cli.version import __version__

NO_LPIPS = (
    'no LPIPS: its weights are not here; pip install lpips, then python -c "import lpips; '
    "lpips.LPIPS(net='vgg')\" fetches them; or name a file of them with --lpips (none: no note)"
)
SHARDS_EACH = 16  # of loose pictures, for each of several processes
RAY_PROCESSES = 64  # that a cluster may have, for that
Rows: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True)
class Notice:
    """Something that a user should know, but not a failure; ``is_minor`` if it can wait."""

    text: str
    is_minor: bool = False


# Something begins, something is to be noted, a picture's numbers for a model are there, or failed.
Step: TypeAlias = Phase | Notice | PictureFailure | tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class EvaluationFiles:
    """What is written; nothing where a place is None.

    ``folder`` keeps every picture's numbers as they come, a summary and certificates: a run with the
    same folder continues from there. ``certificate`` is that of one model; ``certify`` a store, made by
    one of the models, that is to have it. Of more than ``html_images`` pictures, the page shows some.
    """

    folder: Path | None = None
    csv: Path | None = None
    html: Path | None = None
    html_images: int = 30
    certificate: Path | None = None
    certify: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class EvaluationResult:
    """The results: ``summary`` is that of docs/evaluation.md, ``rows`` has one per picture and model."""

    summary: dict[str, Any]
    rows: Rows
    certificates: dict[str, Certificate]
    failures: tuple[PictureFailure, ...]

    def __repr__(self) -> str:
        """Return the mean PSNR of each model."""
        means = [(m["label"], m["quality"]["psnr"]) for m in self.summary["models"]]
        parts = [f"{label} {psnr['mean']:.2f} dB" for label, psnr in means if psnr]
        parts += [f"{len(self.failures)} failed"] * bool(self.failures)
        return (
            f"<EvaluationResult of {self.summary['data']['pictures']} pictures: {', '.join(parts)}>"
        )


def evaluate(
    pictures: Names,
    models: Sequence[str | Codec] = (DEFAULT_MODEL,),
    *,
    options: EvalOptions = EvalOptions(),
    symmetrized: bool = False,
    lpips: str | None = None,
    rfid: str | None = None,
    text: bool = False,
    protocol: str | None = None,
    processes: int = 1,
    ray: bool = False,
    address: str | None = None,
    files: EvaluationFiles = EvaluationFiles(),
    progress: Progress[Step] | None = None,
    **loading: Unpack[Loading],
) -> EvaluationResult:
    """Measure what models do to pictures, and write the requested files, as ``auravae eval`` does.

    Args:
        pictures: files, folders, patterns, tars, or URLs of any of these.
        models: names, paths of checkpoints (``loading`` says how to load them), or loaded models.
        options: what is measured, and on how many pictures.
        symmetrized: also measure each model averaged over the four flips.
        lpips: the file of its weights, or ``none``; None: those of the lpips package, if it is there.
        rfid: the file of Inception's weights; None: no rFID.
        text: measure by OCR whether text stays legible.
        protocol: the name of one of ``configs/protocol``, which says how to prepare and measure.
        processes: how many share the work, each with models of its own, and with a GPU if there are several;
            more than one needs models by name.
        ray: share the work among the workers of a Ray cluster, at ``address`` or on this machine.
        files: what is written.
        progress: called with every step, the number of rows measured so far, and how many there are to measure.

    Raises:
        UsageError: no picture is there, or arguments contradict each other. ModelError: a model cannot
            run. OutputError, StoreError: a result cannot be written.
    """
    pinned = find_protocol(protocol) if protocol is not None else None
    if pinned is not None:
        options = replace(options, measure=pinned.applied(options.measure))
    session = _Session(files, options, progress)
    session.note(Phase("looking for pictures"))
    if ray:  # whose workers are in other folders
        pictures = [absolute(name, True) for name in listed(pictures)]
    shards = _find_shards(pictures, RAY_PROCESSES if ray else processes)
    session.refuse_outputs()
    results = Results(files.folder)
    session.note(Phase("loading the models"))
    posterior = pinned.posterior if pinned is not None else MODE
    codecs = load_models(models, symmetrized, posterior, loading)
    if files.certificate and len(codecs) > 1:
        raise UsageError(
            f"one certificate for {len(codecs)} models: name one, or take a folder with -o",
            "certificate",
        )
    certified = session.certified(codecs)
    device = metric_device(codecs)
    evaluation = Evaluation(
        codecs,
        shards,
        options,
        results,
        session.load_lpips(lpips, device),
        load_inception(rfid, device) if rfid else None,
        load_reader() if text else None,
    )
    session.note(Phase("reading the pictures"))
    survey = evaluation.survey()
    steps = evaluation.run(survey)
    if processes > 1 or ray:
        setup = Setup(
            tuple(_everywhere(model) for model in models if isinstance(model, str)),
            symmetrized,
            posterior,
            loading,
            options,
            tuple(shards),
            evaluation.lpips is not None,
            lpips and _everywhere(lpips),
            rfid and _everywhere(rfid),
            text,
        )
        if len(setup.models) < len(models):
            raise UsageError("several processes load models by name: name them", "models")
        if ray:
            steps = measure_by_ray(evaluation, survey, setup, address)
        else:
            steps = measure_by_processes(evaluation, survey, setup, processes)
    workers, share = "", 1.0
    if ray:
        workers = f"a Ray cluster{', which may be faster than this machine' if address else ''}"
    elif processes > 1:
        workers, share = f"{processes} processes", 1 / count_devices(loading, processes)
    aheads = evaluation.ahead(survey)
    begin(progress, [replace(ahead, workers=workers, share=share) for ahead in aheads])
    follow(steps, evaluation.pending(survey), progress)
    named = pinned.to_json(protocol or "") if pinned is not None else None
    result = _conclude(evaluation, survey, named, has_rfid=rfid is not None)
    session.write(result, certified)
    if files.html is not None and result.rows:
        session.note(Phase("drawing the page"))
        write_result(files.html, session.page(evaluation, survey, result))
    return result


@dataclass(frozen=True)
class _Session:
    files: EvaluationFiles
    options: EvalOptions
    progress: Progress[Step] | None

    def note(self, step: Step) -> None:
        """Report a step that does not count as progress."""
        if self.progress is not None:
            self.progress(step, 0, 0)

    def refuse_outputs(self) -> None:
        """Nothing is measured first and refused afterwards. Raises OutputError, UsageError."""
        files = self.files
        for path in filter(None, (files.csv, files.html, files.certificate)):
            refuse_to_replace(path, files.overwrite)
        if (files.certificate or files.certify) and self.options.flips == 0:
            raise UsageError("a certificate needs --flips of at least 1", "flips")
        if files.folder is None:
            return
        path = files.folder / SUMMARY_FILE
        if is_taken(path) and not files.overwrite and not _is_ours(path):
            raise OutputError(f"{path} is no summary of auravae eval: name another folder with -o")

    def certified(self, models: Models) -> tuple[Storage, str] | None:
        """The store that is to have a certificate, and its model's label. Raises StoreError."""
        if self.files.certify is None:
            return None
        storage = open_storage(self.files.certify)
        settings = require_settings(storage)
        names = {entry.name for entry in storage.entries()}
        if not self.files.overwrite and CERTIFICATE_FILE in names:
            read_certificate(storage)  # reports if it is damaged
            raise StoreError(
                f"{storage.root} has a certificate already: replace it with --overwrite"
            )
        codecs = {name: codec for name, codec in models.items() if isinstance(codec, Codec)}
        if not codecs:
            raise UsageError("no model to certify", "certify")
        reasons = {label: mismatch(codec.space, settings.space) for label, codec in codecs.items()}
        for label, reason in reasons.items():
            if reason is None:
                return storage, label
        raise StoreError(f"{storage.root}: {next(iter(reasons.values()))}")

    def load_lpips(self, weights: str | None, device: str) -> Perceptual | None:
        """LPIPS, if it is wanted and here."""
        if weights == "none":
            return None
        if weights is None and not _has_lpips():
            self.note(Notice(NO_LPIPS, is_minor=True))
            return None
        from auravae_cli.evaluation.perceptual import load_perceptual

        return load_perceptual(weights, device)

    def write(self, result: EvaluationResult, certified: tuple[Storage, str] | None) -> None:
        """Everything but the page. Raises OutputError, StoreError."""
        for path, content in self._contents(result):
            write_result(path, content)
        if certified is not None and certified[1] in result.certificates:
            storage, label = certified
            with scratch_folder(storage) as scratch:
                content = result.certificates[label].to_bytes()
                publish_bytes(storage, scratch, CERTIFICATE_FILE, content)

    def _contents(self, result: EvaluationResult) -> Iterator[tuple[Path, bytes]]:
        files, certificates = self.files, result.certificates
        if files.folder is not None:
            for label, certificate in certificates.items():
                place = below(files.folder, f"certificate-{label}.json")
                yield place, certificate.to_bytes()
            text = write_json(result.summary, indent=1, sort_keys=True)
            yield files.folder / SUMMARY_FILE, text.encode() + b"\n"
        if files.csv is not None:
            yield files.csv, csv_bytes(result.rows)
        if files.certificate is not None and certificates:
            yield files.certificate, next(iter(certificates.values())).to_bytes()

    def page(self, evaluation: Evaluation, survey: Survey, result: EvaluationResult) -> bytes:
        """The page; its pictures are kept beside the results. Raises ModelError, OutputError."""
        from auravae_cli.evaluation.page.data import PageData
        from auravae_cli.evaluation.page.document import page_bytes

        first = result.summary["models"][0]
        certificate = first["certificate"]
        flips = certificate["elements"].values() if certificate else ()
        gaps = [(one["flip_gap"]["worst"], one["flip_gap"]["worst_picture"]) for one in flips]
        choice = choose(result.rows, max(gaps, default=(0, None))[1], self.files.html_images)
        album = Album(self.files.folder)
        for bad in make_pictures(evaluation, survey, choice, album):
            self.note(Notice(f"{bad.picture} is not on the page: {bad.reason}"))

        def find(label: str, picture: str, name: str) -> bytes | None:
            return album.find(evaluation.identity(label, survey.pictures[picture]), name)

        by_name = {(row["model"], row["picture"]): row for row in result.rows}
        return page_bytes(PageData(result.summary, by_name, choice, find))


def _everywhere(name: str) -> str:
    """A model's name, with an absolute path if it has one that exists: other processes have other folders."""
    library, colon, place = name.rpartition(":")
    if colon and Path(place).exists():
        return f"{library}:{absolute(place, True)}"
    return absolute(name, Path(name).exists())


def _find_shards(pictures: Names, processes: int) -> list[InputShard]:
    """The inputs; for several processes, loose pictures are in so many shards that all end together."""
    names = listed(pictures)
    try:
        files = find_files(names)
        number = count_file_shards(files, SHARD_SIZE)
        if processes > 1:
            number = max(number, min(len(files), SHARDS_EACH * processes), 1)
        shards = make_shards(files, number)
    except InputImageError as error:
        raise UsageError(str(error)) from error
    if not files:
        raise none_found(names, (*PICTURES, *TARS), "pictures, folders, patterns, tars or a list")
    return shards


def _is_ours(summary: Path) -> bool:
    try:
        require_format(read_json(summary.read_bytes()), FORMAT, FORMAT_VERSION)
    except (OSError, ValueError):
        return False
    return True


def _has_lpips() -> bool:
    """Whether the lpips package and its weights are here; without the package, torch is not loaded."""
    from importlib.util import find_spec

    if find_spec("lpips") is None:
        return False
    from auravae_cli.evaluation.perceptual import is_installed

    return is_installed()


def _conclude(
    evaluation: Evaluation, survey: Survey, protocol: dict[str, Any] | None, *, has_rfid: bool
) -> EvaluationResult:
    """The summary, the certificates by label, and all rows."""
    measure, models, every = evaluation.options.measure, [], list[dict[str, Any]]()
    certificates: dict[str, Certificate] = {}
    for label, codec in evaluation.codecs.items():
        rows = evaluation.rows(label, survey)
        if not rows:
            continue
        every += rows
        if isinstance(codec, Reconstructions):
            model, certificate = summarise_reconstructions(codec, rows), None
        else:
            model = summarise(label, codec, rows, measure)
            certificate = certify(codec, rows, measure)
        model["label"] = label
        if has_rfid:
            model["quality"]["rfid"] = _rfid(rows)
        models.append(model)
        if certificate is not None:
            certificates[label] = certificate
    pictures = {row["picture"]: row for row in every}
    summary = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool_version": __version__,
        "data": describe_data(list(pictures.values())),
        "settings": {
            "stored_dtype": measure.stored_dtype.name,
            "preparation": measure.preparation.to_json(),
            "ssim": measure.ssim,
            "lpips": evaluation.lpips and evaluation.lpips.digest,
            "text": evaluation.reader and evaluation.reader.name,
            "protocol": protocol,
        },
        "models": models,
        "failures": [vars(bad) for bad in evaluation.failures],
    }
    return EvaluationResult(summary, every, certificates, tuple(evaluation.failures))


def _rfid(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    pairs = [row["inception"] for row in rows]
    value = frechet_distance([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return None if value is None else {"mean": value, "pictures": len(pairs)}
