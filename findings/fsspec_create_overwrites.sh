#!/usr/bin/env bash
# fsspec 2026.9.0: `pipe_file(path, data, mode="create")` writes only what does not exist yet. On its
# memory file system that is one step, and S3 (s3fs) sends a condition with the request; on the local
# file system it asks `exists()` first and then opens the file for writing: a file that another process
# makes in between is overwritten, and both writers believe that theirs is kept. `open(path, "xb")` of
# the local file system is exclusive.
#
# It matters for locks, manifests and settings which two runs may write at once through fsspec: the same
# call that is exclusive on S3 loses one of them on a mounted disk.
#
# Seen: the file made before the call: FileExistsError on both. The file made between check and write:
# local "no error" and ours is kept, memory FileExistsError and theirs is kept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat > "$folder/create.py" <<'PYTHON'
import sys
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem


def outcome(write):
    try:
        write()
    except FileExistsError:
        return "FileExistsError"
    return "no error"


seen = []
for kind, root in ((LocalFileSystem, sys.argv[1]), (MemoryFileSystem, "/root")):
    files = kind(skip_instance_cache=True)
    path = f"{root}/settings.json"
    files.pipe_file(path, b"first")
    seen.append((kind.__name__, "later", outcome(lambda: files.pipe_file(path, b"second", mode="create"))))
    files.rm(path)

    class Beside(kind):
        """Another process makes the file right after this one has looked."""

        def exists(self, path, **options):
            found = super().exists(path, **options)
            kind.pipe_file(self, path, b"theirs")
            return found

    result = outcome(lambda: Beside(skip_instance_cache=True).pipe_file(path, b"ours", mode="create"))
    seen.append((kind.__name__, "at once", result, files.cat_file(path).decode()))
local = LocalFileSystem(skip_instance_cache=True)
Path(sys.argv[1], "x").write_bytes(b"theirs")
seen.append(("LocalFileSystem", "open('xb')", outcome(lambda: local.open(sys.argv[1] + "/x", "xb").close())))
print(fsspec.__version__, *seen, sep="\n")
expected = [
    ("LocalFileSystem", "later", "FileExistsError"),
    ("LocalFileSystem", "at once", "no error", "ours"),
    ("MemoryFileSystem", "later", "FileExistsError"),
    ("MemoryFileSystem", "at once", "FileExistsError", "theirs"),
    ("LocalFileSystem", "open('xb')", "FileExistsError"),
]
sys.exit(seen != expected)
PYTHON
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet fsspec==2026.9.0
"$folder/venv/bin/python" "$folder/create.py" "$folder"
