"""rFID: the Frechet distance between Inception features of pictures and of their reconstructions.

Computed by torchmetrics with torch-fidelity's network (the extra ``metrics``), whose weights are a
file that the user names: nothing is downloaded. Features, 2048 numbers, are kept per picture, so a
run can resume.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auravae_cli.errors import WeightsError
from auravae_cli.images.read import Pixels

FEATURES = 2048
_AT_ONCE = 1000  # pictures whose features are added together
WEIGHTS_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"

Extract = Callable[[Pixels], str]


def load_inception(weights: str, device: str) -> Extract:
    """Return a function from a uint8 picture [H, W, 3] to its features as text, for `features_of`.

    Raises:
        WeightsError: the extra is not installed, or the file holds other weights.
    """
    if not Path(weights).is_file():
        raise WeightsError(
            f"{weights}: no such file; rFID needs Inception's weights, once from {WEIGHTS_URL}"
        )
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance

        metric = FrechetInceptionDistance(feature=FEATURES, feature_extractor_weights_path=weights)
    except (ImportError, ModuleNotFoundError):
        raise WeightsError(
            "rFID needs torchmetrics and torch-fidelity: pip install 'torchmetrics[image]'"
        ) from None
    except Exception as error:  # torch raises errors of every type on foreign files
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"{weights}: not the weights of Inception ({reason}); fetch them from {WEIGHTS_URL}"
        ) from error
    import torch

    network = metric.inception.to(device).eval()

    def extract(pixels: Pixels) -> str:
        batch = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            features = network(batch.to(device)).float().cpu().numpy()
        return to_text(features.reshape(-1))

    return extract


def to_text(features: NDArray[np.float32]) -> str:
    """Return features as text for a results file."""
    return base64.b64encode(features.astype("<f4").tobytes()).decode()


def features_of(text: str) -> NDArray[np.float32]:
    """Parse the result of `to_text`."""
    return np.frombuffer(base64.b64decode(text), "<f4")


def frechet_distance(originals: Sequence[str], reconstructions: Sequence[str]) -> float | None:
    """Return the rFID of pictures from their features; None for fewer than two. Raises WeightsError."""
    if len(originals) < 2:
        return None
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except (ImportError, ModuleNotFoundError):
        raise WeightsError(
            "rFID needs torchmetrics and torch-fidelity: pip install 'torchmetrics[image]'"
        ) from None
    import torch

    class Given(torch.nn.Module):
        """A replacement of the network for features that are known already."""

        num_features = len(features_of(originals[0]))

        def forward(self, features: Any) -> Any:
            return features

    metric = FrechetInceptionDistance(feature=Given())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for texts, is_real in ((originals, True), (reconstructions, False)):
            for start in range(0, len(texts), _AT_ONCE):
                some = [features_of(text) for text in texts[start : start + _AT_ONCE]]
                metric.update(torch.from_numpy(np.stack(some, dtype=np.float64)), real=is_real)
        return max(0.0, float(metric.compute()))  # rounding can make that of equal sets negative
