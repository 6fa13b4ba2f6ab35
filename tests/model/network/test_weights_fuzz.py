"""Damaged checkpoints of every container: loaded or refused with a WeightsError, nothing else."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file

from auravae_cli.errors import WeightsError
from auravae_cli.model.network.weights import load_networks

HEADER = 12_000  # about the length of the tables at a file's start and, for a zip, at its end

positions = st.one_of(
    st.integers(0, 64), st.integers(0, HEADER), st.integers(-HEADER, -1), st.integers(0, 2_000_000)
)
bytes_ = st.one_of(st.sampled_from(list(b'0129{}[]":,-Kq.R\x00\xff')), st.integers(0, 255))
edits = st.lists(st.tuples(positions, bytes_), max_size=4)
cuts = st.one_of(st.none(), st.none(), positions)
swaps = st.sampled_from(
    [
        (b"", b""),
        (b'"BF16"', b'"F16" '),
        (b'"BF16"', b'"I16" '),
        (b'"BF16"', b'"XX16"'),
        (b"BFloat16Storage", b"Float64Storage\n"),
        (b"BFloat16Storage", b"FloatStorage\nxx"),
        (b"_rebuild_tensor_v2", b"_rebuild_tensor_v3"),
        (b"_rebuild_tensor_v2", b"_rebuild_parameter"),
        (b"encoder.conv_in.weight", b"encoder.conv_in.wait\xc3\xbf"),
        (b"[32", b"[23"),
        (b"[32,", b"[-1,"),
        (b"K K\x03", b"K\x00K\x03"),
    ]
)


@pytest.fixture(scope="module")
def originals(tiny_path):
    """The tiny checkpoint's bytes in each container."""
    state = load_file(tiny_path)
    contents = {"safetensors": tiny_path.read_bytes()}
    for kind in ("zip", "legacy"):
        buffer = io.BytesIO()
        torch.save(state, buffer, _use_new_zipfile_serialization=kind == "zip")
        contents[kind] = buffer.getvalue()
    return contents


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_damage_never_escapes_as_another_error(originals, folder, kind):
    path = folder / kind

    @settings(max_examples=60, derandomize=True, deadline=None, database=None)
    @given(swaps, edits, cuts)
    def check(swap, changes, cut):
        data = bytearray(originals[kind].replace(*swap) if swap[0] else originals[kind])
        for position, byte in changes:
            data[position % len(data)] = byte
        path.write_bytes(data[: cut if cut is None else cut % len(data)])
        try:
            networks, _ = load_networks(
                path, ("encoder", "decoder"), torch.device("cpu"), torch.float32
            )
        except WeightsError as error:
            assert str(path) in str(error)
        else:
            assert networks.keys() == {"encoder", "decoder"}

    check()
