"""MS-SSIM against an implementation that papers use. Here, since that one needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_msssim
import torch

from auravae_cli.images.metrics import ms_ssim
from auravae_cli.images.read import read_image

SAMPLE = Path(__file__).parents[2] / "samples" / "rocket.webp"


@pytest.mark.parametrize("size", [(161, 161), (176, 192), (175, 194)], ids=str)
def test_it_agrees_with_pytorch_msssim(size):
    image = read_image(SAMPLE.read_bytes()).pixels[20 : 20 + size[0], 60 : 60 + size[1]]
    blurred = (image.astype(float) + np.roll(image, 1, axis=1)) / 2
    noise = np.random.default_rng(3).normal(0, 9, image.shape)
    other = np.clip(blurred + noise, 0, 255).astype(np.uint8)
    tensors = [torch.from_numpy(p.transpose(2, 0, 1)[None].astype("f4")) for p in (other, image)]
    expected = float(pytorch_msssim.ms_ssim(*tensors, data_range=255))
    found = ms_ssim(other, image)
    assert found == pytest.approx(expected, abs=1e-4)
    assert 0.5 < found < 0.99
