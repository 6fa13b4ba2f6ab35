"""The networks beside their peers on the CPU: the same function, weights, threads and picture.

    pip install openvino onnxruntime onnx onnxscript diffusers      # each one that is missing is left out
    python benchmarks/peers.py [--models small ch32] [--sides 256 512] [--repeats 7] [--json FILE]

``small`` has its own weights, ``ch32`` random ones. The contenders: the reference's modules as they stand, in
channels-last, and through torch.compile, in float32 and in bfloat16; OpenVINO in float32 and with its bfloat16
hint; ONNX Runtime in float32; diffusers' AutoencoderKL with our widths, whose attention has other heads and
whose function is another one; and ours. They take turns, so that a noisy machine disturbs all alike: read the
ratios. In each turn a contender runs twice, and the second time counts. ``first`` is the first call, which
compiles where it must. ``error`` is the distance from the plain modules, of the result's size.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from auravae_cli import load_codec
from auravae_cli.model.network.autoencoder import Decoder, Encoder
from auravae_cli.model.network.weights import load_networks
from auravae_cli.model.spec.config import Architecture

Run = Callable[[], Any]
HERE = Path(__file__).parents[1]
PARTS = {"encoder": "encode", "decoder": "decode"}
CH32 = Architecture(ch=32, ch_mult=(1, 2, 4, 4), num_res_blocks=1, latent_channels=16)


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["small", "ch32"])
    parser.add_argument("--sides", nargs="+", type=int, default=[256, 512])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--without", nargs="+", default=[], help="contenders to leave out")
    parser.add_argument("--json", type=Path, help="write the results to this file, too")
    arguments = parser.parse_args()
    print("model  part     side  contender                       median ms    IQR  first s  error")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            path = weights(model, Path(folder))
            for part in arguments.parts:
                for side in arguments.sides:
                    rows = compare(
                        path, part, side, arguments.repeats, arguments.without, Path(folder)
                    )
                    report(model, part, side, rows)
                    results += [{"model": model, "part": part, "side": side, **row} for row in rows]
    if arguments.json:
        facts = {"date": datetime.now(UTC).date().isoformat(), **machine(), "results": results}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def weights(model: str, folder: Path) -> Path:
    """The file of an embedded model; for ``ch32``, one with random weights."""
    if model != "ch32":
        return HERE / "auravae_cli" / "weights" / f"{model}.safetensors"
    torch.manual_seed(0)
    halves = {"encoder": Encoder(CH32), "decoder": Decoder(CH32)}
    path = folder / "ch32.safetensors"
    save_file({f"{k}.{n}": t for k, m in halves.items() for n, t in m.state_dict().items()}, path)
    return path


def compare(
    path: Path, part: str, side: int, repeats: int, without: list[str], folder: Path
) -> list[dict[str, Any]]:
    """All contenders in turns, for one part of one model at one size."""
    torch.compiler.reset()
    found = dict(contenders(path, part, side, without, folder))
    firsts, results = {}, {}
    with torch.inference_mode():
        for name, run in found.items():
            start = time.perf_counter()
            results[name] = numbers(run())
            firsts[name] = time.perf_counter() - start
        times: dict[str, list[float]] = {name: [] for name in found}
        for _ in range(repeats):
            for name, run in found.items():
                run()  # what came before is over: threads that spin, caches, idle cores
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    exact = results["plain"]
    rows = []
    for name in found:
        low, median, high = statistics.quantiles(times[name], n=4)
        error = np.linalg.norm(results[name] - exact) / np.linalg.norm(exact)
        rows.append(
            {
                "contender": name,
                "median_s": median,
                "iqr_s": high - low,
                "first_s": firsts[name],
                "relative_error": None if name.startswith("diffusers") else float(error),
            }
        )
    gc.collect()
    return rows


def contenders(
    path: Path, part: str, side: int, without: list[str], folder: Path
) -> Iterator[tuple[str, Run]]:
    """Name and what runs it once, of those that are installed and not left out."""
    cpu = torch.device("cpu")
    modules, architecture = load_networks(path, (part,), cpu, torch.float32)
    module = modules[part].eval()
    torch.manual_seed(0)
    shape = (1, 3, side, side) if part == "encoder" else (1, 16, side // 8, side // 8)
    x = torch.rand(shape) * 2 - 1 if part == "encoder" else torch.randn(shape)
    exported = folder / f"{part}-{side}.onnx"
    groups: tuple[Callable[[], Iterator[tuple[str, Run]]], ...] = (
        lambda: of_torch(module, x),
        lambda: of_openvino(to_onnx(module, x, exported), x),
        lambda: of_onnxruntime(to_onnx(module, x, exported), x),
        lambda: of_diffusers(architecture, part, x),
        lambda: of_this_project(path, part, x),
    )
    for group in groups:
        try:
            for name, run in group():
                if name not in without:
                    yield name, run
        except ImportError as error:
            print(f"left out: {error.name} is not installed")


def of_torch(module: nn.Module, x: Tensor) -> Iterator[tuple[str, Run]]:
    """The modules in float32 and bfloat16, in both memory formats, as they stand and compiled."""
    for dtype, suffix in ((torch.float32, ""), (torch.bfloat16, " bfloat16")):
        plain, given = copy.deepcopy(module).to(dtype), x.to(dtype)
        last, given_last = channels_last(plain), given.contiguous(memory_format=torch.channels_last)
        if dtype == torch.float32:
            yield "plain", partial(plain, given)
            yield "compiled", partial(torch.compile(copy.deepcopy(plain)), given)
        yield f"channels-last{suffix}", partial(last, given_last)
        compiled = torch.compile(copy.deepcopy(last))
        yield f"compiled channels-last{suffix}", partial(compiled, given_last)


def of_openvino(exported: Path, x: Tensor) -> Iterator[tuple[str, Run]]:
    """OpenVINO, from the ONNX file, with as many threads as torch has."""
    import openvino as ov

    for hint, suffix in (("f32", ""), ("bf16", " bfloat16")):
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = ov.compile_model(str(exported), "CPU", settings).create_infer_request()
        yield f"OpenVINO{suffix}", partial(_first, request.infer, [x.numpy()])


def of_onnxruntime(exported: Path, x: Tensor) -> Iterator[tuple[str, Run]]:
    """ONNX Runtime in float32."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(exported), options, ["CPUExecutionProvider"])
    yield "ONNX Runtime", partial(_first, session.run, None, {"x": x.numpy()})


def to_onnx(module: nn.Module, x: Tensor, path: Path) -> Path:
    """Write the module as an ONNX file, once. Raises ImportError: onnx is not installed."""
    import onnx  # noqa: F401

    if path.exists():
        return path
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (x,), str(path), dynamo=False, input_names=["x"], opset_version=17
        )
    return path


def _first(run: Callable[..., Any], *arguments: Any) -> Any:
    return run(*arguments)[0]


def of_diffusers(architecture: Architecture, part: str, x: Tensor) -> Iterator[tuple[str, Run]]:
    """diffusers' encoder or decoder with as many channels and blocks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from diffusers import AutoencoderKL
    build: Any = AutoencoderKL
    model = build(
        block_out_channels=architecture.widths,
        down_block_types=("DownEncoderBlock2D",) * len(architecture.widths),
        up_block_types=("UpDecoderBlock2D",) * len(architecture.widths),
        layers_per_block=max(architecture.blocks),
        latent_channels=architecture.latent_channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    half: nn.Module = getattr(model, part).eval()
    last, x_last = channels_last(half), x.contiguous(memory_format=torch.channels_last)
    yield "diffusers", partial(half, x)
    yield "diffusers channels-last", partial(last, x_last)


def of_this_project(path: Path, part: str, x: Tensor) -> Iterator[tuple[str, Run]]:
    """Ours, as anybody calls it."""
    for dtype, name in (("float32", "ours"), ("bfloat16", "ours bfloat16")):
        codec = load_codec(str(path), parts=(part,), device="cpu", dtype=dtype, symmetrize="none")
        if codec.engine == "native":
            run = codec.encode_unit if part == "encoder" else codec.decode
            yield name, partial(run, x.numpy())


def numbers(result: Any) -> np.ndarray:
    """As float64, without the log-variances that the modules of an encoder give, too."""
    found = result.float().numpy() if isinstance(result, Tensor) else np.asarray(result)
    return found[:, :16].astype(np.float64)


def channels_last(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def report(model: str, part: str, side: int, rows: list[dict[str, Any]]) -> None:
    """A line each, and how ours compares with the fastest of the others."""
    for row in rows:
        error = "" if row["relative_error"] is None else f"{row['relative_error']:.1e}"
        print(
            f"{model:<6} {part}  {side:>4}  {row['contender']:<31}  {row['median_s'] * 1e3:>8.0f}"
            f"  {row['iqr_s'] * 1e3:>6.0f}  {row['first_s']:>7.1f}  {error}",
            flush=True,
        )
    times = {row["contender"]: row["median_s"] for row in rows}
    ours = min(times.pop(name) for name in ("ours", "ours bfloat16") if name in times)
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
