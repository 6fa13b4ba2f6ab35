"""What a run would take: the calls behind ``--dry-run``, which load no model and write no result.

Only a speed that no earlier run has measured is measured first, on a small picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Unpack

from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS
from auravae_cli.errors import StoreError
from auravae_cli.files.places import is_remote
from auravae_cli.files.storage import open_storage
from auravae_cli.forecast.dry_run import (
    Forecaster,
    forecast_latents,
    forecast_pictures,
    forecast_store,
)
from auravae_cli.forecast.run_setting import RunSetting, find_setting
from auravae_cli.images.prepare import Preparation
from auravae_cli.machine.progress import Progress, follow
from auravae_cli.machine.speeds import Speeds
from auravae_cli.operations.batches import Outcome
from auravae_cli.operations.decode import plan_decode
from auravae_cli.operations.encode import plan_encode
from auravae_cli.operations.encode_store import deal, files_of_store, store_place
from auravae_cli.operations.jobs import Names, listed
from auravae_cli.operations.loading import Loading, loading_for
from auravae_cli.operations.outputs import Job
from auravae_cli.operations.roundtrip import places_of, plan_roundtrip
from auravae_cli.operations.timed_batches import DECODE_PARTS, ENCODE_PARTS, Parts, roundtrip_parts
from auravae_cli.store.settings import StoreSettings, read_settings
from auravae_cli.symmetry.group import GROUP, GroupElement


def predict_encode(
    pictures: Names,
    output: str | Path | None = None,
    *,
    model: str = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    overwrite: bool = False,
    part: tuple[int, int] = (0, 1),
    calibrating: Callable[[RunSetting], None] | None = None,
    progress: Progress[Outcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """What `encode_files` with these arguments would take; an outcome for each picture.

    Its status is ``planned``, with padded size, strips, memory and seconds in ``details``, or
    ``skipped``, ``failed`` or ``unknown``. ``calibrating`` is called before a speed is measured.
    """
    planned = plan_encode(pictures, output, part, passed_over)
    run = _Prediction("encode", ENCODE_PARTS, loading, batch_size, calibrating)
    return run.of_pictures(planned, model, preparation, max_pixels, progress, keeps=not overwrite)


def predict_encode_store(
    pictures: Names,
    output: str | Path,
    *,
    model: str = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    max_pixels: int = MAX_PIXELS,
    batch_size: int | None = None,
    shard_size: int | None = None,
    part: tuple[int, int] = (0, 1),
    calibrating: Callable[[RunSetting], None] | None = None,
    progress: Progress[Outcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """What `encode_store` would take for all files, whatever shards are done; an outcome for each."""
    store = _find_store(store_place(pictures, output))
    loading = loading_for(store, model, loading)
    files, (number, of) = files_of_store(listed(pictures), passed_over), part
    if of > 1:
        shards, _ = deal(files, store, shard_size)
        files = [file for shard in shards[number::of] for file in shard.files]
    run = _Prediction("encode", ENCODE_PARTS, loading, batch_size, calibrating)
    rows = forecast_store(files, run.forecaster, run.setting(model), preparation, max_pixels)
    return follow(rows, len(files), progress)


def _find_store(place: str) -> StoreSettings | None:
    """Return the settings of a store; None if there is none yet, or a remote one cannot be read."""
    try:
        return read_settings(open_storage(place))
    except StoreError:
        if is_remote(place):  # the prediction needs neither the network nor its keys
            return None
        raise


def predict_decode(
    latents: Names,
    output: str | Path | None = None,
    *,
    model: str | None = None,
    picture_format: str = "png",
    batch_size: int | None = None,
    overwrite: bool = False,
    calibrating: Callable[[RunSetting], None] | None = None,
    progress: Progress[Outcome] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """What `decode_files` would take; as `predict_encode`."""
    jobs, refused = plan_decode(latents, output, picture_format)
    run = _Prediction("decode", DECODE_PARTS, loading, batch_size, calibrating)
    rows = forecast_latents(
        jobs, run.forecaster, lambda own: run.setting(model or own), keeps=not overwrite
    )
    return follow(chain(refused, rows), len(refused) + len(jobs), progress)


def predict_roundtrip(
    pictures: Names,
    output: str | Path | None = None,
    *,
    flips: Iterable[GroupElement | str] = (),
    model: str | Sequence[str] = DEFAULT_MODEL,
    preparation: Preparation = Preparation(),
    max_pixels: int = MAX_PIXELS,
    calibrating: Callable[[RunSetting], None] | None = None,
    progress: Progress[Outcome] | None = None,
    passed_over: Counter[str] | None = None,
    **loading: Unpack[Loading],
) -> list[Outcome]:
    """What `roundtrip_files` would take; as `predict_encode`."""
    models = [model] if isinstance(model, str) else list(model)
    parts = roundtrip_parts(len(tuple(flips)))
    run = _Prediction("roundtrip", parts, loading, None, calibrating)
    return [
        outcome
        for one, place in zip(models, places_of(models, output), strict=True)
        for outcome in run.of_pictures(
            plan_roundtrip(pictures, place, passed_over),
            *(one, preparation, max_pixels, progress),
            keeps=False,
        )
    ]


@dataclass
class _Prediction:
    """Finds settings without loading models, and measures the speeds that are not known."""

    command: str
    parts: Parts
    loading: Loading
    batch_size: int | None
    calibrating: Callable[[RunSetting], None] | None
    speeds: Speeds = field(default_factory=Speeds)
    _settings: dict[str, RunSetting] = field(default_factory=dict)
    _models: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := self.loading.keys() - Loading.__annotations__.keys():  # no model is loaded
            raise TypeError(f"unexpected arguments: {', '.join(sorted(unknown))}")

    def of_pictures(
        self,
        planned: tuple[list[Job], list[Outcome]],
        model: str,
        preparation: Preparation,
        max_pixels: int,
        progress: Progress[Outcome] | None,
        *,
        keeps: bool,
    ) -> list[Outcome]:
        """An outcome for each picture."""
        jobs, refused = planned
        setting = self.setting(model)
        rows = forecast_pictures(
            jobs, self.forecaster, setting, preparation, max_pixels, keeps=keeps
        )
        return follow(chain(refused, rows), len(refused) + len(jobs), progress)

    def setting(self, model: str) -> RunSetting:
        """That of a model's name or a checkpoint's path. Raises WeightsError."""
        if model not in self._settings:
            found = find_setting(
                model,
                tuple(part for part, _ in self.parts),
                self.loading.get("device", "auto"),
                self.loading.get("dtype", "auto"),
                self.loading.get("memory"),
            )
            repeats = len(GROUP) if self.loading.get("symmetrize") in (True, "mean") else 1
            self._settings[model] = replace(found, repeats=repeats)
            self._models[found.weights_sha256] = model
        return self._settings[model]

    @property
    def forecaster(self) -> Forecaster:
        """What predicts."""
        return Forecaster(self.command, self.parts, self.speeds, self._calibrate, self.batch_size)

    def _calibrate(self, setting: RunSetting) -> None:
        """Measure a speed that no earlier run has recorded."""
        from auravae_cli.forecast.calibrate import calibrate

        if self.calibrating is not None:
            self.calibrating(setting)
        model, memory = self._models[setting.weights_sha256], self.loading.get("memory")
        calibrate(self.command, self.parts, replace(setting, repeats=1), model, memory, self.speeds)
