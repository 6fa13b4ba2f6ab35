"""The options that several commands share, the types of their values, and the panels of --help."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from auravae_cli.cli.shared.completion import complete_device, complete_model
from auravae_cli.defaults import MODEL_VARIABLE, STREAM


class StoredDtypeName(str, Enum):
    """The number types that latents can be stored as."""

    float16 = "float16"
    bfloat16 = "bfloat16"
    float32 = "float32"


class ComputeDtype(str, Enum):
    """The number types that the network can compute in."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Layout(str, Enum):
    """The layouts that encode can write."""

    auto = "auto"
    files = "files"
    shards = "shards"


class Runner(str, Enum):
    """What encodes the shards of a store."""

    local = "local"
    ray = "ray"


class ExchangeFormat(str, Enum):
    """The formats of other projects: those of `auravae_cli.exchange.registry`."""

    comfyui = "comfyui"
    kohya = "kohya"
    musubi = "musubi"
    ai_toolkit = "ai-toolkit"
    simpletuner = "simpletuner"
    lightningdit = "lightningdit"
    edm2 = "edm2"
    mar = "mar"
    webdataset = "webdataset"
    parquet = "parquet"
    mds = "mds"
    litdata = "litdata"
    sana = "sana"
    repa_e = "repa-e"
    npy = "npy"
    npz = "npz"
    safetensors = "safetensors"
    pt = "pt"
    onetrainer = "onetrainer"
    diffusion_pipe = "diffusion-pipe"
    nemo = "nemo"


FORMATS = ", ".join(ExchangeFormat)
IMPORTED_ALONE = (ExchangeFormat.onetrainer, ExchangeFormat.diffusion_pipe, ExchangeFormat.nemo)
WRITTEN_FORMATS = ", ".join(form for form in ExchangeFormat if form not in IMPORTED_ALONE)


class Pad(str, Enum):
    """How a picture is padded to multiples of the downsampling factor."""

    edge = "edge"
    reflect = "reflect"


# The panels of --help. An option without one stands first, under "Options": what most people need.
INPUT, PICTURE, MODEL = "Input", "Picture", "Model"
OUTPUT, RUNNING, STORE = "Output", "Running", "Store"

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
        help="A file, if PATH has a file's suffix; otherwise a folder that mirrors the inputs; - for "
        "standard output. Default: beside each input.",
    ),
]
From = Annotated[
    Optional[str],
    typer.Option(
        "--files-from",
        metavar="LIST",
        help="Read more inputs from this file, one per line.",
        rich_help_panel=INPUT,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        envvar=MODEL_VARIABLE,
        autocompletion=complete_model,
        help="A model's name (see auravae models list) or the path of a checkpoint.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="auto, cpu, cuda, cuda:1 or mps.",
        autocompletion=complete_device,
        rich_help_panel=RUNNING,
    ),
]
Dtype = Annotated[
    ComputeDtype,
    typer.Option(
        metavar="TYPE",
        help="Compute in float32, bfloat16 or float16; auto is bfloat16 on CUDA and on CPUs that have kernels for it, otherwise float32.",
        rich_help_panel=RUNNING,
    ),
]
Memory = Annotated[
    Optional[str],
    typer.Option(
        metavar="SIZE",
        help="Limit the memory of the network's features, for example to 4G. A picture that needs more "
        "runs in strips, which takes longer and gives the same result. Default: most of the free memory.",
        rich_help_panel=RUNNING,
    ),
]
BatchSize = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        metavar="N",
        help="Run up to N pictures of one size together. Default: 8 on a GPU, otherwise 1.",
        rich_help_panel=RUNNING,
    ),
]


class Symmetry(str, Enum):
    """`--symmetrize`; see `model.codec.load_codec`."""

    auto = "auto"
    none = "none"
    mean = "mean"
    canonical = "canonical"


Symmetrize = Annotated[
    Symmetry,
    typer.Option(
        "--symmetrize",
        metavar="HOW",
        help="Make flips exact, whatever the weights. canonical runs, of the four mirror images, the one that "
        "comes first, in the same time; mean averages over the four flips, in four times the time; none "
        "runs the network as it is; auto is canonical for tied weights (only last bits change), otherwise none.",
        rich_help_panel=MODEL,
    ),
]
Store = Annotated[
    StoredDtypeName,
    typer.Option(
        "--latent-dtype",
        metavar="TYPE",
        help="Store latents as float16, bfloat16 or float32.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Write no results; show padded sizes, strips, memory and time.",
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        help="Keep running and encode pictures as they appear in the folders.",
        rich_help_panel=INPUT,
    ),
]
Interval = Annotated[
    Optional[float],
    typer.Option(
        min=0.01,
        max=86_400,
        metavar="SECONDS",
        help="Seconds between two checks of --watch. Default: 1.",
        rich_help_panel=INPUT,
    ),
]


def json_per(what: str) -> Any:
    """Return the option ``--json`` of a command that prints an object per ``what``."""
    text = f"Print one JSON object per {what} on standard output."
    return typer.Option("--json", help=text, rich_help_panel=OUTPUT)


AsJson = Annotated[bool, json_per("input")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print only failures.", rich_help_panel=OUTPUT),
]
AnyModel = Annotated[
    bool,
    typer.Option(
        "--any-model",
        help="Accept latents that were made with other weights.",
        rich_help_panel=INPUT,
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Refuse pictures of more than N pixels (decompression bombs).",
        rich_help_panel=INPUT,
    ),
]
Background = Annotated[
    str,
    typer.Option(
        metavar="COLOUR",
        help="Composite transparent pictures on this colour: a name or #rrggbb.",
        rich_help_panel=PICTURE,
    ),
]
PadOption = Annotated[
    Pad,
    typer.Option(
        help="How to pad sides to multiples of 8; decode crops the padding again.",
        rich_help_panel=PICTURE,
    ),
]
Resize = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        max=65_536,
        metavar="N",
        help="Resize the short side to N pixels.",
        rich_help_panel=PICTURE,
    ),
]
Crop = Annotated[
    Optional[str],
    typer.Option(
        metavar="X,Y,W,H",
        help="Crop to this rectangle, before everything else.",
        rich_help_panel=PICTURE,
    ),
]
CenterCrop = Annotated[
    Optional[str],
    typer.Option(
        metavar="WxH",
        help="Crop to the central W x H pixels (N means N x N), after --resize.",
        rich_help_panel=PICTURE,
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        min=1, max=100, metavar="N", help="Quality of JPEG and WebP.", rich_help_panel=OUTPUT
    ),
]
Noise = Annotated[
    float,
    typer.Option(
        min=0.0,
        metavar="X",
        help="Multiply each latent value by 1 + X * randn before decoding.",
        rich_help_panel=MODEL,
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, metavar="N", help="Seed of the noise.", rich_help_panel=MODEL)
]
LayoutOption = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="Write a latent file per picture, or a store of shards. auto: shards if an input is a tar or "
        "a URL, or if the output is a store already.",
        rich_help_panel=STORE,
    ),
]
BucketsOption = Annotated[
    Optional[str],
    typer.Option(
        "--buckets",
        metavar="SIDE[:STEP]",
        help="Resize and crop each picture to the nearest of several aspect ratios, each of about SIDE x "
        "SIDE pixels with sides that are multiples of STEP (64).",
        rich_help_panel=PICTURE,
    ),
]
BucketsOfOption = Annotated[
    Optional[str],
    typer.Option(
        "--buckets-of",
        metavar="TRAINER:SIDE",
        help="Resize and crop each picture to the size that a trainer expects: kohya:1024, musubi:1024 or "
        "ai-toolkit:1024, with its options as in kohya:768x512,max_bucket_reso=1536,bucket_no_upscale.",
        rich_help_panel=PICTURE,
    ),
]
ShardSize = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        metavar="N",
        help="Put about N loose pictures into a shard; each tar is a shard of its own. Default: 1000, or as "
        "the store was made.",
        rich_help_panel=STORE,
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        metavar="N",
        help="Threads that decode pictures ahead of the model. Default: one per core, up to 8.",
        rich_help_panel=STORE,
    ),
]
MaxFailures = Annotated[
    Optional[str],
    typer.Option(
        metavar="N|P%",
        help="Stop if more than N inputs, or P percent of at least 100, have failed.",
        rich_help_panel=RUNNING,
    ),
]
RetryFailures = Annotated[
    bool,
    typer.Option(
        "--retry-failures",
        help="Retry the failed inputs of finished shards; the shards' latents are kept.",
        rich_help_panel=STORE,
    ),
]
Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Drop from the store what is not named now. Default: it is kept.",
        rich_help_panel=STORE,
    ),
]
VerifyStore = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read finished shards, too, and make damaged ones again. Default: those whose files have "
        "changed since.",
        rich_help_panel=STORE,
    ),
]
WhichPicture = Annotated[
    Optional[str],
    typer.Option(
        "--picture",
        metavar="EXT[;EXT...]",
        help="Of samples with several pictures, take the first of these: depth.png takes 000.depth.png. "
        "Default: the one under the plain key, jpg before png before webp.",
        rich_help_panel=STORE,
    ),
]
ShardIndex = Annotated[
    Optional[int],
    typer.Option(
        min=0,
        help="Run job I of --num-shards jobs, counted from 0: encode shards I, I + N, I + 2N, ... only.",
        metavar="I",
        rich_help_panel=STORE,
    ),
]
NumShards = Annotated[
    Optional[int],
    typer.Option(
        min=1,
        help="The number of jobs that share the work, each with its own --shard-index. The number of "
        "shards follows from --shard-size.",
        metavar="N",
        rich_help_panel=STORE,
    ),
]
RunnerOption = Annotated[
    Runner,
    typer.Option(
        "--runner", help="Run in this process or on a Ray cluster.", rich_help_panel=STORE
    ),
]
Address = Annotated[
    Optional[str],
    typer.Option(
        metavar="URL",
        help="Address of a running Ray cluster. Default: start one on this machine.",
        rich_help_panel=STORE,
    ),
]


def local_path(text: str) -> Path:
    """Return the path of a local file or folder. Raises typer.BadParameter for a URL of another machine.

    As a path, it would become folders named ``https:`` and the like.
    """
    from auravae_cli.files.places import is_remote, local_name

    if is_remote(text):
        raise typer.BadParameter(f"{text}: a URL: expected a file or folder of this machine")
    return Path(local_name(text))


def read_names(arguments: list[str] | None, listed: str | None) -> list[str]:
    """Return the names given and those in the list. Raises MissingInputError if it is unreadable."""
    from auravae_cli.operations.inputs import read_list

    return [*(arguments or []), *(read_list(listed) if listed else [])]


def data_on_stdout(names: list[str], output: str | None) -> bool:
    """Return whether a result goes to standard output. Raises typer.BadParameter if that is a terminal."""
    is_data = output == STREAM or (output is None and STREAM in names)
    if is_data and sys.stdout.isatty():
        raise typer.BadParameter(
            "binary data on a terminal: pipe it, or name a file", param_hint="--output"
        )
    return is_data
