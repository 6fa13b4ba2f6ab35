#!/usr/bin/env bash
# safetensors 0.8.0 (numpy 2.4.6): `safetensors.numpy.save` and `save_file` write the memory of an array
# that is not contiguous, in memory order, and raise nothing: a transposed or strided view comes back
# with the right shape and dtype and wrong values. Up to 0.7.0 the same call wrote the values of the view.
# `safetensors.torch.save` refuses such tensors.
#
# It matters where pictures or latents are rearranged by views: HWC to CHW, a crop, every second column.
# `numpy.ascontiguousarray` before saving is enough.
#
# Seen: 0.7.0 transposed right, crop right; 0.8.0 transposed wrong, crop wrong, contiguous copy right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/views.py" <<'PYTHON'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load, save

picture = np.arange(24, dtype=np.float32).reshape(2, 4, 3)  # height, width, channel
views = {"transposed": picture.transpose(2, 0, 1), "crop": picture[:, 1:3], "contiguous copy": picture[:, 1:3].copy()}
seen = []
for name, view in views.items():
    stored = load(save({"x": view}))["x"]
    assert (stored.shape, stored.dtype) == (view.shape, view.dtype)
    seen.append(np.array_equal(stored, view))
    print(safetensors.__version__, name, "right" if seen[-1] else "wrong")
sys.exit(seen != {"0.7.0": [True, True, True], "0.8.0": [False, False, True]}[safetensors.__version__])
PYTHON
for version in 0.7.0 0.8.0; do
  python3 -m venv --clear "$folder/venv"
  "$folder/venv/bin/pip" install --quiet "safetensors==$version" "numpy==2.4.6"
  "$folder/venv/bin/python" "$folder/views.py"
done
