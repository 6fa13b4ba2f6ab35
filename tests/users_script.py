"""What a user's type checker sees: mypy checks this file, and nothing runs it.

`scripts/check_release.py` checks it against an installed wheel as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import auravae
import auravae_cli
from auravae import Codec, Latent, Outcome


def main(photo: Path) -> None:
    """Use the calls that most programs use."""
    codec = auravae.load_codec("linear", device="cpu")
    assert_type(codec, Codec)
    latent = codec.encode_image(photo, dtype="bfloat16")
    assert_type(latent, Latent)
    assert_type(latent.flip("h"), Latent)
    assert_type(latent.row(0), Latent)
    assert_type(auravae.read_latents(latent.save("z.safetensors")), Latent)
    assert_type(auravae.act("h", latent), Latent)
    assert_type(auravae.stack(codec.encode_images([photo, photo])), Latent)
    outcomes = auravae_cli.encode_files(photo, "out", model=codec, latent_dtype="float32")
    assert_type(outcomes, list[Outcome])
    height, width, _ = codec.decode_latent(latent).shape
    print(height, width, latent.shape, latent.to_torch("cuda"), latent.preview().size)
