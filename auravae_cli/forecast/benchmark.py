"""Measure how fast a model is on this machine, relative to the machine's peak.

Times are medians over repeats after a warm-up. Operations are nominal, for direct convolutions, so
Winograd's method, which needs fewer, can exceed the measured peak.
"""

from __future__ import annotations

import multiprocessing
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from auravae_cli.defaults import DEFAULT_MODEL
from auravae_cli.forecast.run_setting import RunSetting, find_setting
from auravae_cli.machine.meter import Meter
from auravae_cli.machine.progress import Phase, Progress, begin, follow
from auravae_cli.machine.speeds import processor, torch_version
from auravae_cli.model.codec import Codec, load_codec
from auravae_cli.model.planning.layer_costs import nominal_flops
from auravae_cli.model.spec.config import IMAGE_CHANNELS
from auravae_cli.symmetry.action import act_into
from auravae_cli.symmetry.group import H
from auravae_cli.version import __version__

OPERATIONS = ("encode", "decode", "flip", "startup")
SIZES = ((256, 256), (512, 512))  # (height, width)
PARTS = {"encode": "encoder", "decode": "decoder"}
MATRIX_SIDE = {"cpu": 2048, "gpu": 8192}
COPIED_BYTES = {"cpu": 1 << 28, "gpu": 1 << 31}
PEAK_REPEATS = 5
FLIP_SECONDS = 0.02  # the least duration of repeated flips in one measurement
COMMANDS = {
    "import torch": ("-c", "import torch"),
    "auravae --help": ("-m", "auravae_cli", "--help"),
}


@dataclass(frozen=True)
class Request:
    """What to measure. ``sizes`` are (height, width) in pixels."""

    model: str
    sizes: tuple[tuple[int, int], ...]
    operations: tuple[str, ...] = OPERATIONS
    batch_size: int = 1
    repeats: int = 5
    device: str = "auto"
    dtype: str = "auto"
    memory: int | None = None


@dataclass(frozen=True)
class Measurement:
    """One operation: the seconds of each repeat, and the work of each.

    ``flops`` and ``moved`` (bytes read and written) are None if not meaningful; ``memory`` is the peak
    beside the weights.
    """

    operation: str
    seconds: tuple[float, ...]
    size: tuple[int, int] | None = None
    batch_size: int = 1
    flops: int | None = None
    moved: int | None = None
    memory: int | None = None

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and upper quartile of the seconds."""
        if len(self.seconds) == 1:
            return self.seconds[0], self.seconds[0]
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def to_json(self, peaks: Peaks) -> dict[str, Any]:
        """Return the numbers, and their share of the machine's peaks."""
        low, high = self.quartiles
        content: dict[str, Any] = {
            "operation": self.operation,
            "size": None if self.size is None else list(self.size),
            "batch_size": self.batch_size,
            "median_seconds": self.median,
            "quartiles_seconds": [low, high],
            "seconds": list(self.seconds),
            "peak_memory_bytes": self.memory,
        }
        if self.size is not None:
            content["pictures_per_second"] = self.batch_size / self.median
        if self.flops is not None:
            speed = self.flops / self.median / 1e9
            content |= {"nominal_flops": self.flops, "gflops": speed}
            content["share_of_peak"] = speed / peaks.gflops
        if self.moved is not None:
            speed = self.moved / self.median / 1e9
            content |= {"bytes_moved": self.moved, "gbytes": speed}
            content["share_of_peak"] = speed / peaks.gbytes
        return content


@dataclass(frozen=True)
class Peaks:
    """The best of several runs of a large matrix product and a large copy.

    ``gflops`` is in the model's number format; a copy reads and writes every byte, and both count in
    ``gbytes``; ``host_gbytes`` is that of the CPU's memory.
    """

    gflops: float
    gflops_float32: float
    gbytes: float
    host_gbytes: float


def _measure(request: Request, progress: Any) -> Iterator[Measurement | Peaks]:
    """Yield the machine's peaks first, then every measurement."""
    parts = tuple(PARTS[op] for op in request.operations if op in PARTS)
    setting = find_setting(
        request.model, parts or ("encoder",), request.device, request.dtype, request.memory
    )
    begin(progress, Phase("measuring the machine's own peaks"))
    yield measure_peaks(setting.where.device, setting.where.dtype)
    for operation in request.operations:
        if operation == "startup":
            yield from _startup(request.repeats, progress)
            continue
        for size in request.sizes:
            begin(progress, Phase(f"measuring {operation} of {size[1]} x {size[0]}"))
            if operation == "flip":
                yield _flip(size, request, setting)
            else:
                yield _run(operation, size, request, setting)


@dataclass(frozen=True)
class Benchmark:
    """How fast a model is here: facts of the machine, its peaks, and each measurement."""

    machine: dict[str, Any]
    peaks: Peaks
    results: tuple[Measurement, ...]


def benchmark(
    model: str = DEFAULT_MODEL,
    *,
    sizes: Iterable[tuple[int, int]] = SIZES,
    operations: Iterable[str] = OPERATIONS,
    batch_size: int = 1,
    repeats: int = 5,
    device: str = "auto",
    dtype: str = "auto",
    memory: int | None = None,
    progress: Progress[Measurement | Peaks] | None = None,
) -> Benchmark:
    """Measure how fast a model is here, beside what this machine does at best.

    Args:
        sizes: (height, width) of pictures, multiples of 8.
        operations: some of `OPERATIONS`.
        repeats: of each, after one to warm up.
        progress: called with the peaks and each measurement.
        model, batch_size, device, dtype, memory: as for `load_codec` and `encode_files`.

    Raises:
        ModelError: the model cannot run.
    """
    chosen = tuple(sizes), tuple(operations)
    request = Request(model, *chosen, batch_size, repeats, device, dtype, memory)
    found = follow(_measure(request, progress), _count(request), progress)
    (peaks,) = (item for item in found if isinstance(item, Peaks))
    setting = find_setting(
        request.model, ("encoder",), request.device, request.dtype, request.memory
    )
    results = tuple(item for item in found if isinstance(item, Measurement))
    return Benchmark(machine_facts(setting), peaks, results)


def _count(request: Request) -> int:
    """Return how many steps a benchmark has: the peaks, and each measurement."""
    sized = sum(operation != "startup" for operation in request.operations)
    return 1 + sized * len(request.sizes) + len(COMMANDS) * ("startup" in request.operations)


def machine_facts(setting: RunSetting) -> dict[str, Any]:
    """Return the facts that the numbers of a benchmark depend on."""
    import torch

    facts: dict[str, Any] = {
        "auravae": __version__,
        "python": platform.python_version(),
        "torch": torch_version().removeprefix("torch "),
        "numpy": np.__version__,
        "system": platform.platform(),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
        "device": setting.where.device,
        "dtype": setting.where.dtype,
        "model": setting.model,
        "weights_sha256": setting.weights_sha256,
    }
    if setting.where.device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(setting.where.device)
        facts["cuda"] = torch.version.cuda
        facts["cudnn"] = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        facts["tf32"] = torch.backends.cudnn.allow_tf32
    return facts


def measure_peaks(device: str, dtype: str) -> Peaks:
    """Measure a large matrix product and a large copy, with torch's threads."""
    import torch

    kind = "cpu" if device == "cpu" else "gpu"
    side, number = MATRIX_SIDE[kind], getattr(torch, dtype)

    def product(number: Any) -> float:
        a, b = (torch.rand(side, side, device=device).to(number) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * side**3 / 1e9 / _fastest(lambda: torch.mm(a, b, out=out), device)

    def copy(device: str) -> float:
        count = COPIED_BYTES["cpu" if device == "cpu" else "gpu"]
        source = torch.ones(count, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        return 2 * count / 1e9 / _fastest(lambda: target.copy_(source), device)

    with torch.inference_mode():
        single = product(torch.float32)
        own = single if number == torch.float32 else product(number)
        host = copy("cpu")
        return Peaks(own, single, host if device == "cpu" else copy(device), host)


def _fastest(work: Callable[[], Any], device: str) -> float:
    return min(_seconds(work, device) for _ in range(1 + PEAK_REPEATS))


def _seconds(work: Callable[[], Any], device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    import torch

    synchronize = torch.cuda.synchronize if device.startswith("cuda") else torch.mps.synchronize
    synchronize()
    started = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - started


def _run(
    operation: str, size: tuple[int, int], request: Request, setting: RunSetting
) -> Measurement:
    """Encode or decode random values that are on the device already."""
    work = _prepared(operation, size, request, setting.where.device)
    if setting.where.device.startswith("cuda"):
        with Meter(setting.where.device) as meter:
            work()
        memory = meter.memory
    else:
        memory = _in_own_process(operation, size, request, setting.where.device)
        work()
    seconds = tuple(_seconds(work, setting.where.device) for _ in range(request.repeats))
    return Measurement(
        operation,
        seconds,
        size,
        request.batch_size,
        _flops(operation, size, request.batch_size, setting),
        None,
        memory,
    )


def _prepared(
    operation: str, size: tuple[int, int], request: Request, device: str
) -> Callable[[], Any]:
    """Return a loaded model's run on a batch in memory."""
    codec = load_codec(
        request.model,
        parts=(PARTS[operation],),
        device=device,
        dtype=request.dtype,
        memory=request.memory,
    )
    values: Any = _values(operation, size, request.batch_size, codec)
    if device != "cpu":
        import torch

        values = torch.from_numpy(values).to(device)
    function = codec.encode_unit if operation == "encode" else codec.decode
    return lambda: function(values)


def _values(operation: str, size: tuple[int, int], batch: int, codec: Codec) -> np.ndarray:
    """Return random pictures in [-1, 1], or latents as large as those of photographs."""
    random, factor = np.random.default_rng(0), codec.space.downsampling_factor
    if operation == "encode":
        return random.uniform(-1, 1, (batch, IMAGE_CHANNELS, *size)).astype(np.float32)
    shape = (batch, codec.space.irreps.dim, *(side // factor for side in size))
    return random.standard_normal(shape, np.float32)


def _in_own_process(
    operation: str, size: tuple[int, int], request: Request, device: str
) -> int | None:
    """Return the peak memory of a first run in a new process: earlier runs would hide a part of it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(_memory, operation, size, request, device).result()


def _memory(operation: str, size: tuple[int, int], request: Request, device: str) -> int | None:
    _prepared(operation, (8, 8), replace(request, batch_size=1), device)()  # loads libraries
    work = _prepared(operation, size, request, device)
    with Meter(device, interval=0.002) as meter:
        work()
    return meter.memory


def _flops(operation: str, size: tuple[int, int], batch: int, setting: RunSetting) -> int | None:
    if setting.architecture is None:
        return None
    return batch * nominal_flops(setting.architecture, PARTS[operation], *size)


def _flip(size: tuple[int, int], request: Request, setting: RunSetting) -> Measurement:
    """Measure the action of h on float16 latents, from memory to memory."""
    codec = load_codec(request.model, parts=("encoder",), device="cpu")
    factor, irreps = codec.space.downsampling_factor, codec.space.irreps
    shape = (request.batch_size, irreps.dim, *(side // factor for side in size))
    source = np.random.default_rng(0).standard_normal(shape).astype(np.float16)
    target = np.empty_like(source)

    def flip(number: int) -> float:
        started = time.perf_counter()
        for _ in range(number):
            act_into(target, H, source, irreps)
        return time.perf_counter() - started

    number = max(1, round(FLIP_SECONDS / max(flip(3) / 3, 1e-9)))
    seconds = tuple(flip(number) / number for _ in range(request.repeats))
    return Measurement("flip", seconds, size, request.batch_size, moved=2 * source.nbytes)


def _startup(repeats: int, progress: Any) -> Iterator[Measurement]:
    """Measure new processes, without counting the first of each."""
    for name, arguments in COMMANDS.items():
        begin(progress, Phase(f"measuring {name}"))
        command = [sys.executable, *arguments]

        def run(command: list[str] = command) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        run()
        yield Measurement(name, tuple(_seconds(run, "cpu") for _ in range(repeats)))
