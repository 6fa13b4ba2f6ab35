"""Check an installation, one check after the other, each with advice if it fails.

::

    machine --> weights --> model --> golden round trip, flips, NaN, sockets, memory
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.diagnostics.golden import TOLERANCES, Golden, read_golden
from auravae_cli.diagnostics.weights_census import WeightsSummary, count_weights
from auravae_cli.errors import AuraVaeError, reason_of
from auravae_cli.evaluation.equivariance import ELEMENTS
from auravae_cli.evaluation.measure import MeasureOptions, Subject, measure
from auravae_cli.images.metrics import psnr
from auravae_cli.images.read import from_unit, to_unit
from auravae_cli.machine.progress import Phase, Progress, begin, follow
from auravae_cli.machine.socket_audit import watch_sockets
from auravae_cli.model.codec import Codec, load_codec, load_image
from auravae_cli.model.linear import LinearAutoencoder
from auravae_cli.model.spec.card import read_card
from auravae_cli.model.spec.config import ModelConfig
from auravae_cli.model.spec.registry import find_weights

OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
NAMES = ("python", "torch", "model", "device", "weights", "tensors", "golden", "flips", "nan") + (
    *("offline", "memory"),
)
OLDEST_PYTHON = (3, 11)
REINSTALL = "install the package again: pip install --force-reinstall auravae"


@dataclass(frozen=True)
class Check:
    """The result of one check. ``advice`` says what to do if ``status`` is not ``ok``."""

    name: str
    status: str
    finding: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """All checks of an installation, in order."""

    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == FAILED)

    @property
    def is_model_usable(self) -> bool:
        """Whether the model could be loaded at all."""
        return any(check.name == "model" and check.status == OK for check in self.checks)


def diagnose(
    model: str = DEFAULT_MODEL,
    *,
    side: int = 1024,
    device: str = "auto",
    dtype: str = "auto",
    memory: int | None = None,
    progress: Progress[Check] | None = None,
) -> Diagnosis:
    """Check this installation with one model on one device, as ``auravae doctor`` does.

    An error of the installation is not raised, but becomes a failed check.

    Args:
        side: a picture of ``side`` x ``side`` pixels has to fit into memory.
        model, device, dtype, memory: as for `load_codec`.
        progress: called with each check.
    """
    loading = _Request(model, side, device, dtype, memory)
    return Diagnosis(tuple(follow(_examine(loading, progress), len(NAMES), progress)))


@dataclass(frozen=True)
class _Request:
    """What to check; see `diagnose`."""

    model: str
    side: int
    device: str
    dtype: str
    memory: int | None


def _examine(asked: _Request, progress: Any) -> Iterator[Check]:
    """Yield every check, in the order of `NAMES`."""
    yield from (_python(), _torch())
    opened: list[str] = []
    begin(progress, Phase(f"loading model {asked.model}"))
    try:
        path, config = find_weights(asked.model)
        with watch_sockets(opened):
            codec = load_codec(
                asked.model, device=asked.device, dtype=asked.dtype, memory=asked.memory
            )
            golden = read_golden(config.name if config else "")
        yield Check("model", OK, f"{asked.model}: {path}", facts={"path": str(path)})
    except AuraVaeError as error:
        advice = "name another with --model (auravae models list), or another --device"
        yield Check("model", FAILED, str(error), advice)
        for name in NAMES[3:]:
            yield Check(name, SKIPPED, "needs the model")
        return
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("device", lambda: _device(codec)),
        ("weights", lambda: _weights(codec, golden)),
        ("tensors", lambda: _tensors(count_weights(path), config, codec)),
        ("golden", lambda: _golden(codec, golden)),
        ("flips", lambda: _flips(codec, golden, path)),
        ("nan", lambda: _nan(codec)),
    )
    for name, check in checks:
        begin(progress, Phase(f"checking {name}"))
        with watch_sockets(opened):
            found = _run(name, check)
        yield found
    yield _offline(opened)
    begin(progress, Phase("checking memory"))
    yield _run("memory", lambda: _memory(codec, asked.side))


def _run(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (AuraVaeError, MemoryError) as error:
        advice = "see the checks above; try --device cpu --dtype float32"
        return Check(name, FAILED, reason_of(error), advice)


def _python() -> Check:
    found = f"{platform.python_version()} on {platform.platform()}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", FAILED, found, "auravae needs Python 3.11 or later")
    return Check("python", OK, found)


def _torch() -> Check:
    """Check the package's metadata; importing torch is left to what needs it."""
    try:
        return Check("torch", OK, version("torch"), facts={"version": version("torch")})
    except PackageNotFoundError:
        advice = "GPUs, pickles, float16 and training need it: pip install torch"
        return Check("torch", WARNING, "not installed", advice)


def _device(codec: Codec) -> Check:
    if isinstance(codec.autoencoder, LinearAutoencoder):
        return Check("device", OK, "cpu, numpy alone", facts={"device": "cpu"})
    from auravae_cli.model.cpu.native import NATIVE, PLAIN, trouble
    from auravae_cli.model.cpu.strip_threads import threads as number_of_threads

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = number_of_threads()
    facts: dict[str, Any] = {
        "device": codec.device,
        "compute_dtype": codec.compute_dtype,
        "engine": codec.engine,
        "threads": threads,
    }
    found = (
        f"{codec.device}, {codec.compute_dtype}, engine {codec.engine}, {threads} threads on "
        f"{cores} cores"
    )
    if codec.device.startswith("cuda"):
        import torch

        name, driver = torch.cuda.get_device_name(codec.device), _driver()
        facts |= {"name": name, "driver": driver, "cuda": torch.version.cuda}
        found += f"; {name}, CUDA {torch.version.cuda}, driver for {driver // 1000}.{driver % 1000 // 10}"
    if codec.engine == NATIVE:
        text, facts["kernels"] = _kernels()
        found += f"; {text}"
    if codec.device == "cpu" and threads < (cores or 1):
        advice = "unset OMP_NUM_THREADS, or set it to the number of cores"
        return Check("device", WARNING, found, advice, facts)
    slow = (codec.device, codec.compute_dtype, codec.engine) == ("cpu", "float32", PLAIN)
    missing = trouble() if slow else None
    if missing is not None:
        found += f"; no CPU kernels: {missing}"
        advice = "with them this CPU is about twice as fast: they need a C compiler (cc)"
        return Check("device", WARNING, found, advice, facts)
    return Check("device", OK, found, facts=facts)


def _kernels() -> tuple[str, dict[str, Any]]:
    """Return which kernels run on this CPU and where they come from, in words and as facts."""
    from auravae_cli.model.cpu import bfloat16, native
    from auravae_cli.model.cpu.shipped import FOLDER

    kernels, products = native.kernels(), bfloat16.kernels()
    assert kernels is not None
    has_tiles = products is not None and products.has_tiles
    origin = "of the package" if kernels.path.is_relative_to(FOLDER.resolve()) else "built here"
    text = f"kernels {origin}, vectors of {kernels.lanes}, " + (
        f"bfloat16 in {'the tiles of AMX' if has_tiles else 'vectors'} for models that the flips fix"
        if products
        else "no bfloat16 on this processor"
    )
    facts: dict[str, Any] = {"lanes": kernels.lanes, "path": str(kernels.path)}
    return text, facts | {"bfloat16": products is not None, "tiles": has_tiles}


def _driver() -> int:
    """Return the newest CUDA that the driver supports, as 1000 * major + 10 * minor."""
    import torch

    version_of: Callable[[], int] = getattr(torch._C, "_cuda_getDriverVersion", lambda: 0)
    return version_of()


def _weights(codec: Codec, golden: Golden) -> Check:
    digest, expected = codec.space.weights_sha256, golden.weights_sha256
    facts = {"sha256": digest}
    if expected is None:
        return Check("weights", OK, f"sha256 {digest}; none is known to compare with", facts=facts)
    if digest != expected:
        return Check("weights", FAILED, f"sha256 {digest}, expected {expected}", REINSTALL, facts)
    return Check("weights", OK, f"sha256 {digest}, as released", facts=facts)


def _tensors(census: WeightsSummary, config: ModelConfig | None, codec: Codec) -> Check:
    found = (
        f"{census.tensors} tensors, {census.parameters:,} parameters, {', '.join(census.dtypes)}"
        + ", expanded from orbit representatives" * census.is_tied
    )
    facts = {
        "tensors": census.tensors,
        "parameters": census.parameters,
        "dtypes": list(census.dtypes),
    }
    if census.not_finite:
        advice = "the weights are damaged, or training diverged: take an earlier checkpoint"
        finding = f"{found}; NaN or infinity in {census.not_finite}"
        return Check("tensors", FAILED, finding, advice, facts)
    architecture = getattr(codec.autoencoder, "architecture", None)
    if config and config.architecture and architecture != config.architecture:
        finding = f"{found}; {architecture}, expected {config.architecture}"
        return Check("tensors", FAILED, finding, REINSTALL, facts)
    return Check("tensors", OK, found, facts=facts)


def _golden(codec: Codec, golden: Golden) -> Check:
    latent = codec.encode_unit(to_unit(golden.picture)[None])
    if golden.latent is None or golden.decoded is None:
        decoded = from_unit(codec.decode_finite(latent)[0])
        value = psnr(decoded, golden.picture)
        finding = f"no golden numbers of this model; its round trip has {value:.2f} dB"
        return Check("golden", OK, finding, facts={"psnr": value})
    most, least = TOLERANCES[codec.compute_dtype]
    error = float(np.linalg.norm(latent[0] - golden.latent) / np.linalg.norm(golden.latent))
    value = psnr(from_unit(codec.decode_finite(golden.latent[None])[0]), golden.decoded)
    finding = (
        f"latent within {error:.1e} of the golden one (at most {most:g}), decode "
        + (f"at {value:.1f} dB" if np.isfinite(value) else "identical")
        + f" (at least {least:g})"
    )
    facts = {"latent_error": error, "decoded_psnr": value if np.isfinite(value) else None}
    if error <= most and value >= least:
        return Check("golden", OK, finding, facts=facts)
    advice = "this machine computes something else: try --device cpu, another torch, and report it"
    return Check("golden", FAILED, finding, advice, facts)


def _flips(codec: Codec, golden: Golden, path: Path) -> Check:
    subject = Subject("golden", load_image(golden.picture, "white"), flips=True, sweeps=False)
    (measured,) = measure(codec, [subject], MeasureOptions())
    flips = measured.row["flips"]
    encoder, decoder = (
        max(flips[str(g)][f"{half}_error"] for g in ELEMENTS) for half in ("encoder", "decoder")
    )
    card = read_card(path)
    is_exact = isinstance(codec.autoencoder, LinearAutoencoder) or bool(card and card.is_tied)
    facts = {"encoder_error": encoder, "decoder_error": decoder, "exact_by_construction": is_exact}
    numbers = f"encoder error {encoder:.1e}, decoder error {decoder:.1e}"
    if not (flips["action_exact"] and flips["preparation_exact"]):
        advice = "please report this: flips of files must be exact on every machine"
        return Check("flips", FAILED, f"the action on files is not exact; {numbers}", advice, facts)
    if is_exact and max(encoder, decoder) > TOLERANCES[codec.compute_dtype][0]:
        advice = "the weights say that they are exactly equivariant: do not rely on flips here"
        return Check("flips", FAILED, f"files exact; {numbers}", advice, facts)
    learned = "" if is_exact else "; learned, so measure it on your pictures: auravae eval"
    return Check("flips", OK, f"files exact; {numbers}{learned}", facts=facts)


def _nan(codec: Codec) -> Check:
    """Run extreme pictures and latents through both halves; `Codec` raises if the result has NaN."""
    side = 8 * codec.space.downsampling_factor
    random = np.random.default_rng(0)
    board = (np.indices((side, side)).sum(0) % 2 * 2 - 1).astype(np.float32)
    pictures = [np.full((3, side, side), level, np.float32) for level in (-1, 0, 1)]
    pictures += [
        np.repeat(board[None], 3, axis=0),
        random.uniform(-1, 1, (3, side, side)).astype("f4"),
    ]
    latents = [codec.encode_unit(p[None]) for p in pictures]
    latents += [np.full_like(latents[0], sign * codec.space.clamp) for sign in (-1, 1)]
    for latent in latents:
        codec.decode_finite(latent)
    return Check("nan", OK, f"none in {codec.compute_dtype}, for {len(latents)} extreme inputs")


def _offline(opened: list[str]) -> Check:
    if opened:
        finding = f"{len(opened)} attempts, the first: {opened[0]}"
        advice = "something on this machine makes Python phone home: see which package it is"
        return Check("offline", FAILED, finding, advice, {"sockets": len(opened)})
    return Check("offline", OK, "no socket was opened by Python", facts={"sockets": 0})


def _memory(codec: Codec, side: int) -> Check:
    network = codec.autoencoder
    if isinstance(network, LinearAutoencoder):
        return Check("memory", OK, "the linear model needs hardly any")
    needs, least = network.needs(side, side), network.least(side, side)  # type: ignore[attr-defined]
    free = network.budget()  # type: ignore[attr-defined]
    facts = {"side": side, "needs": needs, "least": least, "may_use": free}
    picture = f"{side} x {side} takes up to {needs / 2**30:.1f} GiB"
    if free is None:
        return Check(
            "memory", OK, f"{picture}; this machine does not say what is free", facts=facts
        )
    finding = f"{picture}; {free / 2**30:.1f} GiB may be used"
    if free >= needs:
        return Check("memory", OK, finding, facts=facts)
    if free >= least:
        advice = "larger pictures run in strips, with the same result in more time"
        return Check("memory", WARNING, finding, advice, facts)
    advice = f"even strips need {least / 2**30:.1f} GiB: free some memory, or use --model linear"
    return Check("memory", FAILED, finding, advice, facts)
