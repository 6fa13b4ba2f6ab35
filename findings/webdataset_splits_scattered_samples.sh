#!/usr/bin/env bash
# webdataset 1.0.2 joins members of a tar to a sample only where they stand side by side, though its documentation
# speaks of files with the same basename. From a tar with all pictures first and all captions behind them
# (`tar cf x.tar *.jpg *.txt`) it gives two samples of each key, one without a caption and one without a picture,
# without an error or a warning. One would expect one sample of each key, or an error.
# And the key is what stands before the first dot behind the last slash, but not of a name that begins with a dot:
# `a/.b.png` has the key `a/` and the suffix `b.png`.
# Exit code 0: as described. 1: it behaves otherwise now.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet webdataset==1.0.2
cd "$folder"
for n in 0 1; do printf picture > $n.jpg; printf caption > $n.txt; done
mkdir a; printf picture > a/.b.png
tar cf apart.tar 0.jpg 1.jpg 0.txt 1.txt
tar cf hidden.tar a/.b.png
"$folder/venv/bin/python" - <<'P'
import sys
from importlib.metadata import version

import webdataset

seen = {}
for name in ("apart.tar", "hidden.tar"):
    dataset = webdataset.WebDataset(name, shardshuffle=False)
    seen[name] = [
        (sample["__key__"], sorted(key for key in sample if not key.startswith("__")))
        for sample in dataset
    ]
    print(name, seen[name])
sys.exit(
    seen
    != {
        "apart.tar": [("0", ["jpg"]), ("1", ["jpg"]), ("0", ["txt"]), ("1", ["txt"])],
        "hidden.tar": [("a/", ["b.png"])],
    }
)
P
# Output, November 2026:
#   webdataset 1.0.2
#   apart.tar [('0', ['jpg']), ('1', ['jpg']), ('0', ['txt']), ('1', ['txt'])]
#   hidden.tar [('a/', ['b.png'])]
