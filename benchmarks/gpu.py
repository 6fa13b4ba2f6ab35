"""The network on a GPU: ours against PyTorch as it comes, compiled, and diffusers, side by side.

    python benchmarks/gpu.py [--sides 256 256x8 768 2048] [--strips 8192] [--output results.json]

One architecture with random weights, the same for all contenders, but for diffusers' autoencoder of
equal widths. Contenders take turns, so that a card's clock and heat meet all alike. Times are medians
and quartiles, by CUDA events and by the clock on the wall; each stands beside its error against
float32 and the memory that it took above its weights. ``--device cpu --ch 32 --sides 64`` runs all
of it on any machine, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from auravae_cli.files.atomic import write_atomically
from auravae_cli.model.engine import engine_for
from auravae_cli.model.gpu import fused
from auravae_cli.model.gpu.channels_last import Doubling, prepare
from auravae_cli.model.gpu.cuda_graphs import Recorded
from auravae_cli.model.network.weights import PARTS
from auravae_cli.model.planning.layer_costs import Arithmetic, layers
from auravae_cli.model.planning.strip_plan import Search
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.torch_network import TorchNetwork

RESULTS = Path(__file__).parent / "results"
LEAST_ROUNDS = 3
AMPLE = 1 << 60
Function = Callable[[Tensor], Tensor]


def main() -> None:
    """Run all cases; the file of results is written after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--ch", type=int, default=256)
    parser.add_argument("--sides", nargs="*", default=["256", "256x8", "768", "2048"])
    parser.add_argument("--strips", nargs="*", type=int, default=[], help="sides to decode in rows")
    parser.add_argument("--parts", nargs="+", default=["decoder", "encoder"], choices=list(PARTS))
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--warmups", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60, help="per case, for the rounds")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    device, dtype = torch.device(options.device), getattr(torch, options.dtype)
    torch.backends.cudnn.benchmark = True
    if device.type == "cpu":  # a trial run, which is not to wait for other work on the machine
        torch.set_num_threads(1)
    architecture = Architecture(options.ch, (1, 2, 4, 4), 2, 16)
    facts = machine(device, dtype, architecture)
    now = datetime.datetime.now().strftime("%Y%m%dT%H%M%S")
    card = re.sub(r"\W+", "-", str(facts["card"])).strip("-").lower()
    output = options.output or RESULTS / f"gpu-{card}-{now}.json"
    report: dict[str, Any] = {"command": sys.argv[1:], "machine": facts, "cases": []}
    print(json.dumps(facts))
    cases = [(part, side, False) for side in options.sides for part in options.parts]
    cases += [("decoder", str(side), True) for side in options.strips]
    with torch.inference_mode():
        for part, text, in_strips in cases:
            side, _, batch = text.partition("x")
            case = Case(part, int(side), int(batch or 1), architecture, device, dtype)
            rows = case.strips() if in_strips else case.run(options)
            report["cases"].append({**case.facts, "contenders": rows})
            write_atomically(output, json.dumps(report, indent=1).encode() + b"\n")
    print(output)


def machine(device: torch.device, dtype: torch.dtype, architecture: Architecture) -> dict[str, Any]:
    """What the numbers belong to."""
    on_gpu = device.type == "cuda"
    kernels = fused.triton_kernels()
    return {
        "date": datetime.date.today().isoformat(),
        "card": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "memory": torch.cuda.get_device_properties(device).total_memory if on_gpu else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if on_gpu else None,
        "triton": kernels.triton.__version__ if kernels else None,
        "kernels": "triton" if on_gpu and kernels else "torch",
        "engine": engine_for(device, dtype),
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "dtype": str(dtype).removeprefix("torch."),
        "widths": architecture.widths,
        "threads": torch.get_num_threads(),
    }


class Case:
    """Half of the network at one size: its weights, its input, and what float32 makes of it."""

    def __init__(
        self,
        part: str,
        side: int,
        batch: int,
        architecture: Architecture,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.part, self.architecture, self.device, self.dtype = part, architecture, device, dtype
        torch.manual_seed(0)
        self.master = PARTS[part](architecture).to(device).eval().requires_grad_(False)
        cells = side // architecture.downsampling_factor
        shape = (batch, 3, side, side)
        if part == "decoder":
            shape = (batch, architecture.latent_channels, cells, cells)
        self.x = torch.randn(shape, device=device).clamp_(-1, 1).to(dtype)
        with torch.device("meta"):
            meta = PARTS[part](architecture).eval()
        with FlopCounterMode(display=False) as counter:
            meta(torch.empty(shape, device="meta"))
        self.tera = counter.get_total_flops() / 1e12
        self.facts = {"part": part, "side": side, "batch": batch, "nominal_tflop": self.tera}
        print(f"\n{part} {side} x {side}, batch {batch}, {self.tera:.4g} TFLOP nominal")

    def run(self, options: argparse.Namespace) -> list[dict[str, Any]]:
        """All contenders, in turns."""
        expected = self.network(torch.float32)(self.x.float())
        runs: dict[str, Function] = {}
        rows: dict[str, dict[str, Any]] = {}
        for name in options.contenders:
            if self.part == "encoder" and name in STEPS_UP:
                continue
            start = time.perf_counter()
            try:
                runs[name] = CONTENDERS[name](self)
                result = runs[name](self.x)
                synchronize(self.device)
            except Exception as error:  # a contender that cannot run here says so in the results
                reason = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                rows[name] = {"name": name, "error": reason}
                runs.pop(name, None)
                continue
            rows[name] = {"name": name, "first_seconds": time.perf_counter() - start}
            if name != "diffusers":  # its weights are its own
                rows[name] |= errors(result, expected, self.part)
            for _ in range(options.warmups):
                runs[name](self.x)
            rows[name]["peak_bytes"] = self.peak(runs[name])
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        end = time.monotonic() + options.seconds
        for number in range(options.rounds):
            if number >= LEAST_ROUNDS and time.monotonic() > end:
                break
            for name, function in runs.items():
                times[name].append(timed(function, self.x))
        for name, pairs in times.items():
            rows[name] |= summary(pairs, self.tera)
        for row in rows.values():
            print(line(row))
        return list(rows.values())

    def strips(self) -> list[dict[str, Any]]:
        """Once, in rows, within the memory that there is: nothing else decodes such a picture."""
        row: dict[str, Any] = {"name": "strips"}
        try:
            # No budget: most of what is free. What fits as a whole would run as a whole.
            run = self.network(self.dtype, None if self.device.type == "cuda" else 1 << 26)
            before = self.allocated(reset=True)
            row |= summary([timed(run, self.x)], self.tera)
            row["peak_bytes"] = None if before is None else self.allocated() - before
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        print(line(row))
        return [row]

    def network(self, dtype: torch.dtype, memory: int | None = None) -> Function:
        """The modules, in rows where the memory asks for it."""
        module = copy.deepcopy(self.master).to(dtype)
        network = TorchNetwork({self.part: module}, self.architecture, self.device, dtype, memory)
        return network.decode if self.part == "decoder" else network.encode

    def peak(self, function: Function) -> int | None:
        """The most memory that a run takes above what is there already."""
        before = self.allocated(reset=True)
        function(self.x)
        return None if before is None else (self.allocated() or 0) - before

    def allocated(self, reset: bool = False) -> Any:
        """The most bytes that torch held on the GPU since it was asked to forget; None on a CPU."""
        if self.device.type != "cuda":
            return None
        synchronize(self.device)
        if reset:
            torch.cuda.reset_peak_memory_stats(self.device)
        return torch.cuda.max_memory_allocated(self.device)


def modules(case: Case) -> nn.Module:
    """The reference's modules in the number format of the case."""
    return copy.deepcopy(case.master).to(case.dtype)


def channels_last(case: Case) -> Function:
    """The same modules, with weights and input in channels-last memory."""
    module = modules(case).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: module(x.contiguous(memory_format=torch.channels_last))


def compiled(case: Case, mode: str | None = None, layout: bool = False) -> Function:
    """The modules through torch.compile, which sees one shape alone."""
    torch._dynamo.reset()
    module = modules(case)
    if layout:
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = torch.compile(module, mode=mode, dynamic=False)
    return lambda x: run(x).clone()


def ours(case: Case) -> Function:
    """Prepared for a GPU."""
    return prepare(copy.deepcopy(case.master), case.dtype)


def ours_with(form: str) -> Callable[[Case], Function]:
    """The same, with one form of the step up everywhere."""

    def build(case: Case) -> Function:
        run = ours(case)
        for level in getattr(run, "_levels", []):
            doubling = level._up
            if isinstance(doubling, Doubling):
                doubling._chosen = dict.fromkeys(range(64), getattr(doubling, form))
        return run

    return build


def recorded(case: Case) -> Function:
    """The same, played back as a CUDA graph."""
    if case.device.type != "cuda":
        raise ValueError("CUDA graphs need a GPU")
    run = ours(case)
    run(case.x)
    return Recorded(run, case.x, None)


def in_strips(case: Case) -> Function:
    """The modules in rows, with a quarter of the memory that they would take as a whole."""
    scale = case.architecture.downsampling_factor if case.part == "decoder" else 1
    pixels = len(case.x) * case.x.shape[2] * case.x.shape[3] * scale**2
    if len(case.x) > 1:
        raise ValueError("rows are for one picture at a time")
    features = pixels * case.architecture.ch * case.dtype.itemsize
    height, width = (scale * side for side in case.x.shape[2:])
    arithmetic = Arithmetic(case.dtype.itemsize, winograd=False, is_plain=True)
    chain = tuple(layers(case.architecture, case.part))
    least = Search(chain, 1, height, width, arithmetic).least()
    return case.network(case.dtype, max(5 * features // 2, 2 * least))


def diffusers(case: Case) -> Function:
    """The autoencoder of diffusers with equal widths: other attention, one more 1x1 convolution."""
    from diffusers import AutoencoderKL

    widths = case.architecture.widths
    model = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=max(case.architecture.blocks),
        latent_channels=case.architecture.latent_channels,
    )
    module: nn.Module = getattr(model, case.part)
    return module.to(case.device, case.dtype).eval()


CONTENDERS: dict[str, Callable[[Case], Function]] = {
    "modules": modules,
    "modules, channels-last": channels_last,
    "torch.compile": compiled,
    "torch.compile, channels-last": lambda case: compiled(case, layout=True),
    "torch.compile, reduce-overhead": lambda case: compiled(case, "reduce-overhead"),
    "diffusers": diffusers,
    "ours": ours,
    "ours, transposed": ours_with("transposed"),
    "ours, merged": ours_with("merged"),
    "ours, graph": recorded,
    "strips": in_strips,
}
STEPS_UP = ("ours, transposed", "ours, merged")  # an encoder has none


def synchronize(device: torch.device) -> None:
    """Wait for all that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(function: Function, x: Tensor) -> tuple[float, float]:
    """Milliseconds of one run: by CUDA events (NaN on a CPU), and on the wall."""
    synchronize(x.device)
    on_gpu = x.is_cuda
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if on_gpu else []
    start = time.perf_counter()
    if on_gpu:
        events[0].record()
    function(x)
    if on_gpu:
        events[1].record()
    synchronize(x.device)
    wall = 1000 * (time.perf_counter() - start)
    return (events[0].elapsed_time(events[1]) if on_gpu else float("nan")), wall


def summary(pairs: list[tuple[float, float]], tera: float) -> dict[str, Any]:
    """Medians and quartiles, and the rate at which the nominal work was done."""
    found: dict[str, Any] = {"rounds": len(pairs)}
    for name, values in zip(("event_ms", "wall_ms"), zip(*pairs, strict=True), strict=True):
        if values[0] == values[0]:  # not NaN
            quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
            found[name] = statistics.median(values)
            found[f"{name}_quartiles"] = [quartiles[0], quartiles[2]]
    found["nominal_tflops"] = 1000 * tera / found.get("event_ms", found["wall_ms"])
    return found


def errors(result: Tensor, expected: Tensor, part: str) -> dict[str, float]:
    """How far a result is from that in float32; of pictures also in 8-bit steps."""
    difference = (result.double() - expected.double()).abs()
    found = {
        "largest_error": float(difference.max()),
        "relative_error": float(difference.norm() / expected.double().norm()),
    }
    if part == "decoder":
        bytes_of = [((x.float() + 1) * 127.5).round().clamp(0, 255) for x in (result, expected)]
        found["largest_8bit_step"] = float((bytes_of[0] - bytes_of[1]).abs().max())
    return found


def line(row: dict[str, Any]) -> str:
    """A contender in one line."""
    if "error" in row:
        return f"{row['name']:32s} {row['error'][:100]}"
    quartiles = row["wall_ms_quartiles"]
    event = f"{row['event_ms']:9.2f}" if "event_ms" in row else "        -"
    text = f"{row['name']:32s} {event} ms  wall {row['wall_ms']:9.2f}"
    text += f" ({quartiles[0]:.2f} to {quartiles[1]:.2f})  {row['nominal_tflops']:6.1f} TFLOP/s"
    if "relative_error" in row:
        text += f"  error {row['relative_error']:.1e}"
    if row.get("peak_bytes") is not None:
        text += f"  peak {row['peak_bytes'] / 2**20:,.0f} MiB"
    return text


if __name__ == "__main__":
    main()
