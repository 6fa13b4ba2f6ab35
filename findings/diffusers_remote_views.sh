#!/usr/bin/env bash
# diffusers 0.42.1 (`diffusers.utils.remote_utils`): the remote VAE client sends wrong bytes for tensors that
# are not contiguous, and raises nothing.
#
# `remote_encode` sends `_to_ndarray(image.contiguous())[0].tobytes()`: the contiguous copy is freed
# before its memory is read, since only the array [0] is kept, which does not own it. A few values, at the
# start and the end of what was freed, are garbage: a picture that `VaeImageProcessor.preprocess` made (a
# permuted view) is encoded with wrong corners. `remote_decode` sends `_to_ndarray(tensor)[0].tobytes()`: the
# memory in its own order, so a flipped or permuted latent arrives as the one that it is a view of.
#
# It matters to every server of that protocol, which cannot tell. `.contiguous()` before the call is enough.
#
# Seen: of a permuted picture 1 to 12 values differ; of a transposed latent nearly all; of contiguous ones none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/remote.py" <<'PYTHON'
import sys

import numpy as np
import torch
from diffusers.utils.remote_utils import prepare_decode, prepare_encode


def wrong(sent, tensor):
    found = np.frombuffer(sent["data"], np.float32).reshape(tensor.shape)
    return int((found != tensor.numpy()).sum())


picture = torch.rand(1, 64, 96, 3).permute(0, 3, 1, 2)
latent = torch.rand(1, 16, 8, 8).transpose(2, 3)
seen = {
    "encode, permuted": max(wrong(prepare_encode(picture), picture) for _ in range(20)),
    "decode, transposed": wrong(prepare_decode(latent, do_scaling=False), latent),
}
picture, latent = picture.contiguous(), latent.contiguous()
seen["encode, contiguous"] = wrong(prepare_encode(picture), picture)
seen["decode, contiguous"] = wrong(prepare_decode(latent, do_scaling=False), latent)
for name, number in seen.items():
    print(f"{name}: {number} values differ")
sys.exit([number > 0 for number in seen.values()] != [True, True, False, False])
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet diffusers==0.42.1 safetensors==0.8.0 numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" "$folder/remote.py"
