"""Latent files: round trips, the group on whole files, and refusals that say what is wrong."""

from __future__ import annotations

import json
import mmap
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from safetensors import safe_open
from safetensors.numpy import load

from auravae_cli.errors import (
    AuraVaeError,
    LatentFileError,
    LatentHeaderError,
    LatentMismatchError,
)
from auravae_cli.files.atomic import write_atomically
from auravae_cli.latents import latent_file
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16, FLOAT32, STORED_DTYPES, Array, StoredDtype
from auravae_cli.latents.latent_file import (
    LatentFile,
    LatentSpace,
    Record,
    parse_latents,
    read_latents,
    stack,
    write_flipped,
)
from auravae_cli.latents.record import act_on_records
from auravae_cli.latents.safetensors_file import header_bytes
from auravae_cli.symmetry.geometry import Padding, padding_for
from auravae_cli.symmetry.group import GROUP, HV, E, GroupElement, H, Irreps, V

SPACE = LatentSpace("linear", "ab" * 32, 8, Irreps.parse("12xee+2xoe+2xeo"), 8.0)
DTYPES = list(STORED_DTYPES.values())


def single(dtype: StoredDtype = FLOAT16, seed: int = 0, **record: Any) -> LatentFile:
    """A latent of a picture of 21 x 11 pixels: 3 x 2 cells, padded unequally."""
    height, width = 21, 11
    values = np.random.default_rng(seed).standard_normal((16, 3, 2)).astype(np.float32)
    facts: dict[str, Any] = {
        "image_size": (height, width),
        "padding": padding_for(height, width, 8),
        "source": f"bild_{seed}_ü.png",
        "source_sha256": f"{seed:064x}",
        "exif_orientation": 6,
        "preparation": {"pad": "edge", "background": "white"},
    } | record
    return LatentFile(dtype.from_float32(values), dtype, SPACE, (Record(**facts),), "1.2.3")


def shard(dtype: StoredDtype = FLOAT16, rows: int = 5) -> LatentFile:
    """Rows that differ in source, padding and orientation."""
    moved = [
        single(dtype, i, padding=Padding(i % 3, 5 - i % 3, 1, 2), orientation=GROUP[i % 4])
        for i in range(rows)
    ]
    return stack(moved)


def same(a: LatentFile, b: LatentFile) -> bool:
    bits = (a.values.dtype, a.values.shape, a.values.tobytes()) == (
        b.values.dtype,
        b.values.shape,
        b.values.tobytes(),
    )
    return bits and replace(a, values=b.values) == b


def flip_file(path: Path, g: GroupElement) -> Path:
    """The file after ``g``, as the command line writes it."""
    out = path.with_name(f"{path.stem}_{g}.safetensors")
    write_flipped(out, read_latents(path), g)
    return out


def edited(change: Callable[[dict[str, Any]], Any], latents: LatentFile | None = None) -> bytes:
    """A file whose ``auravae`` header has been tampered with."""
    latents = latents or single()
    header = json.loads(json.loads(latents.header()[8:])["__metadata__"]["auravae"])
    text = json.dumps(change(header) or header)
    name = "latents" if latents.is_shard else "latent"
    start = header_bytes({name: (latents.dtype, latents.values.shape)}, {"auravae": text})
    return start + latents.values.tobytes()


@pytest.mark.parametrize("make", [single, shard])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_written_is_read(
    dtype: StoredDtype, make: Callable[..., LatentFile], tmp_path: Path
) -> None:
    latents = make(dtype)
    path = tmp_path / "latent.safetensors"
    write_atomically(path, latents.to_bytes())
    found = read_latents(path)
    assert same(found, latents)
    assert found.is_shard == (make is shard)
    assert same(parse_latents(path.read_bytes()), latents)


def test_equal_latents_give_equal_bytes() -> None:
    ordered = single(preparation={"a": 1, "b": 2}).to_bytes()
    assert ordered == single(preparation={"b": 2, "a": 1}).to_bytes()
    assert ordered == parse_latents(ordered).to_bytes()
    assert shard().to_bytes() == shard().to_bytes()
    assert ordered != single(seed=1, preparation={"a": 1, "b": 2}).to_bytes()


def test_a_header_without_what_is_optional() -> None:
    bare = single(source=None, source_sha256=None, preparation={})
    assert same(parse_latents(bare.to_bytes()), bare)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_shards_of_any_length(rows: int) -> None:
    assert same(parse_latents(shard(rows=rows).to_bytes()), shard(rows=rows))


def test_rows_that_agree_in_everything_are_counted() -> None:
    alike = stack([single()] * 3)
    assert len(parse_latents(alike.to_bytes()).records) == 3
    assert same(parse_latents(alike.to_bytes()), alike)


def test_stacking_needs_latents_of_one_kind() -> None:
    with pytest.raises(ValueError, match="one shape, dtype and latent space"):
        stack([single(FLOAT16), single(FLOAT32)])
    with pytest.raises(ValueError, match="one shape, dtype and latent space"):
        stack([single(), replace(single(), space=replace(SPACE, clamp=4.0))])


@pytest.mark.parametrize("make", [single, shard])
@pytest.mark.parametrize("dtype", [FLOAT16, FLOAT32])
def test_the_safetensors_library_reads_our_files(
    dtype: StoredDtype, make: Callable[..., LatentFile], tmp_path: Path
) -> None:
    latents = make(dtype)
    path = tmp_path / "latent.safetensors"
    path.write_bytes(latents.to_bytes())
    name = "latents" if latents.is_shard else "latent"
    assert list(load(path.read_bytes())) == [name]
    np.testing.assert_array_equal(load(path.read_bytes())[name], latents.values)
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["auravae"])
    assert header["model"] == "linear"
    assert header["representation"] == "12xee+2xoe+2xeo"
    assert header["format_version"] == 1


@pytest.mark.parametrize("g", GROUP)
@pytest.mark.parametrize("make", [single, shard])
@pytest.mark.parametrize("dtype", DTYPES)
def test_two_equal_flips_give_back_the_file(
    dtype: StoredDtype, make: Callable[..., LatentFile], g: GroupElement, tmp_path: Path
) -> None:
    path = tmp_path / "latent.safetensors"
    path.write_bytes(make(dtype).to_bytes())
    once = flip_file(path, g)
    assert (once.read_bytes() == path.read_bytes()) == (g == E)
    assert flip_file(once, g).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("make", [single, shard])
@pytest.mark.parametrize("dtype", DTYPES)
def test_files_obey_the_group(
    dtype: StoredDtype, make: Callable[..., LatentFile], tmp_path: Path
) -> None:
    path = tmp_path / "latent.safetensors"
    latents = make(dtype)
    path.write_bytes(latents.to_bytes())
    for a in GROUP:
        assert latents.act(a).to_bytes() == flip_file(path, a).read_bytes()
        for b in GROUP:
            product = flip_file(path, b @ a).read_bytes()
            assert flip_file(flip_file(path, a), b).read_bytes() == product
            assert latents.act(a).act(b).to_bytes() == product


def test_the_header_follows_a_flip() -> None:
    latents = single(padding=Padding(2, 3, 1, 2))
    moved = parse_latents(latents.act(H).to_bytes()).records[0]
    assert (moved.padding, moved.orientation) == (Padding(3, 2, 1, 2), H)
    moved = parse_latents(latents.act(H).act(V).to_bytes()).records[0]
    assert (moved.padding, moved.orientation) == (Padding(3, 2, 2, 1), HV)
    assert replace(moved, padding=Padding(2, 3, 1, 2), orientation=E) == latents.records[0]


def test_every_row_of_a_shard_follows_by_itself() -> None:
    rows = shard().records
    moved = act_on_records(V, rows)
    assert [r.orientation for r in moved] == [V @ r.orientation for r in rows]
    assert [r.padding for r in moved] == [r.padding.act(V) for r in rows]
    assert [r.source for r in moved] == [r.source for r in rows]


def test_a_shard_larger_than_a_block_is_flipped_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    latents = shard(rows=7)
    for size in (1, 2 * latents.values[0].nbytes, 3 * latents.values[0].nbytes):
        monkeypatch.setattr(latent_file, "_BLOCK_BYTES", size)
        write_flipped(tmp_path / "out", latents, HV)
        assert (tmp_path / "out").read_bytes() == latents.act(HV).to_bytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_no_decoder_can_use(dtype: StoredDtype) -> None:
    latents = single(dtype)
    assert latents.to_float32().dtype == np.float32
    values: Array = latents.values.copy()
    values[3, 1, 1], values[0, 0, 0] = dtype.from_float32(np.array([np.nan, np.inf], np.float32))
    with pytest.raises(LatentFileError, match="2 of 96 values are NaN or infinite"):
        replace(latents, values=values).to_float32()


@pytest.mark.parametrize(
    "other",
    [replace(SPACE, weights_sha256="cd" * 32), replace(SPACE, irreps=Irreps.parse("16xee"))],
)
def test_a_mismatch_names_both_models(other: LatentSpace) -> None:
    single().require_space(SPACE)
    single().require_space(replace(SPACE, model="linear under another name"))
    with pytest.raises(LatentMismatchError) as caught:
        single().require_space(replace(other, model="aura"))
    assert "'linear'" in str(caught.value)
    assert "'aura'" in str(caught.value)
    assert "--any-model" in str(caught.value)


def set_to(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header | {key: value}


def without(key: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {k: v for k, v in header.items() if k != key}


REQUIRED = ["format_version", "model", "weights_sha256", "downsampling_factor", "representation"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (edited(set_to("format_version", 2)), "latent format version 2: this auravae reads"),
        (edited(set_to("format_version", None)), "format_version: expected int, found None"),
        *((edited(without(key)), f"damaged 'auravae' header: missing {key}") for key in REQUIRED),
        (edited(without("clamp")), "missing clamp"),
        (edited(without("image_size")), r"damaged 'auravae' header: missing image_size"),
        (edited(without("rows"), shard()), "missing rows"),
        (edited(lambda header: [header]), "expected a table, found"),
        (edited(lambda header: "text"), "expected a table, found 'text'"),
        (edited(set_to("model", 5)), "expected str, found 5"),
        (edited(set_to("downsampling_factor", True)), "expected int, found True"),
        (
            edited(set_to("downsampling_factor", 0)),
            "downsampling_factor: expected a number from 1, found 0",
        ),
        (edited(set_to("downsampling_factor", 4)), "stands for 12 x 8 pixels"),
        (edited(set_to("representation", "16xff")), "is no irrep"),
        (edited(set_to("representation", 16)), "representation: expected str, found 16"),
        (edited(set_to("representation", "15xee")), r"expected a latent \[15, h, w\]"),
        (edited(set_to("clamp", [8])), r"clamp: expected float, found \[8\]"),
        *((edited(set_to("clamp", c)), "expected a positive number") for c in (0, -8)),
        *((edited(set_to("clamp", c)), "found None") for c in (float("nan"), float("inf"))),
        (edited(set_to("clamp", 10**400)), "clamp: expected a finite number, found 1000"),
        (edited(set_to("orientation", "x")), "'x' is no element of the group"),
        (edited(set_to("image_size", [21])), r"image_size: expected a list of 2, found \[21\]"),
        (edited(set_to("image_size", [21, 0])), r"image_size\[1\]: expected a number from 1"),
        (edited(set_to("image_size", [21, 12])), "but its header says"),
        (edited(set_to("padding", {"left": -1})), "padding.left: expected a number from 0"),
        (edited(set_to("padding", {"left": "1"})), "padding.left: expected int, found '1'"),
        (edited(set_to("padding", {"up": 1})), "padding.up: unknown key"),
        (edited(set_to("source", 5)), "expected str, found 5"),
        (edited(set_to("preparation", [])), "preparation: expected a table, found"),
        (edited(lambda header: header["rows"].pop() and None, shard()), "5 latents but 4 records"),
        (edited(set_to("rows", 5), shard()), "rows: expected a list, found 5"),
        (
            edited(lambda header: header["rows"][2].pop("padding") and None, shard()),
            r"rows\[2\]: missing padding",
        ),
        (
            edited(lambda header: header["rows"][2].update(image_size=[21, 11]), shard()),
            r"rows\[2\]: image_size: said of all rows already",
        ),
    ],
)
def test_a_header_at_fault_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(LatentHeaderError, match=message):
        parse_latents(data)


def raw(name: str, shape: tuple[int, ...], metadata: dict[str, str]) -> bytes:
    start = header_bytes({name: (FLOAT32, shape)}, metadata)
    return start + bytes(4 * int(np.prod(shape)))


OURS = {"auravae": json.loads(single().header()[8:])["__metadata__"]["auravae"]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw("weight", (2, 2), {}), "of other tensors: .*it holds 'weight' and no 'auravae'"),
        (raw("weight", (2, 2), OURS), r"expected the one tensor .* found \['weight'\]"),
        (raw("latent", (16, 3, 2), {"auravae": "{"}), "damaged 'auravae' header"),
        (raw("latent", (16, 3, 2), {"auravae": "[" * 99_999}), "damaged 'auravae' header"),
        (raw("latent", (16, 3, 2), {"auravae": '{"format_version": 1}'}), "missing tool_version"),
        (raw("latent", (15, 3, 2), OURS), r"expected a latent \[16, h, w\] .* found shape"),
        (raw("latent", (16, 6), OURS), r"expected a latent \[16, h, w\] .* found shape"),
        (raw("latent", (1, 16, 3, 2), OURS), r"expected a latent \[16, h, w\] .* found shape"),
        (raw("latent", (16, 2, 3), OURS), "2 x 3 cells stands for 16 x 24 pixels"),
        (raw("latent", (16, 0, 0), OURS), "0 x 0 cells"),
        (raw("latents", (16, 3, 2), OURS), "missing rows"),
    ],
)
def test_a_tensor_at_fault_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(LatentHeaderError, match=message):
        parse_latents(data)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(LatentFileError, match="cannot be read: No such file"):
        read_latents(tmp_path / "absent")
    with pytest.raises(LatentFileError, match="cannot be read: Is a directory"):
        read_latents(tmp_path)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(LatentFileError, match="the file is empty"):
        read_latents(empty)


def test_a_file_is_named_by_a_path_or_by_its_text(tmp_path: Path) -> None:
    path = tmp_path / "z.safetensors"
    path.write_bytes(single().to_bytes())
    assert same(read_latents(str(path)), read_latents(path))
    with pytest.raises(LatentFileError, match="cannot be read: No such file"):
        read_latents(str(tmp_path / "absent"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_small_files_are_not_held_open(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "z.safetensors"
    path.write_bytes(single().to_bytes())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        latents = [read_latents(path) for _ in range(most + 1)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(same(z, single()) for z in latents)


@pytest.mark.parametrize("rows", [1, 6000])
def test_large_files_are_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    maps, genuine = [], mmap.mmap

    def mapped(number: int, length: int, **options: Any) -> mmap.mmap:
        maps.append(number)
        return genuine(number, length, **options)

    monkeypatch.setattr(mmap, "mmap", mapped)
    path, latents = tmp_path / "z.safetensors", stack([single()] * rows)
    path.write_bytes(latents.to_bytes())
    assert same(read_latents(path), latents)
    assert len(maps) == (path.stat().st_size > 1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(single().to_bytes()))
    writer.start()
    assert same(read_latents(path), single())
    writer.join()


WHOLE = [single().to_bytes(), single(BFLOAT16).to_bytes(), shard().to_bytes()]


@pytest.mark.parametrize("data", WHOLE)
def test_every_truncation_is_refused(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(LatentFileError):
            parse_latents(data[:size])


def is_read_or_refused(data: bytes) -> None:
    """Nothing but our own errors; and what is read can be flipped and written."""
    try:
        found = parse_latents(data)
        assert found.act(H).act(H).to_bytes() == found.to_bytes()
        found.to_float32()
    except AuraVaeError:
        pass


@given(st.sampled_from(WHOLE), st.data())
@settings(max_examples=400)
def test_damaged_bytes_are_read_or_refused(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(damaged)))
        new = draw.draw(st.binary(max_size=4) | st.sampled_from(b'09 [ ] { } " , : - e'.split()))
        overwritten = draw.draw(st.just(len(new)) | st.integers(0, 4))
        damaged[at : at + overwritten] = new
    is_read_or_refused(bytes(damaged))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
KEYS = sorted(json.loads(OURS["auravae"])) + ["rows"]


@given(st.booleans(), st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=2))
@settings(max_examples=300)
def test_any_header_is_read_or_refused(of_shard: bool, fields: dict[str, Any]) -> None:
    latents = shard() if of_shard else single()
    is_read_or_refused(edited(lambda header: header | fields, latents))
