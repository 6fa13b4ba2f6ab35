"""The models by name, and where their weights are. Needs neither torch nor a network connection."""

from __future__ import annotations

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

from auravae_cli.errors import MissingWeightsError, WeightsError
from auravae_cli.files.kinds import kind_of_file
from auravae_cli.files.toml_config import read_config
from auravae_cli.machine.progress import Progress
from auravae_cli.model.spec.config import ModelConfig, configs_path
from auravae_cli.model.spec.foreign import parse_foreign

WEIGHTS_PATH = Path(__file__).parents[2] / "weights"


@cache
def model_files() -> dict[str, Path]:
    """Return the known models' names, which are those of their files, with the files."""
    return {
        path.stem: path
        for path in sorted((configs_path() / "model").glob("*.toml"), key=lambda path: path.stem)
    }


@cache
def find_model(name: str) -> ModelConfig | None:
    """Return the config of a known model, read once; None for any other name."""
    path = model_files().get(name)
    return None if path is None else read_config(path, ModelConfig)


def name_of(model: str, weights_sha256: str) -> str:
    """Return the known model that has these weights; ``model``, its name in a latent's header, if none has.

    A name may later denote better weights; latents made by the older ones remain.
    """
    config = find_model(model)
    if config is not None and (not config.sha256 or weights_sha256 in config.sha256):
        return model
    names = (n for n, config in known_models().items() if weights_sha256 in config.sha256)
    return next(names, model)


def known_models() -> dict[str, ModelConfig]:
    """Return every config of ``configs/model``, by name."""
    return {name: config for name in model_files() if (config := find_model(name))}


def find_weights(model: str) -> tuple[Path, ModelConfig | None]:
    """Return the weights file of a model's name or of a path, and the config if the name is known.

    Raises:
        WeightsError: there is no such model, or its weights are not on this machine.
    """
    config = find_model(model)
    if config is None:
        if parse_foreign(model) is not None:
            raise WeightsError(f"{model}: only auravae eval runs other projects' models")
        if not Path(model).is_file():
            is_folder = Path(model).is_dir()
            raise WeightsError(
                f"{f'{model}: a folder' if is_folder else f'no model {model!r}'}: expected one of "
                f"{', '.join(model_files())}, or the path of a checkpoint"
            )
        kind = kind_of_file(Path(model))
        if kind is not None and not kind.is_weights:
            raise WeightsError(f"{model}: {kind.name}: expected the weights of a model")
        return Path(model), None
    path = local_weights(config)
    if path is None:
        advice = (
            f"fetch them once with: auravae models pull {config.name}"
            if config.hub_repo
            else "pass the path of a checkpoint of this architecture"
        )
        raise MissingWeightsError(
            f"the weights of model {model!r} are not on this machine; {advice}"
        )
    return path, config


def local_weights(config: ModelConfig) -> Path | None:
    """Return where the weights are, in the package or in the hub's cache; None if they are not there."""
    if config.weights:
        return WEIGHTS_PATH / config.weights
    if config.hub_repo and config.hub_file:
        return _in_hub_cache(config.hub_repo, config.hub_file)
    return None


def pull(config: ModelConfig, progress: Progress[None] | None = None) -> Path:
    """Download a model's official file into the hub's cache, and return its path.

    ``progress`` is called with the number of bytes so far, and the total.
    ``HF_TOKEN``, ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_HUB_OFFLINE`` are honoured.
    Raises WeightsError.
    """
    if not config.hub_repo or not config.hub_file:
        raise WeightsError(f"model {config.name!r} is not on a hub: there is nothing to fetch")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise WeightsError(
            "fetching from the hub needs huggingface_hub: pip install huggingface_hub"
        ) from None
    try:
        bar = _bar(progress or (lambda step, done, total: None))
        return Path(hf_hub_download(config.hub_repo, config.hub_file, tqdm_class=bar))
    except Exception as error:  # the hub's client raises errors of many libraries
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"cannot fetch {config.hub_file} of {config.hub_repo}: {reason}; check the connection, "
            "HF_TOKEN and HF_HUB_OFFLINE, or pass a file you have with --model PATH"
        ) from error


def _bar(progress: Progress[None]) -> type[Any]:
    """Return a class of bars for the hub's client that draw nothing, and report how far they are."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # of the client's own class
            super().__init__(*args, **(options | {"file": io.StringIO(), "disable": False}))
            progress(None, int(self.n), int(self.total or 0))

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            progress(None, int(self.n), int(self.total or 0))
            return drawn

    return Bar


def _in_hub_cache(repo: str, file: str) -> Path | None:
    """The newest cached version, by the layout of the hub's cache: no client is imported."""
    home = os.environ.get("HF_HOME") or Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub"))
    try:
        cache = cache.expanduser()
    except RuntimeError:  # no home, so no cache in it
        return None
    folder = cache / f"models--{repo.replace('/', '--')}" / "snapshots"
    found = [path for path in folder.glob(f"*/{file}") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
