#!/usr/bin/env bash
# SSIM of torchmetrics 1.9.0 and of scikit-image 0.26.0 differ for the same window (Gaussian, sigma 1.5, 11 x 11), the
# same constants and the same pair of pictures, and not by rounding: scikit-image averages the windows that lie
# inside of the picture, as the original paper's code does; torchmetrics mirrors the picture at its borders and
# averages the windows around all pixels. A picture whose borders are worse than its inside, as reconstructions of
# convolutional autoencoders often are, gets 0.898 from one and 0.926 from the other here. One would expect four
# equal digits at least; so tables by one cannot be set beside tables by the other.
# Exit code 0: as described. 1: it behaves otherwise now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.0 torch==2.13.0 torchmetrics==1.9.0 scikit-image==0.26.0
"$folder/venv/bin/python" - <<'P'
import sys
from importlib.metadata import version

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

down, across = np.mgrid[:64, :80]
picture = (np.sin(across / 5) + np.cos(down / 7)) / 4 + 0.5
other = picture + np.random.default_rng(0).normal(0, 0.02, picture.shape)
other[:6] += 0.3  # the upper border is brighter
picture, other = np.clip(picture, 0, 1), np.clip(other, 0, 1)

inside, whole = structural_similarity(
    picture, other, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
)
tensors = (torch.from_numpy(x)[None, None] for x in (other, picture))
mirrored = structural_similarity_index_measure(*tensors, data_range=1.0, sigma=1.5).item()
print("scikit-image", version("scikit-image"), f"{inside:.4f}, its map over all pixels {whole.mean():.4f}")
print("torchmetrics", version("torchmetrics"), f"{mirrored:.4f}")
sys.exit(not (inside - mirrored > 0.02 and abs(mirrored - whole.mean()) < 1e-3))
P
