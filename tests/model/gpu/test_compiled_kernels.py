"""The kernels compile for cards that are not there, and well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "compile_kernels.py"


def test_they_compile_without_spills_and_with_wide_accesses(tmp_path):
    pytest.importorskip("triton", reason="Triton is not installed on this system")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(SCRIPT.parents[1])}
    command = [sys.executable, str(SCRIPT), "--capabilities", "90", "--numbers", "bf16"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {line["kernel"] for line in lines} == {
        f"_{name}_kernel" for name in ("statistics", "affine", "apply", "add", "interleave")
    }
    for line in lines:
        assert line.get("spilled", 0) == 0, line
        if line["kernel"] != "_affine_kernel":  # features go in 16 bytes; means and squares in 4
            assert set(line["widths"]) <= {"4", "16"}, line
            assert line["widths"]["16"] >= 2, line
