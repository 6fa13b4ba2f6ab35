"""Options that several commands share, each written once, and what their values are read into."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Optional

import typer

from auravae_cli.cli.shared.completion import complete_device, complete_model
from auravae_cli.defaults import MODEL_VARIABLE


class StoredDtypeName(str, Enum):
    """How latents are stored."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


class ComputeDtype(str, Enum):
    """What the network computes in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Layout(str, Enum):
    """What encode writes."""

    auto = "auto"
    files = "files"
    shards = "shards"


class Runner(str, Enum):
    """What runs the shards of a store."""

    local = "local"
    ray = "ray"


class ExchangeFormat(str, Enum):
    """The formats of other projects: those of `auravae_cli.exchange.registry`."""

    comfyui = "comfyui"
    kohya = "kohya"
    musubi = "musubi"
    ai_toolkit = "ai-toolkit"
    lightningdit = "lightningdit"
    edm2 = "edm2"
    mar = "mar"
    webdataset = "webdataset"
    npy = "npy"
    npz = "npz"
    safetensors = "safetensors"
    pt = "pt"


class Pad(str, Enum):
    """What fills a picture up to multiples of the downsampling factor."""

    edge = "edge"
    reflect = "reflect"


Pictures = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="PHOTO...", help="Pictures, folders, patterns, or - for standard input."
    ),
]
Latents = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="LATENT...",
        help="Latent files, stores, folders, patterns, or - for standard input.",
    ),
]
Output = Annotated[
    Optional[str],
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A file (by its suffix), else a folder that mirrors the inputs, or - for standard output. "
        "Default: beside each input.",
    ),
]
From = Annotated[
    Optional[str],
    typer.Option(
        "--files-from", metavar="LIST", help="Also take the inputs listed in this file, one a line."
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar=MODEL_VARIABLE,
        autocompletion=complete_model,
        help="A model's name (auravae models list), or the path of a checkpoint.",
    ),
]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", autocompletion=complete_device)
]
Dtype = Annotated[
    ComputeDtype,
    typer.Option(help="What the network computes in; auto: bfloat16 on CUDA, else float32."),
]
Memory = Annotated[
    Optional[str],
    typer.Option(
        metavar="SIZE",
        help="What the network's features may take, such as 4G. A picture that needs more runs in strips: "
        "the same result, in more time. Default: most of what is free.",
    ),
]
BatchSize = Annotated[
    Optional[int],
    typer.Option(min=1, help="Pictures of one size run together. Default: 8 on a GPU, else 1."),
]
Symmetrize = Annotated[
    bool,
    typer.Option(
        "--symmetrize",
        help="Average the model over the four flips: exactly equivariant, whatever the weights, in four "
        "times the time.",
    ),
]
Store = Annotated[StoredDtypeName, typer.Option("--latent-dtype", help="How latents are stored.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Only say what this would take: padded sizes, strips, memory and time. Writes no results.",
    ),
]
Watch = Annotated[
    bool,
    typer.Option("--watch", help="Stay, and encode pictures as they appear in the folders named."),
]
Interval = Annotated[
    Optional[float],
    typer.Option(
        min=0.01,
        max=86_400,
        metavar="SECONDS",
        help="With --watch: how often to look. Default: each second.",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="One JSON object an input, on standard output.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print failures only.")]
AnyModel = Annotated[bool, typer.Option("--any-model", help="Accept latents of other weights.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse larger pictures (decompression bombs).")
]
Background = Annotated[
    str, typer.Option(metavar="COLOUR", help="What alpha is composited on: a name or #rrggbb.")
]
PadOption = Annotated[
    Pad, typer.Option(help="What fills sides up to multiples of 8; cropped again by decode.")
]
Resize = Annotated[
    Optional[int],
    typer.Option(min=1, max=65_536, metavar="N", help="Bring the short side to N pixels first."),
]
Crop = Annotated[
    Optional[str], typer.Option(metavar="X,Y,W,H", help="Cut out this part of the picture first.")
]
CenterCrop = Annotated[
    Optional[str],
    typer.Option(metavar="WxH", help="Keep the middle W x H pixels (or N for N x N)."),
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")]
Noise = Annotated[
    float,
    typer.Option(min=0.0, help="Multiply each latent value by 1 + NOISE * randn before decoding."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the noise.")]

_DATA_SETS = "Data sets"
LayoutOption = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="A latent file for each picture, or a store of shards. auto: shards for tars and URLs, and "
        "where the output is a store already.",
        rich_help_panel=_DATA_SETS,
    ),
]
BucketsOption = Annotated[
    Optional[str],
    typer.Option(
        "--buckets",
        metavar="SIDE[:STEP]",
        help="Bring each picture to the nearest of some aspect ratios, of about SIDE x SIDE pixels, with "
        "sides that are multiples of STEP (64).",
    ),
]
ShardSize = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="Loose pictures a shard, about; a tar is a shard of its own. Default: 1000.",
        rich_help_panel=_DATA_SETS,
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="Threads that decode pictures ahead of the model. Default: one a core, up to 8.",
        rich_help_panel=_DATA_SETS,
    ),
]
MaxFailures = Annotated[
    Optional[str],
    typer.Option(
        metavar="N|P%",
        help="Give up when more than N inputs, or P percent of at least 100, have failed.",
        rich_help_panel=_DATA_SETS,
    ),
]
RetryFailures = Annotated[
    bool,
    typer.Option(
        "--retry-failures",
        help="Also try again what failed in shards that are done; their latents are kept.",
        rich_help_panel=_DATA_SETS,
    ),
]
ShardIndex = Annotated[
    Optional[int],
    typer.Option(
        min=0,
        help="Be job I of the N jobs of --num-shards, counted from 0: do shards I, I + N, ... alone.",
        metavar="I",
        rich_help_panel=_DATA_SETS,
    ),
]
NumShards = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="How many jobs share the work, each with a --shard-index of its own. How many shards there are "
        "follows from --shard-size.",
        metavar="N",
        rich_help_panel=_DATA_SETS,
    ),
]
RunnerOption = Annotated[
    Runner,
    typer.Option("--runner", help="This process, or a Ray cluster.", rich_help_panel=_DATA_SETS),
]
Address = Annotated[
    Optional[str],
    typer.Option(
        help="Of a running Ray cluster. Default: start one on this machine.",
        rich_help_panel=_DATA_SETS,
    ),
]


def read_names(arguments: list[str] | None, listed: str | None) -> list[str]:
    """All inputs by name, those of the list too; typer.BadParameter where that is none."""
    from auravae_cli.errors import InputImageError
    from auravae_cli.operations.inputs import read_list

    try:
        return [*(arguments or []), *(read_list(listed) if listed else [])]
    except InputImageError as error:
        raise typer.BadParameter(str(error)) from error
