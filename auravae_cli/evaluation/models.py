"""What an evaluation judges: models of ours and of others, and reconstructions made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from auravae_cli.evaluation.reconstructions import Reconstructions, load_reconstructions
from auravae_cli.model.codec import Codec
from auravae_cli.model.spec.foreign import parse_foreign
from auravae_cli.operations.loading import Loading, codec_of

Models: TypeAlias = Mapping[str, Codec | Reconstructions]


def load_models(
    models: Sequence[str | Codec], symmetrized: bool, posterior: str, loading: Loading
) -> dict[str, Codec | Reconstructions]:
    """Return the models by label: their names, made distinct where two have the same.

    ``symmetrized`` adds each averaged over the flips; ``posterior`` is ``mode`` or ``sample``, of models that
    have one. Raises ModelError, UsageError.
    """
    found: dict[str, Codec | Reconstructions] = {}
    for place, model in enumerate(models):
        if isinstance(model, str) and model in models[:place]:
            continue  # named twice
        loaded = _load(model, posterior, loading)
        if isinstance(loaded, Reconstructions):
            label, digest = loaded.label, loaded.digest
        else:
            label, digest = loaded.space.model, loaded.space.weights_sha256
        if label in found:
            label = f"{label}-{digest[:8]}"
        found[label] = loaded
        if symmetrized and isinstance(loaded, Codec):
            found[f"{label}-symmetrized"] = loaded.symmetrized()
    return found


def _load(model: str | Codec, posterior: str, loading: Loading) -> Codec | Reconstructions:
    folder = load_reconstructions(model) if isinstance(model, str) else None
    if folder is not None:
        return folder
    foreign = parse_foreign(model) if isinstance(model, str) else None
    if foreign is None:
        return codec_of(model, ("encoder", "decoder"), loading)
    from auravae_cli.adapters.foreign import load_foreign

    device, dtype = loading.get("device", "auto"), loading.get("dtype", "auto")
    return load_foreign(foreign, device=device, dtype=dtype, posterior=posterior)


def metric_device(models: Models) -> str:
    """Return where networks of metrics run: with the models that are networks."""
    devices = [model.device for model in models.values() if isinstance(model, Codec)]
    return max(devices, key=lambda device: device != "cpu", default="cpu")
