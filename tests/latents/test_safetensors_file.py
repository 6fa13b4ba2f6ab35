"""The safetensors container: read by the library that defines it, and refused when it lies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, save

from auravae_cli.errors import LatentFileError
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32
from auravae_cli.latents.safetensors_file import header_bytes, pack, parse

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def container(header: Any, body: bytes = bytes(24), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (2, 3), offsets: Any = (0, 24)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_what_is_packed_is_parsed() -> None:
    arrays = {"b": VALUES, "a": VALUES.astype(np.float16)[:1]}
    tensors, metadata = parse(pack(arrays, {"key": "värde"}))
    assert metadata == {"key": "värde"}
    assert {name: t.dtype for name, t in tensors.items()} == {"b": FLOAT32, "a": FLOAT16}
    for name, array in arrays.items():
        np.testing.assert_array_equal(tensors[name].values, array)


def test_values_start_aligned_and_metadata_is_sorted() -> None:
    one = header_bytes({"x": (BFLOAT16, (1, 2))}, {"b": "2", "a": "1"})
    assert one == header_bytes({"x": (BFLOAT16, (1, 2))}, {"a": "1", "b": "2"})
    assert len(one) % 8 == 0
    assert json.loads(one[8:])["x"] == {"dtype": "BF16", "shape": [1, 2], "data_offsets": [0, 4]}


def test_the_safetensors_library_reads_what_we_write(tmp_path: Path) -> None:
    data = pack({"x": VALUES, "y": VALUES.astype(np.float16)}, {"auravae": "{}"})
    loaded = load(data)
    np.testing.assert_array_equal(loaded["x"], VALUES)
    np.testing.assert_array_equal(loaded["y"], VALUES.astype(np.float16))
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    with safe_open(path, "numpy") as file:
        assert file.metadata() == {"auravae": "{}"}


def test_we_read_what_the_safetensors_library_writes() -> None:
    tensors, metadata = parse(save({"x": VALUES, "y": VALUES[:0]}, {"k": "v"}))
    assert metadata == {"k": "v"}
    np.testing.assert_array_equal(tensors["x"].values, VALUES)
    assert tensors["y"].values.shape == (0, 3)


def test_parsing_copies_nothing() -> None:
    data = bytearray(pack({"x": VALUES}, {}))
    values = parse(memoryview(data))[0]["x"].values
    data[-24:] = bytes(24)
    assert not values.any()


def test_an_empty_file() -> None:
    with pytest.raises(LatentFileError, match="the file is empty: expected a safetensors file"):
        parse(b"")


WHOLE = container({"x": entry()})


@pytest.mark.parametrize("size", range(1, len(WHOLE)))
def test_every_truncation_is_refused(size: int) -> None:
    with pytest.raises(LatentFileError, match="cut off"):
        parse(WHOLE[:size])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"just some text, long enough", "not a safetensors file"),
        (container({"x": entry()}, length=2**63), "cut off: [0-9]+ bytes"),
        (container({"x": entry()}, length=100), "cut off: [0-9]+ bytes"),
        (container({"x": entry()}, length=20), "damaged header: "),
        (container(b"{not json}"), "damaged header: Expecting property name"),
        (container(b'{"\xff": 1}'), "damaged header: .*can't decode byte"),
        (container(b'{"x":' + b"[" * 100_000), "damaged header: "),
        (container({"x": entry()}, bytes(25)), "1 bytes follow the last tensor"),
        (container({"x": entry()}, bytes(23)), "'x' claims bytes 0 to 24 of 23"),
        (container({"x": entry(offsets=(8, 32))}, bytes(32)), "claims bytes 8 to 32"),
        (container({"x": entry(shape=(2, 4))}), "claims bytes 0 to 24 of 24, its shape needs 32"),
        (container({"x": entry("F16")}), "claims bytes 0 to 24 of 24, its shape needs 12"),
        (container({"x": entry(), "y": entry(offsets=(32, 56))}, bytes(56)), "'y' claims bytes 32"),
        (container({"x": entry(), "y": entry(offsets=(0, 24))}), "'y' claims bytes 0 to 24"),
        (container({"x": entry("I64")}), "'x' has dtype 'I64': expected one of F16, BF16, F32"),
        (container({"x": entry(["F32"])}), r"'x' has dtype \['F32'\]"),
        (container({"x": entry(offsets=(24, 0))}), "impossible sizes"),
        (container({"x": entry(offsets=(-24, 0))}), "impossible sizes"),
        (container({"x": entry(shape=(-2, -3))}), "impossible sizes"),
        (container({"x": entry(shape=(2.0, 3))}), "impossible sizes"),
        (container({"x": entry(shape=(True, 6))}), "impossible sizes"),
        (container({"x": entry(shape=(2**64, 3))}), "impossible sizes"),
        (container({"x": entry(shape=(0, 2**47, 2**47), offsets=(0, 0))}, b""), "impossible shape"),
        (container({"x": entry(shape=(1,) * 65, offsets=(0, 4))}, bytes(4)), "impossible shape"),
        (container({"x": {"dtype": "F32"}}), "'x' has no dtype, shape and data_offsets"),
        (container({"x": entry(offsets=(0, 8, 24))}), "'x' has no dtype, shape and data_offsets"),
        (container({"x": 5}), "'x' has no dtype, shape and data_offsets"),
        (container({"x": entry(), "__metadata__": {"a": 1}}), "must map names to strings"),
        (container({"x": entry(), "__metadata__": "a"}), "must map names to strings"),
    ],
)
def test_a_lying_header_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(LatentFileError, match=message):
        parse(data)
