"""Make the files that exports to MDS and litData are compared with, by the packages' own readers and writers.

    python scripts/make_stream_golden.py tests/golden/streams

Two latents are exported, read by the package's reader, and written again by its writer. Needs
mosaicml-streaming 0.13 and litdata 0.2.76; of the former only what reads and writes is imported, as the rest
wants torchvision.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

from auravae_cli import export_latents

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    from tests.exchange import kit

    target = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, latent in enumerate(kit.streamed()):
            (folder / f"{number}.safetensors").write_bytes(latent.to_bytes())
        for form, again in (("mds", mds), ("litdata", litdata)):
            out, made = folder / form, target / form
            export_latents(sorted(folder.glob("*.safetensors")), out, form)
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(parents=True)
            again(out, made)
            for file in sorted(out.iterdir()):
                is_same = file.read_bytes() == (made / file.name).read_bytes()
                print(f"{form}/{file.name}: {'the same' if is_same else 'differs'}")


def mds(source: Path, target: Path) -> None:
    """Read and write with mosaicml-streaming."""
    found = importlib.util.find_spec("streaming")
    assert found is not None and found.submodule_search_locations is not None
    package: Any = types.ModuleType("streaming")
    package.__path__ = list(found.submodule_search_locations)
    sys.modules["streaming"] = package
    from streaming.base import LocalDataset, MDSWriter

    rows = LocalDataset(str(source))
    shape = ",".join(map(str, rows[0]["latent"].shape))
    columns = {"auravae": "str", "caption": "str", "key": "str", "label": "int"}
    columns["latent"] = f"ndarray:{rows[0]['latent'].dtype.name}:{shape}"
    with MDSWriter(out=str(target), columns=columns, size_limit=None, exist_ok=True) as writer:
        for row in range(len(rows)):
            writer.write(rows[row])


def litdata(source: Path, target: Path) -> None:
    """Read and write with litData."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    rows = StreamingDataset(str(source), shuffle=False)
    writer = BinaryWriter(str(target), chunk_size=len(rows))
    for row in range(len(rows)):
        writer.add_item(row, rows[row])
    writer.done()
    writer.merge()


if __name__ == "__main__":
    main()
