"""Other projects' autoencoders with the interface of ours, so that an evaluation measures them alike.

::

    picture in [-1, 1] --their encoder--> posterior --mode--> z --(z - shift) * scale--> latent
    latent --/ scale + shift--> z --their decoder--> picture

The latent is what a diffusion model is trained on: scale, shift and statistics are those of the model's
config. Such latents are not clamped. Of flips, no more is assumed than that they reverse axes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auravae_cli.adapters.foreign_sources import ForeignModel, find
from auravae_cli.errors import ComputeError, WeightsError, reason_of
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.model.codec import MODE, SAMPLE, Codec
from auravae_cli.model.engine import DTYPES
from auravae_cli.model.halving import run_halving
from auravae_cli.model.placement import place
from auravae_cli.model.planning.run_plan import Plan
from auravae_cli.model.spec.foreign import ForeignName
from auravae_cli.symmetry.group import Irreps

UNCLAMPED = 65504.0  # the largest number of float16: what is stored is finite
PROBES = (64, 128, 256)  # pixels; some models need more than others
_SEED = 0  # of what is drawn from posteriors, the same for every picture


@dataclass(frozen=True)
class Convention:
    """How a diffusion model's latents differ from the encoder's: (z - ``shift``) * ``scale``, by channel.

    ``has_frames`` says that the model is of films: a picture is a film of one frame.
    """

    shift: Tensor
    scale: Tensor
    has_frames: bool = False

    @classmethod
    def of(cls, config: Mapping[str, Any], has_frames: bool) -> Convention:
        """Return what a diffusers config says: ``scaling_factor``, ``shift_factor``, ``latents_mean`` and
        ``latents_std``, each of which may be missing."""
        mean, deviation = (
            torch.tensor(config.get(name) or [empty], dtype=torch.float32).reshape(-1, 1, 1)
            for name, empty in (("latents_mean", 0.0), ("latents_std", 1.0))
        )
        scale = config.get("scaling_factor") or 1.0
        return cls(mean + (config.get("shift_factor") or 0.0), scale / deviation, has_frames)


@dataclass(frozen=True)
class ForeignAutoencoder:
    """Another project's model as an `Autoencoder`; ``posterior`` is ``mode`` or ``sample``."""

    model: Any
    convention: Convention
    device: torch.device
    dtype: torch.dtype
    posterior: str = MODE

    def encode(self, images: Any) -> Any:
        """Encode [B, 3, H, W] in [-1, 1] => [B, C, H/f, W/f], scaled and shifted."""
        return self._run(self._encode, images)

    def decode(self, latents: Any) -> Any:
        """Decode scaled and shifted [B, C, h, w] => [B, 3, f*h, f*w], about [-1, 1], not clipped."""
        return self._run(self._decode, latents)

    def plan(self, part: str, batch: int, height: int, width: int) -> Plan:
        """Raise ComputeError: what another project's model takes is not known."""
        raise ComputeError("the memory that another project's model takes is not known")

    def _run(self, function: Callable[[Tensor], Tensor], batch: Any) -> Any:
        given = torch.from_numpy(batch) if isinstance(batch, np.ndarray) else batch
        with torch.inference_mode():
            result = run_halving(function, given.to(self.device, self.dtype)).float()
        return result.cpu().numpy() if isinstance(batch, np.ndarray) else result.to(batch.device)

    def _encode(self, images: Tensor) -> Tensor:
        z = latent_of(self.model.encode(self._frame(images)), self.posterior)
        convention = self.convention
        z = self._unframe(z).float()
        return (z - convention.shift.to(z)) * convention.scale.to(z)

    def _decode(self, latents: Tensor) -> Tensor:
        z, convention = latents.float(), self.convention
        z = z / convention.scale.to(z) + convention.shift.to(z)
        return self._unframe(_tensor(self.model.decode(self._frame(z.to(self.dtype))), "sample"))

    def _frame(self, batch: Tensor) -> Tensor:
        return batch[:, :, None] if self.convention.has_frames else batch

    def _unframe(self, batch: Tensor) -> Tensor:
        return batch[:, :, 0] if self.convention.has_frames else batch


def latent_of(output: Any, posterior: str) -> Tensor:
    """Return the latent of what an ``encode`` gives: a tensor, a tuple, or one of diffusers' outputs.

    A sample of a posterior is its mean plus its deviation times a draw that is the same for every picture,
    whatever else is in the batch.
    """
    found = _field(output, "latent_dist", "latents", "latent", "sample")
    if isinstance(found, Tensor | np.ndarray) or not hasattr(found, "mode"):
        return _tensor(found)
    if posterior != SAMPLE or not hasattr(found, "std"):
        return _tensor(found.mode())
    draw = np.random.default_rng(_SEED).standard_normal(found.mean.shape[1:], np.float32)
    return _tensor(found.mean + found.std * torch.from_numpy(draw).to(found.mean))


def _field(output: Any, *names: str) -> Any:
    if isinstance(output, Tensor | np.ndarray):
        return output
    if type(output) in (tuple, list):
        return output[0]
    return next((getattr(output, name) for name in names if hasattr(output, name)), output)


def _tensor(output: Any, *names: str) -> Tensor:
    found = _field(output, *names)
    if isinstance(found, np.ndarray):
        found = torch.from_numpy(found)
    if not isinstance(found, Tensor):
        raise TypeError(f"expected a tensor, found {type(found).__name__}")
    return found


def load_foreign(
    name: ForeignName, *, device: str = "auto", dtype: str = "auto", posterior: str = MODE
) -> Codec:
    """Load another project's autoencoder as a codec.

    Args:
        name: see `parse_foreign`.
        device: as for `load_codec`. dtype: the number format of its weights and maps.
        posterior: ``mode``, or ``sample`` to draw from it, as some published numbers do.

    Raises:
        WeightsError: there is no such model, or it does not map pictures to latents and back.
        DeviceError: no such device.
    """
    where = place(device, dtype)
    found = find(name)
    on, number = torch.device(where.device), DTYPES[where.dtype]
    if isinstance(found.model, nn.Module):
        found.model.to(on).eval().requires_grad_(False)
        if any(weight.dtype != number for weight in found.model.parameters()):
            found.model.to(number)  # only then, since diffusers logs a warning
    autoencoder, channels, factor = _probed(found, on, number, posterior)
    space = LatentSpace(
        found.label, _digest(found), factor, Irreps.parse(f"{channels}xee"), UNCLAMPED
    )
    return Codec(
        space,
        autoencoder,
        where.device,
        where.batch_size,
        where.dtype,
        name.library,
        posterior=posterior,
    )


def _probed(
    found: ForeignModel, device: torch.device, dtype: torch.dtype, posterior: str
) -> tuple[ForeignAutoencoder, int, int]:
    """Return the model, its number of channels and its downsampling factor, found out by running it."""
    reasons = []
    for side in PROBES:
        for has_frames in (False, True):
            convention = Convention.of(found.config, has_frames)
            model = ForeignAutoencoder(found.model, convention, device, dtype, posterior)
            try:
                z = model.encode(np.zeros((1, 3, side, side), np.float32))
                if z.ndim != 4 or z.shape[2] != z.shape[3] or side % z.shape[3]:
                    raise ValueError(f"its latent of {side} x {side} pixels is {list(z.shape)}")
                image = model.decode(z)
                if image.shape != (1, 3, side, side):
                    raise ValueError(f"its picture of {side} x {side} is {list(image.shape)}")
            except Exception as error:  # theirs raise errors of every type
                reasons.append(reason_of(error).partition("\n")[0])
                continue
            return model, z.shape[1], side // z.shape[3]
    raise WeightsError(
        f"{found.label}: no autoencoder of pictures: encode of [1, 3, {PROBES[0]}, {PROBES[0]}] in [-1, 1], "
        f"then decode, gave no picture of that size ({reasons[0]})"
    )


def _digest(found: ForeignModel) -> str:
    """The sha256 of a model's config and weights; of a Python object without weights, of its source."""
    digest = hashlib.sha256(repr(sorted(found.config.items())).encode())
    digest.update(found.source)
    if isinstance(found.model, nn.Module):
        for name, tensor in sorted(found.model.state_dict().items()):
            digest.update(name.encode())
            values = tensor.detach().cpu().contiguous()
            digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
