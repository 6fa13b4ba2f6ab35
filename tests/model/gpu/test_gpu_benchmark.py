"""The benchmark for GPUs works on the day that there is one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
PROGRAM = REPOSITORY / "benchmarks" / "gpu.py"


def test_it_runs_to_its_end_on_a_cpu(tmp_path):
    output = tmp_path / "results.json"
    command = [sys.executable, str(PROGRAM), "--device", "cpu", "--ch", "32", "--sides", "16x2"]
    command += ["--strips", "24", "--rounds", "2", "--warmups", "0", "--output", str(output)]
    command += ["--contenders", "modules", "ours", "ours, merged", "ours, graph"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(output.read_text())
    assert report["machine"]["kernels"] == "torch" and report["machine"]["torch"]
    cases = {(c["part"], c["side"], c["batch"]): c for c in report["cases"]}
    assert set(cases) == {("decoder", 16, 2), ("encoder", 16, 2), ("decoder", 24, 1)}
    for case in cases.values():
        assert case["nominal_tflop"] > 0
        for row in case["contenders"]:
            if row["name"] == "ours, graph":
                assert row["error"] == "ValueError: CUDA graphs need a GPU"
                continue
            assert row["wall_ms"] > 0
            assert row["name"] == "strips" or 0 < row["relative_error"] < 0.1
