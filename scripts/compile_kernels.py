"""Compile the GPU kernels for cards that need not be there, and say what became of them.

    python scripts/compile_kernels.py [--capabilities 80 90]

One line of JSON a kernel: its registers, the bytes that it spills to local memory, and how wide its
accesses to global memory are. Needs Triton, and no GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from auravae_cli.model.gpu import triton_kernels

IN_FLOAT32 = {"mean_ptr", "squares_ptr", "scale_ptr", "shift_ptr", "weight_ptr", "bias_ptr"}
IN_FLOAT32 |= {"pending_ptr"}
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def variants() -> Iterator[tuple[Any, dict[str, Any]]]:
    """Every kernel with the constants that it is run with."""
    tile = {"ROWS": triton_kernels.STEP_ROWS, "BLOCK": triton_kernels.BLOCK_CHANNELS}
    yield triton_kernels._statistics_kernel, tile
    yield triton_kernels._interleave_kernel, tile
    for silu in (True, False):
        yield (
            triton_kernels._apply_kernel,
            {"SILU": silu, **tile, "ROWS": triton_kernels.APPLY_ROWS},
        )
    for each in (3, 8, 32):  # 96, 256 and 1024 channels
        block = triton.next_power_of_2(each)
        chunks = min(triton_kernels.MERGED_VALUES // block, 256)
        for pending in (True, False):
            constants = {"EACH": each, "BLOCK": block, "CHUNKS": chunks, "HAS_PENDING": pending}
            yield triton_kernels._affine_kernel, constants
    for border, statistics in ((False, True), (False, False), (True, False)):
        constants = {"HAS_BIAS": True, "BORDER": border, "STATISTICS": statistics}
        yield triton_kernels._add_kernel, {**constants, **tile}


def compiled(function: Any, constants: dict[str, Any], capability: int, number: str) -> Any:
    """One kernel, as Triton compiles it at its first launch."""
    kinds: dict[str, str] = {}
    attributes = {}
    for index, name in enumerate(function.arg_names):
        if name in constants:
            kinds[name] = "constexpr"
        elif name.endswith("_ptr"):
            kinds[name] = "*fp32" if name in IN_FLOAT32 else f"*{number}"
        else:
            kinds[name] = "fp32" if name == "eps" else "i32"
        if name.endswith("_ptr") or name in ("channels", "chunk_rows"):
            attributes[(index,)] = [["tt.divisibility", 16]]
    values = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, kinds, values, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": triton_kernels.WARPS})


def facts(kernel: Any) -> dict[str, Any]:
    """Registers, spilled bytes, and accesses by their width in bytes."""
    widths: Counter[int] = Counter()
    access = r"(?:ld|st)\.global[\w.:]*?(?:\.v(\d))?\.[bfsu](\d+)\b"
    for vector, bits in re.findall(access, kernel.asm["ptx"]):
        widths[int(vector or 1) * int(bits) // 8] += 1
    found: dict[str, Any] = {"widths": dict(sorted(widths.items()))}
    if CUOBJDUMP.exists():
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(kernel.asm["cubin"])
            command = [str(CUOBJDUMP), "-res-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        registers, stack, local = re.findall(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", text)[0]
        found |= {"registers": int(registers), "spilled": int(stack) + int(local)}
    return found


def main() -> None:
    """Compile all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--capabilities", nargs="+", type=int, default=[80, 90])
    parser.add_argument("--numbers", nargs="+", default=["bf16", "fp32"])
    arguments = parser.parse_args()
    for capability in arguments.capabilities:
        for number in arguments.numbers:
            for function, constants in variants():
                line = {"kernel": function.__name__, "capability": capability, "number": number}
                kernel = compiled(function, constants, capability, number)
                print(json.dumps({**line, **constants, **facts(kernel)}), flush=True)


if __name__ == "__main__":
    main()
