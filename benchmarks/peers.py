"""The networks beside their peers on the CPU: the same arithmetic, the same weights' shapes, threads and format.

    python benchmarks/peers.py [--sides 256 512] [--repeats 7] [--json FILE]

The contenders: the reference's modules as they stand; the same in channels-last; both through
torch.compile; diffusers' AutoencoderKL with our widths, whose attention has other heads and whose
function is another one, so that it has no parity; and ours. They take turns, so that a noisy machine
disturbs all alike: read the ratios. In each turn a contender runs twice, and the second time counts.
``first`` is the first call, which compiles where it must.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.torch_network import TorchNetwork

MODELS = {  # name: ch, ch_mult
    "small": (32, (3, 2, 4, 8)),
    "ch32": (32, (1, 2, 4, 4)),
}


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--parts", nargs="+", default=["decode", "encode"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without", nargs="+", default=[], help="contenders to leave out")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    arguments = parser.parse_args()
    print("model  part    side  contender                median ms    IQR   first s   error")
    results = []
    for model in arguments.models:
        for part in arguments.parts:
            for side in arguments.sides:
                torch.manual_seed(0)
                rows = compare(model, part, side, arguments.repeats, arguments.without)
                report(model, part, side, rows)
                results += [{"model": model, "part": part, "side": side, **row} for row in rows]
    if arguments.json:
        facts = {"date": datetime.now(UTC).date().isoformat(), **machine(), "results": results}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def compare(
    model: str, part: str, side: int, repeats: int, without: list[str]
) -> list[dict[str, Any]]:
    """All contenders in turns, for one part of one model at one size."""
    runs = {k: run for k, run in contenders(model, part, side).items() if k not in without}
    firsts, results = {}, {}
    with torch.inference_mode():
        for name, run in runs.items():
            start = time.perf_counter()
            results[name] = run()
            firsts[name] = time.perf_counter() - start
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                run()  # what came before is over: threads that spin, caches, idle cores
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    exact = results["plain"]
    rows = []
    for name in runs:
        low, median, high = statistics.quantiles(times[name], n=4)
        same = not name.startswith("diffusers")
        error = float((results[name] - exact).norm() / exact.norm()) if same else None
        rows.append(
            {
                "contender": name,
                "median_s": median,
                "iqr_s": high - low,
                "first_s": firsts[name],
                "relative_error": error,
            }
        )
    gc.collect()
    return rows


def contenders(model: str, part: str, side: int) -> dict[str, Callable[[], Tensor]]:
    """Name => what runs it once."""
    ch, mult = MODELS[model]
    architecture = Architecture(ch=ch, ch_mult=mult, num_res_blocks=1, latent_channels=16)
    module: nn.Module = (Encoder if part == "encode" else Decoder)(architecture).eval()
    shape = (1, 3, side, side) if part == "encode" else (1, 16, side // 8, side // 8)
    x = torch.randn(shape)
    last, x_last = channels_last(module), x.contiguous(memory_format=torch.channels_last)
    ours = TorchNetwork({f"{part}r": module}, architecture, x.device, x.dtype)
    torch.compiler.reset()
    compiled, compiled_last = torch.compile(copy.deepcopy(module)), torch.compile(last)
    found: dict[str, Callable[[], Tensor]] = {
        "plain": lambda: module(x),
        "channels-last": lambda: last(x_last),
        "compiled": lambda: compiled(x),
        "compiled channels-last": lambda: compiled_last(x_last),
        "ours": lambda: getattr(ours, part)(x),
    }
    try:
        foreign = diffusers_model(architecture, part)
    except ImportError:
        return found
    foreign_last = channels_last(foreign)
    found["diffusers"] = lambda: foreign(x)
    found["diffusers channels-last"] = lambda: foreign_last(x_last)
    return found


def channels_last(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def diffusers_model(architecture: Architecture, part: str) -> nn.Module:
    """diffusers' encoder or decoder with as many channels and blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderKL
    build: Any = AutoencoderKL
    model = build(
        block_out_channels=architecture.widths,
        down_block_types=("DownEncoderBlock2D",) * len(architecture.widths),
        up_block_types=("UpDecoderBlock2D",) * len(architecture.widths),
        layers_per_block=architecture.num_res_blocks,
        latent_channels=architecture.latent_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    half: nn.Module = model.encoder if part == "encode" else model.decoder
    return half.eval()


def report(model: str, part: str, side: int, rows: list[dict[str, Any]]) -> None:
    """A line each, and how ours compares with the fastest of the others."""
    for row in rows:
        error = "" if row["relative_error"] is None else f"{row['relative_error']:.1e}"
        print(
            f"{model:<6} {part}  {side:>5}  {row['contender']:<23}  {row['median_s'] * 1e3:>8.0f}"
            f"  {row['iqr_s'] * 1e3:>6.0f}  {row['first_s']:>7.1f}   {error}",
            flush=True,
        )
    times = {row["contender"]: row["median_s"] for row in rows}
    ours = times.pop("ours")
    fastest = min(times, key=lambda name: times[name])
    print(f"=> {times[fastest] / ours:.2f} times as fast as {fastest}", flush=True)


def machine() -> dict[str, Any]:
    """What the times were measured on."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


if __name__ == "__main__":
    main()
