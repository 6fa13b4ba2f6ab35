#!/usr/bin/env bash
# torch 2.13.0 on Python 3.11: `torch.compile(fullgraph=True)` compiles a module that reads a
# `functools.cached_property` if something has read that property before, and refuses the same module
# ("Dynamo does not know how to enter a `RLock` context manager") if nothing has. On Python 3.11 the
# property takes a lock when it is first read; later ones find the value in the instance.
#
# It matters because a test that runs the model once before it compiles it passes, and the same call in a
# fresh process fails, or without `fullgraph` breaks the graph. An ordinary property, or an attribute that
# `__init__` sets, is enough. Python 3.12 has no such lock.
#
# Exit code 0: as described. 1: it behaves otherwise now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'P'
import sys
from functools import cached_property

import torch


class Config:
    @cached_property
    def scale(self):
        return 2.0


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.config = Config()

    def forward(self, x):
        return x * self.config.scale


seen = {}
for before in ("read before", "not read before"):
    torch.compiler.reset()
    model = Model()
    if before == "read before":
        model(torch.ones(1))
    try:
        torch.compile(model, backend="eager", fullgraph=True)(torch.ones(1))
        seen[before] = "compiled"
    except torch._dynamo.exc.Unsupported as error:
        seen[before] = next(line.strip() for line in str(error).splitlines() if "RLock" in line)
    print(torch.__version__, "Python", sys.version.split()[0], before + ":", seen[before])
is_locked = sys.version_info < (3, 12)
sys.exit(seen["read before"] != "compiled" or ("RLock" in seen["not read before"]) != is_locked)
P
