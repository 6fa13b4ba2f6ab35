"""Latents to be decoded: what was opened to look at it is not opened again to be read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from auravae_cli.latents.dtypes import FLOAT32
from auravae_cli.latents.latent_file import LatentFile, LatentSpace, Record, stack
from auravae_cli.operations import latent_rows
from auravae_cli.operations.decode import read_latent
from auravae_cli.operations.inputs import Source
from auravae_cli.symmetry.geometry import Padding
from auravae_cli.symmetry.group import Irreps

SPACE = LatentSpace("linear", "f" * 64, 8, Irreps.parse("4xee"), 8.0)


def latent(value: float) -> LatentFile:
    values = np.full((4, 2, 3), value, np.float32)
    return LatentFile(values, FLOAT32, SPACE, (Record((16, 24), Padding()),), "1")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were opened, in order."""
    latent_rows._open_version.cache_clear()
    paths, map_file = list[Path](), latent_rows.map_file

    def noted(path, error):
        paths.append(path)
        return map_file(path, error)

    monkeypatch.setattr(latent_rows, "map_file", noted)
    return paths


def test_a_latent_is_opened_once(tmp_path: Path, opened: list[Path]) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(latent(1).to_bytes())
    (source,) = latent_rows.expand_shard(Source(path, Path(path.name)))
    found, content = read_latent(source)
    assert found.values[0, 0, 0] == 1 and content == path.read_bytes()
    assert opened == [path]


def test_so_is_a_shard_for_all_of_its_rows(tmp_path: Path, opened: list[Path]) -> None:
    path = tmp_path / "shard.safetensors"
    path.write_bytes(stack([latent(1), latent(2), latent(3)]).to_bytes())
    sources = latent_rows.expand_shard(Source(path, Path(path.name)))
    assert [read_latent(source)[0].values[0, 0, 0] for source in sources] == [1, 2, 3]
    assert opened == [path]


def test_one_that_was_replaced_is_opened_again(tmp_path: Path, opened: list[Path]) -> None:
    path, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    path.write_bytes(latent(1).to_bytes())
    (source,) = latent_rows.expand_shard(Source(path, Path(path.name)))
    other.write_bytes(latent(2).to_bytes())
    os.replace(other, path)  # noqa: PTH105
    assert read_latent(source)[0].values[0, 0, 0] == 2
    assert opened == [path, path]
