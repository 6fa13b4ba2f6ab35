"""Where other projects' autoencoders come from: diffusers, the files of TAESD, Python objects."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from auravae_cli.errors import WeightsError
from auravae_cli.model.spec.foreign import DIFFUSERS, PYTHON, TAESD, ForeignName

_NO_DIFFUSERS = "measuring this model needs diffusers ({}): pip install diffusers"
VAE = "vae"  # the folder of a pipeline's autoencoder


@dataclass(frozen=True)
class ForeignModel:
    """A model as its library gives it: with ``encode`` and ``decode`` of tensors.

    ``config`` is that of diffusers, where there is one; ``source`` identifies what has no weights.
    """

    label: str
    model: Any
    config: Mapping[str, Any] = field(default_factory=dict)
    source: bytes = b""


def find(name: ForeignName) -> ForeignModel:
    """Load a model by its name. Raises WeightsError."""
    return _FINDERS[name.library](name.place)


def _from_diffusers(place: str) -> ForeignModel:
    """A folder or a repository of the hub, of an autoencoder or of a pipeline that has one."""
    try:
        from diffusers import AutoModel
        from diffusers.utils import logging
    except ImportError as error:
        raise WeightsError(_NO_DIFFUSERS.format(error)) from error
    folder = Path(place)
    if not folder.exists() and (folder.is_absolute() or len(folder.parts) != 2):
        raise WeightsError(f"{place}: no such folder, nor a repository of the hub (OWNER/NAME)")
    subfolders = ("", VAE) if not (folder / VAE / "config.json").is_file() else (VAE,)
    reasons, verbosity = [], logging.get_verbosity()
    for subfolder in subfolders:
        where = {"subfolder": subfolder} if subfolder else {}
        try:
            logging.set_verbosity_error()  # its hints are about how to load faster
            model = AutoModel.from_pretrained(place, low_cpu_mem_usage=False, **where)
        except Exception as error:  # diffusers and the hub's client raise errors of every type
            reasons.append(str(error).strip().partition("\n")[0] or type(error).__name__)
            continue
        finally:
            logging.set_verbosity(verbosity)
        path = Path(place, subfolder).parts
        label = path[-2] if path[-1] == VAE and len(path) > 1 else path[-1]
        config = {key: value for key, value in model.config.items() if not key.startswith("_")}
        return ForeignModel(label, model, config)
    raise WeightsError(f"diffusers cannot load {place}: {reasons[0]}")


def _from_taesd(place: str) -> ForeignModel:
    """``X_encoder.SUFFIX`` with ``X_decoder.SUFFIX`` beside it, or one file of both, in TAESD's layout."""
    try:
        from diffusers import AutoencoderTiny
    except ImportError as error:
        raise WeightsError(_NO_DIFFUSERS.format(error)) from error
    path = Path(place)
    weights: dict[str, Tensor] = {}
    for part, file in _halves(path).items():
        tensors = _tensors(file)
        prefix = f"{part}." if any(name.startswith(f"{part}.") for name in tensors) else ""
        weights |= {
            _in_diffusers(part, name.removeprefix(prefix)): tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
    latents = max(
        (name for name in weights if name.startswith("encoder.") and name.endswith(".weight")),
        key=lambda name: int(name.split(".")[2]) if name.split(".")[2].isdecimal() else -1,
        default=None,
    )
    reason = "it has no encoder"
    if latents is not None:
        model = AutoencoderTiny(latent_channels=weights[latents].shape[0])
        try:
            model.load_state_dict(weights)
            label = path.stem.replace("_encoder", "").replace("_decoder", "")
            return ForeignModel(label, model)
        except RuntimeError as error:
            lines = str(error).splitlines()
            reason = (lines[1] if len(lines) > 1 else lines[0]).strip()[:200]
    raise WeightsError(
        f"{path}: not in TAESD's layout ({reason}); its variants with other layers, taef2 and taesana, "
        "are measured as Python objects: module:attribute"
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of safetensors, or of a torch checkpoint, which is read without running code in it."""
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # both raise errors of every type
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path}: cannot be read as weights: {reason}") from error
    if not isinstance(found, dict) or not all(isinstance(x, Tensor) for x in found.values()):
        raise WeightsError(f"{path}: expected a dictionary of tensors")
    return found


def _halves(path: Path) -> dict[str, Path]:
    """The files of the encoder and of the decoder, named by either. Raises WeightsError."""
    halves = {"encoder": path, "decoder": path}
    for part, other in (("encoder", "decoder"), ("decoder", "encoder")):
        if part in path.name:
            halves[other] = path.with_name(path.name.replace(part, other))
    for file in halves.values():
        if not file.is_file():
            raise WeightsError(
                f"{file}: no such file; TAESD's models have an encoder and a decoder"
            )
    return halves


def _in_diffusers(part: str, name: str) -> str:
    """A tensor's name in diffusers, whose decoder has no layer for the clamp that comes first."""
    head, *rest = name.removeprefix("layers.").split(".")
    if head.isdecimal() and part == "decoder" and not name.startswith("layers."):
        head = str(int(head) - 1)
    return ".".join((part, "layers", head, *rest))


def _from_python(place: str) -> ForeignModel:
    """An object with ``encode`` and ``decode``, or a function or class that makes one without arguments."""
    module_name, _, attribute = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as for `python -m`
    try:
        module = importlib.import_module(module_name)
        found = reduce(getattr, attribute.split("."), module)
    except (ImportError, AttributeError) as error:
        raise WeightsError(f"{place}: no such Python object: {error}") from error
    is_model = not inspect.isclass(found) and all(hasattr(found, n) for n in ("encode", "decode"))
    model = found if is_model else _made(place, found)
    if not all(callable(getattr(model, name, None)) for name in ("encode", "decode")):
        raise WeightsError(f"{place}: expected an object with encode and decode of tensors")
    path = getattr(module, "__file__", None)
    source = Path(path).read_bytes() if path else b""
    config = getattr(model, "config", None)
    known = dict(config) if isinstance(config, Mapping) else {}
    return ForeignModel(place.replace(":", "."), model, known, source + attribute.encode())


def _made(place: str, factory: Any) -> Any:
    if not callable(factory):
        raise WeightsError(f"{place}: expected an object with encode and decode, or what makes one")
    try:
        return factory()
    except Exception as error:  # theirs raise errors of every type
        raise WeightsError(f"{place}() failed: {type(error).__name__}: {error}") from error


_FINDERS: dict[str, Callable[[str], ForeignModel]] = {
    DIFFUSERS: _from_diffusers,
    TAESD: _from_taesd,
    PYTHON: _from_python,
}
