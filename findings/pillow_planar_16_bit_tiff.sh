#!/usr/bin/env bash
# Pillow 13.0.0 opens a planar (PlanarConfiguration 2) RGB TIFF of 16 bits, without compression, and gives
# pixels that are not in the file, without an error or a warning: it takes each byte of a plane for a sample. One would expect the high bytes, as of the same
# picture with its samples side by side, or a refusal. tifffile reads both, equally.
# Exit code 0: as described. 1: it behaves otherwise now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6
"$folder/venv/bin/python" - <<'P'
import io, sys
import numpy as np, PIL, tifffile
from PIL import Image

print("Pillow", PIL.__version__, "tifffile", tifffile.__version__)
values = np.zeros((16, 16, 3), np.uint16)
values[:, 8:] = (40000, 20000, 10000)  # black on the left
seen = {}
for plan in ("contig", "separate"):
    buffer = io.BytesIO()
    shaped = values if plan == "contig" else values.transpose(2, 0, 1)
    tifffile.imwrite(buffer, shaped, photometric="rgb", planarconfig=plan)
    buffer.seek(0)
    assert tuple(np.unique(tifffile.imread(buffer))) == (0, 10000, 20000, 40000), "the file is not sound"
    with Image.open(buffer) as image:
        mode, pixels = image.mode, np.asarray(image)
    seen[plan] = pixels[2, 13].tolist()
    print(f"{plan:8} {mode}: (40000, 20000, 10000) => Pillow's {seen[plan]}; expected [156, 78, 39]")
sys.exit(seen != {"contig": [156, 78, 39], "separate": [0, 0, 0]})
P
# Output, November 2026:
#   Pillow 13.0.0 tifffile 2026.3.3
#   contig   RGB: (40000, 20000, 10000) => Pillow's [156, 78, 39]; expected [156, 78, 39]
#   separate RGB: (40000, 20000, 10000) => Pillow's [0, 0, 0]; expected [156, 78, 39]
