"""Export then import gives back the very latent, wherever our metadata can travel; values always do."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file

from auravae_cli.errors import LatentFileError, LatentMismatchError
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.formats.base import Choices, Foreign, Found
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents.dtypes import FLOAT16, STORED_DTYPES
from auravae_cli.latents.latent_file import stack
from auravae_cli.symmetry.group import GROUP, H
from tests.exchange import kit

NOTED = [name for name, form in FORMATS.items() if form.note]
LATENTS = st.builds(
    kit.make_latent,
    seed=st.integers(0, 2**32),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    dtype=st.sampled_from(list(STORED_DTYPES)),
    g=st.sampled_from(GROUP),
    label=st.none() | st.integers(0, 999),
    caption=st.none() | st.text(max_size=20),
    cropped=st.booleans(),
)


def import_back(name, exported):
    """What import makes of the files that export wrote, without a disk."""
    adopt = LatentImporter(name, None if FORMATS[name].note else kit.SPACE)
    for file in exported:
        content = b"".join(bytes(piece) for piece in file.pieces())
        for found in FORMATS[name].read(Foreign(content, "nowhere", file.name)):
            if not found.is_copy:
                yield adopt(found)


def export(name, latent):
    form = kit.needed(name)
    choices = Choices(True, next(iter(form.archs), ""))
    content = stack([latent]) if form.stacked else latent
    files = list(form.write(content, ["sub/a photo"], 0, choices))
    if not form.collects:
        return files
    index = form.index()
    index.add(files[0], content)
    file = next(index.files())
    held = b"".join(file.pieces())
    index.close()
    return [replace(file, pieces=lambda: [held])]


@pytest.mark.parametrize("name", NOTED)
@given(latent=LATENTS)
@settings(max_examples=25, deadline=None)
def test_with_our_metadata_the_very_latent_comes_back(name, latent):
    (back,) = import_back(name, export(name, latent))
    assert back.to_bytes() == latent.to_bytes()


@pytest.mark.parametrize("name", [name for name in kit.WRITTEN if name not in NOTED])
@given(latent=LATENTS)
@settings(max_examples=25, deadline=None)
def test_without_it_the_values_do_bit_for_bit(name, latent):
    (back,) = import_back(name, export(name, latent))
    expected = latent.dtype.to_float32(latent.values)
    assert back.dtype.to_float32(back.values).tobytes() == expected.tobytes()
    assert back.space == kit.SPACE
    if latent.dtype.name in FORMATS[name].dtypes:
        assert back.dtype == latent.dtype


@pytest.mark.parametrize("name", kit.WRITTEN)
@given(latent=LATENTS)
@settings(max_examples=10, deadline=None)
def test_equal_latents_give_equal_bytes(name, latent):
    files = [export(name, latent) for _ in range(2)]
    first, second = ([(f.name, b"".join(map(bytes, f.pieces()))) for f in some] for some in files)
    assert first == second


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].stacked])
def test_a_stack_keeps_its_rows_apart(name):
    latents = [kit.make_latent(seed, g=g, label=seed) for seed, g in enumerate(GROUP)]
    named = [
        replace(z, records=(replace(z.records[0], key=f"{n}.x"),)) for n, z in enumerate(latents)
    ]
    form = FORMATS[name]
    files = form.write(stack(named), [f"{n}.x" for n in range(4)], 0, Choices())
    back = list(import_back(name, files))
    assert [z.to_bytes() for z in back] == [z.to_bytes() for z in named]


def test_a_changed_value_is_not_rounded_away():
    (file,) = export("kohya", kit.make_latent(0))
    content = io.BytesIO(b"".join(map(bytes, file.pieces())))
    with np.load(content) as arrays:
        changed = {key: arrays[key].copy() for key in arrays.files}
    changed["latents_3x4"][0, 0, 0] = np.float32(0.1)  # no float16
    buffer = io.BytesIO()
    np.savez(buffer, **changed)
    (found,) = FORMATS["kohya"].read(Foreign(buffer.getvalue(), "", file.name))
    back = LatentImporter("kohya", kit.SPACE)(found)
    assert back.dtype.name == "float32"
    assert back.values[0, 0, 0] == np.float32(0.1)


def found(values, dtype=FLOAT16, **facts):
    return Found("z", np.asarray(values, dtype.numpy), dtype, facts=facts)


def test_a_latent_of_a_model_nobody_names_is_refused():
    with pytest.raises(LatentMismatchError, match="--assume-model"):
        LatentImporter("npy")(found(np.zeros((4, 2, 2))))


def test_another_model_than_the_assumed_is_refused():
    (exported,) = export("comfyui", kit.make_latent(0))
    content = b"".join(map(bytes, exported.pieces()))
    (one,) = FORMATS["comfyui"].read(Foreign(content, "", "z.latent"))
    other = replace(kit.SPACE, model="another", weights_sha256="0" * 64)
    with pytest.raises(LatentMismatchError, match=r"'toy'.*'another'"):
        LatentImporter("comfyui", other)(one)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((3, 2, 2)), r"shape \[3, 2, 2\]: expected \[4, h, w\]"),
        (np.zeros((4, 2)), "shape"),
        (np.zeros((1, 4, 2, 2)), "shape"),
        (np.zeros((4, 0, 2)), "shape"),
        (np.full((4, 2, 2), np.nan), "16 values are NaN"),
        (np.full((4, 2, 2), np.inf), "infinite"),
        (np.full((4, 2, 2), 4.5), "16 beyond the clamp of 4.*scaled"),
    ],
)
def test_what_is_no_latent_is_refused(values, message):
    with pytest.raises(LatentFileError, match=message):
        LatentImporter("npy", kit.SPACE)(found(values))


def test_rounding_beyond_the_range_is_refused():
    huge = replace(kit.SPACE, clamp=1e6)
    with pytest.raises(LatentFileError, match="infinite"):
        LatentImporter("npy", huge, FLOAT16)(
            found(np.full((4, 2, 2), 1e5), STORED_DTYPES["float32"])
        )


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint16, np.complex64])
def test_other_numbers_are_refused(dtype):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((4, 2, 2), dtype))
    (one,) = FORMATS["npy"].read(Foreign(buffer.getvalue(), "", "z.npy"))
    with pytest.raises(LatentFileError, match="expected one of float16"):
        LatentImporter("npy", kit.SPACE)(one)


@pytest.mark.parametrize("name", kit.WRITTEN)
def test_damaged_files_are_refused_whatever_is_cut_off(name, tmp_path):
    path, *_ = kit.write(tmp_path, name, kit.make_latent(0))
    content = path.read_bytes()
    tar = path.suffix == ".tar"
    half = 700 if tar else len(content) // 2  # what a tar ends with is zeros
    last = 1500 if tar else len(content) - 1
    for length in (0, 1, 9, 60, half, last):
        with pytest.raises(LatentFileError):
            for one in FORMATS[name].read(Foreign(content[:length], str(tmp_path), path.name)):
                LatentImporter(name, None if FORMATS[name].note else kit.SPACE)(one)


@pytest.mark.parametrize("name", kit.WRITTEN)
def test_files_of_something_else_are_refused(name):
    kit.needed(name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", "hello")
    for content in (b"<html>", b"\x00" * 4096, buffer.getvalue(), b"\x93NUMPY\x01\x00"):
        if name in ("webdataset", "sana") and not any(content):
            continue  # an empty tar
        with pytest.raises(LatentFileError):
            list(FORMATS[name].read(Foreign(content, "", "a.bin")))


@pytest.mark.parametrize("name", ["kohya", "mar", "npz"])
def test_a_flipped_bit_is_noticed_by_the_checksum(name, tmp_path):
    path, *_ = kit.write(tmp_path, name, kit.make_latent(0))
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    with pytest.raises(LatentFileError, match=r"checksum|damaged"):
        list(FORMATS[name].read(Foreign(bytes(content), "", path.name)))


@pytest.mark.parametrize("name", ["kohya", "npz"])
def test_compressed_files_are_read(name, tmp_path):
    path, *_ = kit.write(tmp_path, name, kit.make_latent(0))
    with np.load(path) as arrays:
        np.savez_compressed(path, **{key: arrays[key] for key in arrays.files})
    (one,) = kit.read(tmp_path, name, path)
    assert one.known.to_bytes() == kit.make_latent(0).to_bytes()


def test_pickles_that_hold_code_are_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    buffer = io.BytesIO()
    torch.save({"latents": Bomb()}, buffer)
    with pytest.raises(LatentFileError, match="weights alone"):
        list(FORMATS["pt"].read(Foreign(buffer.getvalue(), "", "z.pt")))
    assert not (tmp_path / "ran").exists()


def test_arrays_of_objects_are_never_loaded():
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(LatentFileError, match="objects"):
        list(FORMATS["npy"].read(Foreign(buffer.getvalue(), "", "z.npy")))


def test_what_others_write_is_read(tmp_path):
    values = torch.randn(2, 4, 2, 3).clamp(-4, 4)
    adopt = {name: LatentImporter(name, kit.SPACE) for name in FORMATS}

    save_file(
        {"latent_tensor": values, "latent_format_version_0": torch.tensor([])}, tmp_path / "c"
    )
    two = kit.read(tmp_path, "comfyui", tmp_path / "c")
    assert [z.name for z in two] == ["c-0", "c-1"]
    assert np.array_equal(adopt["comfyui"](two[1]).values, values[1].numpy())

    save_file({"latent_tensor": values[:1] * 0.18215}, tmp_path / "old")
    (old,) = kit.read(tmp_path, "comfyui", tmp_path / "old")
    assert np.allclose(old.values, values[0].numpy(), atol=1e-6)

    (tmp_path / "00000").mkdir()
    std = torch.rand(4, 2, 3)
    np.save(tmp_path / "00000/img-mean-std-00000007.npy", torch.cat([values[0], std]).numpy())
    labels = {"labels": [["00000/img-mean-std-00000007.npy", 11]]}
    (tmp_path / "dataset.json").write_text(json.dumps(labels))
    (one,) = kit.read(tmp_path, "edm2", tmp_path / "00000/img-mean-std-00000007.npy")
    assert one.ignored == ("standard deviation",)
    assert adopt["edm2"](one).records[0].annotations == {"label": 11}

    metadata = {"filename": "a.jpg", "flip_x": "true", "latent_version": "1"}
    (tmp_path / "_latent_cache").mkdir()
    path = tmp_path / "_latent_cache" / f"a_{'x' * 22}.safetensors"
    save_file({"latent": values[0].bfloat16()}, path, metadata)
    (one,) = kit.read(tmp_path, "ai-toolkit", path)
    latent = adopt["ai-toolkit"](one)
    assert (one.name, latent.dtype.name, latent.records[0].orientation) == ("a.h", "bfloat16", H)
    assert latent.records[0].source == "a.jpg"

    path = tmp_path / "b_0040x0030_zi.safetensors"
    save_file({"latents_1x2x3_float16": values[0].half()}, path, {"width": "40", "height": "30"})
    (one,) = kit.read(tmp_path, "musubi", path)
    assert (one.name, adopt["musubi"](one).records[0].source_size) == ("b", (30, 40))

    np.savez(
        tmp_path / "k_0024x0016_sdxl.npz",
        **{"latents": values[0], "original_size": [24, 16], "crop_ltrb": [0, 0, 24, 16]},
    )
    (one,) = kit.read(tmp_path, "kohya", tmp_path / "k_0024x0016_sdxl.npz")
    record = adopt["kohya"](one).records[0]
    assert (one.name, record.image_size, record.source_size) == ("k", (16, 24), None)
    assert record.preparation == {"imported_from": "kohya", "crop_ltrb": [0, 0, 24, 16]}

    torch.save({"samples": values, "step": 3}, tmp_path / "d.pt")
    assert [z.ignored for z in kit.read(tmp_path, "pt", tmp_path / "d.pt")] == [("step",)] * 2


def test_kohya_files_of_several_sizes(tmp_path):
    arrays = {}
    for height, width in ((2, 3), (4, 4)):
        key = f"_{height}x{width}"
        arrays |= {
            f"latents{key}": np.zeros((4, height, width), np.float32),
            f"original_size{key}": np.array([100, 80]),
            f"crop_ltrb{key}": np.array([0, 0, 8 * width, 8 * height]),
        }
    path = tmp_path / "k_0100x0080_flux.npz"
    np.savez(path, **arrays)
    one, other = kit.read(tmp_path, "kohya", path)
    assert (one.name, other.name) == ("k.2x3", "k.4x4")
    assert (one.values.shape, other.values.shape) == ((4, 2, 3), (4, 4, 4))
