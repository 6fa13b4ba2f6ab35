"""What tests of several kinds share: stores of latents, written by hand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# Triton's kernels run in its interpreter where there is no GPU. It reads this when it is first
# imported, which diffusers does, too.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from auravae_cli.files.canonical_json import canonical
from auravae_cli.latents.dtypes import FLOAT16, StoredDtype
from auravae_cli.latents.latent_file import LatentFile, LatentSpace, Record, stack
from auravae_cli.store.ledger import Failure
from auravae_cli.store.manifest import Manifest, Output, SourceState
from auravae_cli.store.names import SETTINGS_FILE, failures_name, manifest_name, output_name
from auravae_cli.store.settings import StoreSettings
from auravae_cli.symmetry.geometry import Box, Padding
from auravae_cli.symmetry.group import Irreps

SPACE = LatentSpace("toy", "f" * 64, 8, Irreps.parse("2xee+1xoe+1xeo"), 4.0)
SHARDS: Mapping[str, Any] = {
    "a": {(2, 3): 5, (3, 2): 2},
    "b": {},
    "sub/c": {(2, 3): 4},
    "sub/d": {(3, 2): 1, (2, 2): 3},
}


def latent(name: str, number: int, cells: tuple[int, int], dtype: StoredDtype) -> LatentFile:
    """A latent of random values that knows who it is."""
    key = f"{name}/{cells[0]}x{cells[1]}/{number}"
    digest = hashlib.sha256(key.encode())
    random = np.random.default_rng(list(digest.digest()))
    values = np.clip(random.normal(size=(4, *cells)), -4, 4).astype(np.float32)
    padding = Padding(left=number % 3, bottom=1)
    record = Record(
        (8 * cells[0] - 1, 8 * cells[1] - number % 3),
        padding,
        source=f"{key}.jpg",
        source_sha256=digest.hexdigest(),
        key=key,
        source_size=(100 + number, 200),
        source_box=Box(0.5, 0, 100, 90),
        annotations={"caption": f"number {number}", "label": number} if name == "a" else {},
    )
    return LatentFile(dtype.from_float32(values), dtype, SPACE, (record,), "test")


def write_shard(
    folder: Path, name: str, latents: list[LatentFile], settings: StoreSettings, failures: int = 0
) -> None:
    """A finished shard, as the writer of stores leaves it."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    outputs = []
    for shape in sorted({z.values.shape for z in latents}):
        shard = stack([z for z in latents if z.values.shape == shape])
        content, file = shard.to_bytes(), output_name(name, shape[1:])
        (folder / file).write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        outputs.append(Output(file, len(content), digest, shard.values.shape))
    if failures:
        lines = [canonical(vars(Failure(f"bad{n}", "decode", "why"))) for n in range(failures)]
        (folder / failures_name(name)).write_bytes(b"".join(lines))
    source = SourceState(f"{name}.tar", 10, "1", "e" * 64)
    manifest = Manifest(name, settings.sha256, (source,), tuple(outputs), failures)
    (folder / manifest_name(name)).write_bytes(manifest.to_bytes())


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[..., Path]:
    """Write a store: ``make_store(shards={"a": {(h, w): rows}}, dtype=..., failures={"a": 1})``."""

    def make(
        name: str = "store",
        shards: Mapping[str, Mapping[tuple[int, int], int]] = SHARDS,
        dtype: StoredDtype = FLOAT16,
        failures: Mapping[str, int] = {"b": 2},
        change: Callable[[LatentFile], LatentFile] = lambda z: z,
        num_file_shards: int = 1,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        settings = StoreSettings(SPACE, dtype, "float32", {"pad": "edge"}, num_file_shards)
        (folder / SETTINGS_FILE).write_bytes(canonical(settings.to_json()))
        for shard, shapes in shards.items():
            latents = [
                change(latent(shard, number, cells, dtype))
                for cells, rows in shapes.items()
                for number in range(rows)
            ]
            write_shard(folder, shard, latents, settings, failures.get(shard, 0))
        return folder

    return make


@pytest.fixture
def edit_manifest() -> Callable[..., None]:
    """Change fields of a manifest: ``edit_manifest(store, "a", failures=3)``."""

    def edit(store: Path, shard: str, **fields: Any) -> None:
        path = store / manifest_name(shard)
        path.write_bytes(canonical(json.loads(path.read_bytes()) | fields))

    return edit


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache of measured speeds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("LOCALAPPDATA", raising=False)
        yield


# Hypothesis draws the same examples on every run, so a failure is a failure everywhere.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("suite")
