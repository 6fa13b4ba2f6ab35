"""An image autoencoder whose latent space is equivariant under flips.

    import auravae

    codec = auravae.load_codec()
    latent = codec.encode_image("photo.jpg")
    mirrored = codec.decode_latent(latent.flip("h"))

What the commands do to many files is a call, too: `encode_files`, `encode_store`, `evaluate` and
others (docs/python.md).

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
    from auravae_cli.diagnostics.doctor import Check as Check, diagnose as diagnose
    from auravae_cli.errors import AuraVaeError as AuraVaeError, UsageError as UsageError
    from auravae_cli.evaluation.measure import MeasureOptions as MeasureOptions
    from auravae_cli.evaluation.run import EvalOptions as EvalOptions
    from auravae_cli.evaluation.session import (
        EvaluationFiles as EvaluationFiles,
        evaluate as evaluate,
    )
    from auravae_cli.exchange.export import export_latents as export_latents
    from auravae_cli.exchange.import_files import import_files as import_files
    from auravae_cli.exchange.import_store import import_store as import_store
    from auravae_cli.forecast.benchmark import benchmark as benchmark
    from auravae_cli.forecast.predict import (
        predict_decode as predict_decode,
        predict_encode as predict_encode,
        predict_encode_store as predict_encode_store,
        predict_roundtrip as predict_roundtrip,
    )
    from auravae_cli.images.metrics import ms_ssim as ms_ssim, psnr as psnr, ssim as ssim
    from auravae_cli.images.prepare import Preparation as Preparation
    from auravae_cli.images.trainer_buckets import parse_buckets as parse_buckets
    from auravae_cli.latents.latent_file import LatentFile as LatentFile, stack as stack
    from auravae_cli.model.codec import Codec as Codec, load_codec as load_codec
    from auravae_cli.model.latent import Latent as Latent, read_latents as read_latents
    from auravae_cli.operations.batches import FailureLimit as FailureLimit, Outcome as Outcome
    from auravae_cli.operations.decode import decode_files as decode_files
    from auravae_cli.operations.encode import encode_files as encode_files
    from auravae_cli.operations.encode_store import encode_store as encode_store
    from auravae_cli.operations.flip import flip_files as flip_files
    from auravae_cli.operations.roundtrip import roundtrip_files as roundtrip_files
    from auravae_cli.operations.watch import watch_folders as watch_folders
    from auravae_cli.store.commit import ShardOutcome as ShardOutcome
    from auravae_cli.store.flip import flip_store as flip_store
    from auravae_cli.store.verify import verify_store as verify_store
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
    from auravae_cli.train.session import train_model as train_model

_HOME = {
    "AuraVaeError": "errors",
    "BucketBatchSampler": "datasets.bucket_sampler",
    "Check": "diagnostics.doctor",
    "Codec": "model.codec",
    "E": "symmetry.group",
    "EvalOptions": "evaluation.run",
    "EvaluationFiles": "evaluation.session",
    "FailureLimit": "operations.batches",
    "GROUP": "symmetry.group",
    "GroupElement": "symmetry.group",
    "H": "symmetry.group",
    "HV": "symmetry.group",
    "Irreps": "symmetry.group",
    "IterableLatentDataset": "datasets.latent_dataset",
    "LatentDataset": "datasets.latent_dataset",
    "Latent": "model.latent",
    "LatentFile": "latents.latent_file",
    "MeasureOptions": "evaluation.measure",
    "Outcome": "operations.batches",
    "Preparation": "images.prepare",
    "ShardOutcome": "store.commit",
    "UsageError": "errors",
    "V": "symmetry.group",
    "act": "symmetry.action",
    "benchmark": "forecast.benchmark",
    "decode_files": "operations.decode",
    "diagnose": "diagnostics.doctor",
    "encode_files": "operations.encode",
    "encode_store": "operations.encode_store",
    "evaluate": "evaluation.session",
    "export_latents": "exchange.export",
    "flip_files": "operations.flip",
    "flip_store": "store.flip",
    "import_files": "exchange.import_files",
    "import_store": "exchange.import_store",
    "load_codec": "model.codec",
    "ms_ssim": "images.metrics",
    "parse_buckets": "images.trainer_buckets",
    "predict_decode": "forecast.predict",
    "predict_encode": "forecast.predict",
    "predict_encode_store": "forecast.predict",
    "predict_roundtrip": "forecast.predict",
    "psnr": "images.metrics",
    "read_latents": "model.latent",
    "roundtrip_files": "operations.roundtrip",
    "ssim": "images.metrics",
    "stack": "latents.latent_file",
    "train_model": "train.session",
    "verify_store": "store.verify",
    "watch_folders": "operations.watch",
}
__all__ = [  # a test holds it to the names of _HOME, sorted
    "AuraVaeError",
    "BucketBatchSampler",
    "Check",
    "Codec",
    "E",
    "EvalOptions",
    "EvaluationFiles",
    "FailureLimit",
    "GROUP",
    "GroupElement",
    "H",
    "HV",
    "Irreps",
    "IterableLatentDataset",
    "Latent",
    "LatentDataset",
    "LatentFile",
    "MeasureOptions",
    "Outcome",
    "Preparation",
    "ShardOutcome",
    "UsageError",
    "V",
    "__version__",
    "act",
    "benchmark",
    "decode_files",
    "diagnose",
    "encode_files",
    "encode_store",
    "evaluate",
    "export_latents",
    "flip_files",
    "flip_store",
    "import_files",
    "import_store",
    "load_codec",
    "ms_ssim",
    "parse_buckets",
    "predict_decode",
    "predict_encode",
    "predict_encode_store",
    "predict_roundtrip",
    "psnr",
    "read_latents",
    "roundtrip_files",
    "ssim",
    "stack",
    "train_model",
    "verify_store",
    "watch_folders",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'auravae_cli' has no attribute {name!r}")
    return getattr(importlib.import_module(f"auravae_cli.{_HOME[name]}"), name)
