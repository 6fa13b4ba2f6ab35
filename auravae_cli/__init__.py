"""An image autoencoder whose latent space is equivariant under flips.

    from auravae_cli import H, load_codec

    codec = load_codec()
    latent = codec.encode_image("photo.jpg")
    mirrored = codec.decode_latent(latent.act(H))

Names are loaded when they are used: importing this package imports neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from auravae_cli.version import __version__ as __version__

if TYPE_CHECKING:
    from auravae_cli.datasets.bucket_sampler import BucketBatchSampler as BucketBatchSampler
    from auravae_cli.datasets.latent_dataset import (
        IterableLatentDataset as IterableLatentDataset,
        LatentDataset as LatentDataset,
    )
    from auravae_cli.errors import AuraVaeError as AuraVaeError
    from auravae_cli.images.metrics import ms_ssim as ms_ssim, psnr as psnr, ssim as ssim
    from auravae_cli.images.prepare import Preparation as Preparation
    from auravae_cli.latents.latent_file import (
        LatentFile as LatentFile,
        read_latents as read_latents,
        stack as stack,
    )
    from auravae_cli.model.codec import Codec as Codec, load_codec as load_codec
    from auravae_cli.symmetry.action import act as act
    from auravae_cli.symmetry.group import (
        GROUP as GROUP,
        HV as HV,
        E as E,
        GroupElement as GroupElement,
        H as H,
        Irreps as Irreps,
        V as V,
    )

_HOME = {
    "AuraVaeError": "errors",
    "BucketBatchSampler": "datasets.bucket_sampler",
    "Codec": "model.codec",
    "E": "symmetry.group",
    "GROUP": "symmetry.group",
    "GroupElement": "symmetry.group",
    "H": "symmetry.group",
    "HV": "symmetry.group",
    "Irreps": "symmetry.group",
    "IterableLatentDataset": "datasets.latent_dataset",
    "LatentDataset": "datasets.latent_dataset",
    "LatentFile": "latents.latent_file",
    "Preparation": "images.prepare",
    "V": "symmetry.group",
    "act": "symmetry.action",
    "load_codec": "model.codec",
    "ms_ssim": "images.metrics",
    "psnr": "images.metrics",
    "read_latents": "latents.latent_file",
    "ssim": "images.metrics",
    "stack": "latents.latent_file",
}
__all__ = [  # a test holds it to the names of _HOME, sorted
    "AuraVaeError",
    "BucketBatchSampler",
    "Codec",
    "E",
    "GROUP",
    "GroupElement",
    "H",
    "HV",
    "Irreps",
    "IterableLatentDataset",
    "LatentDataset",
    "LatentFile",
    "Preparation",
    "V",
    "__version__",
    "act",
    "load_codec",
    "ms_ssim",
    "psnr",
    "read_latents",
    "ssim",
    "stack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'auravae_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(f"auravae_cli.{_HOME[name]}"), name)
