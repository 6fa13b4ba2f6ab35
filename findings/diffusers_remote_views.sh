#!/usr/bin/env bash
# diffusers 0.42.1 (`diffusers.utils.remote_utils`): `remote_decode` of a latent that is a permuted or
# transposed view sends the memory in its own order with the shape of the view, and raises nothing: the
# server decodes another latent.
#
# It matters to every server of that protocol, which cannot tell. `.contiguous()` before the call is enough.
#
# Seen: of a transposed latent nearly all values differ, of a contiguous one none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/remote.py" <<'PYTHON'
import sys

import numpy as np
import torch
from diffusers.utils.remote_utils import prepare_decode


def wrong(sent, tensor):
    found = np.frombuffer(sent["data"], np.float32).reshape(tensor.shape)
    return int((found != tensor.numpy()).sum())


latent = torch.rand(1, 16, 8, 8).transpose(2, 3)
seen = {"transposed": wrong(prepare_decode(latent, do_scaling=False), latent)}
latent = latent.contiguous()
seen["contiguous"] = wrong(prepare_decode(latent, do_scaling=False), latent)
for name, number in seen.items():
    print(f"{name}: {number} values differ")
sys.exit([number > 0 for number in seen.values()] != [True, False])
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" "$folder/remote.py"
