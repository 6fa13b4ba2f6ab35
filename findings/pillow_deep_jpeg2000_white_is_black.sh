#!/usr/bin/env bash
# Pillow 13.0.0 opens a JPEG 2000 picture of 12 or 16 bits a sample as RGB of 8 bits. One would expect the
# high byte of each sample, or the sample rounded and clipped to 255. It rounds, and does not clip: the highest
# samples (from 65408 of 65535 on, from 4088 of 4095 on) come out as 0. White turns black, without a warning.
# imagecodecs (OpenJPEG, as Pillow) gives the samples back exactly, so the file is sound.
# Exit code 0: as described. 1: it behaves otherwise now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 imagecodecs==2026.3.6 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import io, sys
import imagecodecs, numpy as np, PIL
from PIL import Image

print("Pillow", PIL.__version__, "imagecodecs", imagecodecs.__version__)
seen = {}
for bits, samples in ((16, (0, 32768, 65407, 65408, 65535)), (12, (0, 2048, 4087, 4088, 4095))):
    values = np.zeros((16, 16, 3), np.uint16)
    values[: len(samples)] = np.array(samples)[:, None, None]
    data = imagecodecs.jpeg2k_encode(values, bitspersample=bits, level=0, reversible=True)
    assert (imagecodecs.jpeg2k_decode(data) == values).all(), "the file is not sound"
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    seen[bits] = [int(pixels[row, 0, 0]) for row in range(len(samples))]
    print(f"{bits} bits: samples {list(samples)} => Pillow's {seen[bits]}; expected 255 at the end")
expected = {16: [0, 128, 255, 0, 0], 12: [0, 128, 255, 0, 0]}
sys.exit(seen != expected)
P
# Output, November 2026:
#   Pillow 13.0.0 imagecodecs 2026.3.6
#   16 bits: samples [0, 32768, 65407, 65408, 65535] => Pillow's [0, 128, 255, 0, 0]; expected 255 at the end
#   12 bits: samples [0, 2048, 4087, 4088, 4095] => Pillow's [0, 128, 255, 0, 0]; expected 255 at the end
