"""Files of others that claim more than they hold."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
import torch

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import Foreign
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import FLOAT16

SUFFIXES = {"npz": ".npz", "pt": ".pt", "safetensors": ".safetensors", "comfyui": ".latent"}


def found(name, content):
    return list(FORMATS[name].find(Foreign(content, ".", f"a{SUFFIXES.get(name, '.npy')}")))


def npz(compression, **arrays):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.save(file, array)
    return buffer.getvalue()


def pickled(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def repacked(content):
    """A zip with its members deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def test_an_array_is_unpacked_only_as_far_as_is_allowed(monkeypatch):
    values = np.zeros((16, 64, 64), np.float32)
    content = npz(zipfile.ZIP_DEFLATED, latent=values)
    assert len(content) < values.nbytes / 100
    assert found("npz", content)[0].values.shape == values.shape
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", str(values.nbytes))
    with pytest.raises(LatentFileError, match="raise it with AURAVAE_MAX_FILE_BYTES"):
        found("npz", content)
    assert found("npz", npz(zipfile.ZIP_STORED, latent=values))[0].values.shape == values.shape


def test_an_array_holds_no_more_than_its_zip_says():
    """The directory says 1,000 bytes; what is packed would be 16 million."""
    content = npz(zipfile.ZIP_DEFLATED, latent=np.zeros((16, 500, 500), np.float32))
    size = 16_000_128
    assert (
        content.count(size.to_bytes(4, "little")) == 1 + 1
    )  # in the directory, and before the data
    content = content.replace(size.to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(LatentFileError, match="damaged"):
        found("npz", content)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_arrays_packed_otherwise_are_refused(method):
    with pytest.raises(LatentFileError, match="packed as numpy packs none"):
        found("npz", npz(method, latent=np.zeros((16, 4, 4), np.float32)))


def test_tensors_that_expand(monkeypatch):
    one = torch.zeros(1, 1, 1, 1).expand(1, 16, 1000, 1000)  # four bytes
    packed = repacked(pickled(torch.zeros(1, 16, 64, 64)))
    monkeypatch.setenv("AURAVAE_MAX_FILE_BYTES", "100K")
    for content in (pickled(one), packed, pickled(torch.zeros(1, 16, 64, 64))):
        with pytest.raises(LatentFileError, match="AURAVAE_MAX_FILE_BYTES"):
            found("pt", content)
    assert found("pt", pickled(torch.zeros(1, 16, 8, 8)))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("safetensors", "latents"), ("comfyui", "latent_tensor"), ("lightningdit", "latents")],
)
def test_rows_without_values_are_not_counted_out(name, tensor):
    """A thousand million rows in a hundred bytes."""
    content = safetensors_file.header_bytes({tensor: (FLOAT16, (10**9, 16, 0, 0))}, {})
    with pytest.raises(LatentFileError, match="without values"):
        found(name, content)
