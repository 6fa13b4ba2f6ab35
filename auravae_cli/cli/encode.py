"""auravae encode"""

from __future__ import annotations

import typer

from auravae_cli.cli import options as opt
from auravae_cli.defaults import DEFAULT_MODEL, MAX_PIXELS


def encode(
    photos: opt.Pictures = None,
    output: opt.Output = None,
    listed: opt.From = None,
    model: opt.Model = DEFAULT_MODEL,
    store: opt.Store = opt.StoredDtypeName.float16,
    crop: opt.Crop = None,
    resize: opt.Resize = None,
    center_crop: opt.CenterCrop = None,
    pad: opt.PadOption = opt.Pad.edge,
    background: opt.Background = "white",
    max_pixels: opt.MaxPixels = MAX_PIXELS,
    device: opt.Device = "auto",
    dtype: opt.Dtype = opt.ComputeDtype.auto,
    batch_size: opt.BatchSize = None,
    overwrite: opt.Overwrite = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Encode pictures to latents: photo.jpg => photo.safetensors.

    Pictures keep their exact size: sides that are no multiples of 8 are padded, and decode crops
    the padding away again. Finished latents are skipped, so a batch can be started again.
    """
    from auravae_cli.cli.jobs import plan_jobs
    from auravae_cli.cli.preparation import read_preparation
    from auravae_cli.cli.report import Reporter
    from auravae_cli.codec import load_codec
    from auravae_cli.dtypes import STORED_DTYPES
    from auravae_cli.pipeline.encode import EncodeOptions, encode_files
    from auravae_cli.suffixes import LATENTS, PICTURE_TAGS, PICTURES

    reporter = Reporter(as_json, quiet)
    preparation = read_preparation(crop, resize, center_crop, pad.value, background)
    jobs = plan_jobs(
        photos,
        listed,
        output,
        input_suffixes=PICTURES,
        suffix=".safetensors",
        tag="",
        output_suffixes=LATENTS,
        result_tags=PICTURE_TAGS,
        reporter=reporter,
    )
    codec = load_codec(model, parts=("encoder",), device=device, dtype=dtype.value)
    options = EncodeOptions(preparation, STORED_DTYPES[store.value], max_pixels, overwrite)
    raise typer.Exit(reporter.run(encode_files(jobs, codec, options, batch_size), len(jobs)))
