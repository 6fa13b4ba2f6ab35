"""Captions, labels and keys of others: taken over if they are any, told if not, and never stored unread."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from dataclasses import replace

import numpy as np
import pandas
import pytest
from safetensors.numpy import save_file

from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.formats.base import Found
from auravae_cli.exchange.formats.tensors import saved
from auravae_cli.exchange.import_files import import_files
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents import safetensors_file
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT32
from auravae_cli.latents.latent_file import parse_latents
from tests.exchange import kit
from tests.exchange.test_caches import litdata_index, mds_shard

Z = kit.make_latent(0, 16, 24, dtype="float32").values


def table(folder, **columns):
    """What is found in a Parquet table of others: a row for each value of a column."""
    rows = len(next(iter(columns.values())))
    latents = {"latent": [Z.reshape(-1)] * rows, "shape": [list(Z.shape)] * rows}
    pandas.DataFrame(latents | columns).to_parquet(folder / "t.parquet")
    return kit.read(folder, "parquet", folder / "t.parquet")


def annotations(found):
    """What import keeps, as it is read from the latent's file."""
    latent = LatentImporter("x", kit.SPACE)(found)
    return parse_latents(latent.to_bytes()).records[0].annotations


def test_labels_beside_a_missing_one_are_numbers_with_a_point(tmp_path):
    found = table(tmp_path, label=[1, None, 2])
    assert [annotations(one) for one in found] == [{"label": 1}, {}, {"label": 2}]
    assert not any(one.ignored for one in found)


@pytest.mark.parametrize("label", ["cat", True, 1.5, [3]], ids=str)
def test_what_is_no_label_is_told(tmp_path, label):
    (one,) = table(tmp_path, label=[label])
    assert (annotations(one), one.ignored) == ({}, ("label",))


def test_numbers_beyond_64_bits_and_lists_are_told(tmp_path):
    (one,) = table(tmp_path, label=np.array([2**63], np.uint64), caption=[["a", "b"]])
    assert (annotations(one), one.ignored) == ({}, ("caption", "label"))


def test_integers_are_keys(tmp_path):
    assert [one.name for one in table(tmp_path, key=np.uint64([7, 2**64 - 1]))] == [
        *("7", "18446744073709551615")
    ]
    assert [one.name for one in table(tmp_path, key=[7, None])] == ["7", "t/000001"]
    made = import_files(tmp_path, tmp_path / "out", "parquet").outcomes  # and no traceback
    assert {outcome.status for outcome in made} == {"failed"}


@pytest.mark.parametrize(
    "facts",
    [
        {"source_size": (2**70, 3)},
        {"source_size": (2.5, 3)},
        {"source": 3},
        {"annotations": {"label": 2.0}},
        {"annotations": {"caption": ["a"]}},
    ],
    ids=str,
)
def test_what_could_not_be_read_again_is_refused(facts):
    with pytest.raises(LatentFileError, match=f"{next(iter(facts))}.*correct that in the file"):
        LatentImporter("x", kit.SPACE)(Found("z", Z, FLOAT32, facts=facts))


@pytest.mark.parametrize(
    ("encoding", "content", "kept"),
    [
        ("str", b"7", {"label": 7}),
        ("str_int", b"7", {"label": 7}),
        ("int", struct.pack("<q", -5), {"label": -5}),
        ("int", struct.pack("<q", -1), {}),
        ("float64", struct.pack("<d", 7), {"label": 7}),
        ("json", b"7", {"label": 7}),
        ("json", b"true", None),
        ("str", b"cat", None),
        ("uint64", struct.pack("<Q", 2**63), None),
        ("pkl", b"cos", None),
    ],
)
def test_labels_of_mds(tmp_path, encoding, content, kept):
    array = bytes([34, 3 << 2, *Z.shape]) + Z.tobytes()
    columns = [("key", "int", 8), ("label", encoding, None), ("latent", "ndarray", None)]
    sample = struct.pack("<2I", len(content), len(array)) + struct.pack("<q", 9) + content + array
    (tmp_path / "z.mds").write_bytes(mds_shard(columns, [sample]))
    (one,) = kit.read(tmp_path, "mds", tmp_path / "z.mds")
    assert (one.name, annotations(one)) == ("9", kept or {})
    assert one.ignored == (("label",) if kept is None else ())


def test_labels_of_litdata(tmp_path):
    kinds = {"key": "int", "label": "str", "caption": "bytes", "latents": "numpy", "z": "numpy"}
    array = struct.pack("<5I", 9, 3, *Z.shape) + Z.tobytes()
    fields = [struct.pack("<q", 9), b"-7", b"?", array, array]
    sample = struct.pack("<5I", *map(len, fields)) + b"".join(fields)
    chunk = struct.pack("<3I", 1, 12, 12 + len(sample)) + sample
    (tmp_path / "chunk-0-0.bin").write_bytes(chunk)
    (tmp_path / "index.json").write_text(litdata_index(kinds))
    (one,) = kit.read(tmp_path, "litdata", tmp_path / "chunk-0-0.bin")
    assert (one.name, annotations(one)) == ("9", {"label": -7})
    assert one.ignored == ("z", "caption")


@pytest.mark.parametrize("name", ["parquet", "mds", "litdata", "webdataset", "sana"])
def test_names_and_captions_that_are_no_text_are_written(tmp_path, name):
    latent = kit.make_latent(0, caption="a\ud800")
    form = kit.needed(name)
    (file,) = form.write(kit.stack([latent]), ["b\udcff"], 0, kit.Choices())
    path = tmp_path / file.name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(map(bytes, file.pieces())))
    (one,) = kit.read(tmp_path, name, path)
    assert not one.fault
    assert LatentImporter(name)(one).to_bytes() == latent.to_bytes()
    assert json.dumps(one.name)


LABEL = 123456789
EDITS = {
    "caption": ("a café".encode(), "b café".encode()),
    "label": (struct.pack("<q", LABEL), struct.pack("<q", 5)),
}
OTHERS = {
    ("sana", "caption"): (rb'"prompt":"a caf', rb'"prompt":"b caf'),
    ("webdataset", "label"): (b"%d\0" % LABEL, b"5".ljust(10)),
}


@pytest.mark.parametrize(
    ("name", "edited"),
    [
        *((name, "caption") for name in ("webdataset", "sana", "parquet", "mds", "litdata")),
        *((name, "label") for name in ("webdataset", "parquet", "mds", "litdata", "lightningdit")),
    ],
)
def test_what_was_edited_since_the_export_is_taken_over(tmp_path, name, edited):
    latent = kit.make_latent(0, label=LABEL)
    path, *_ = kit.write(tmp_path, name, latent)
    before, after = OTHERS.get((name, edited), EDITS[edited])
    content = path.read_bytes()
    assert content.count(before) == 1
    path.write_bytes(content.replace(before, after))
    (one,) = kit.read(tmp_path, name, path)
    back = LatentImporter(name)(one)
    expected = latent.records[0].annotations | {
        edited: "b café" if edited == "caption" else 5,
    }
    assert back.records[0].annotations == expected
    record = replace(latent.records[0], annotations=expected)
    assert back.to_bytes() == replace(latent, records=(record,)).to_bytes()


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.note])
@pytest.mark.parametrize("caption", [None, "", " spaces\n"])
def test_what_formats_write_for_none_is_no_edit(tmp_path, name, caption):
    for number, key in enumerate(("photo", "sub/photo", "000012/photo")):
        latent = kit.make_latent(0, label=None, caption=caption)
        record = replace(latent.records[0], key=key)
        latent = replace(latent, records=(record,))
        folder = tmp_path / str(number)
        path, *_ = kit.write(folder, name, latent)
        (one,) = kit.read(folder, name, path)
        assert LatentImporter(name)(one).to_bytes() == latent.to_bytes()


def mar(path, label):
    """A latent of mar, exported with a label to a folder of it, and moved to a path."""
    folder = path.parents[1] / "exported"
    latent = kit.make_latent(0, label=label)
    made, *_ = kit.write(folder, "mar", latent)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.rename(path)
    return latent


@pytest.mark.parametrize(("label", "folder"), [(3, "000005"), (3, "000000"), (None, "000005")])
def test_a_file_of_mar_in_another_class_has_its_label(tmp_path, label, folder):
    path = tmp_path / "in" / folder / "photo.npz"
    mar(path, label)
    (one,) = kit.read(tmp_path / "in", "mar", path)
    assert LatentImporter("mar")(one).records[0].annotations["label"] == int(folder)


def test_a_copy_of_a_file_of_mar_keeps_its_label(tmp_path):
    path = tmp_path / "in" / "some copies" / "photo.npz"
    latent = mar(path, 3)
    for root in (path.parents[1], path.parent):
        (one,) = kit.read(root, "mar", path)
        assert LatentImporter("mar")(one).to_bytes() == latent.to_bytes()


def test_a_class_of_mar_is_known_without_the_folder_above(tmp_path):
    z = np.concatenate([Z, np.full_like(Z, -30)])
    for folder in ("cats", "dogs", "000007"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        np.savez(tmp_path / "in" / folder / "photo.npz", moments=z, moments_flip=z)
    for folder, label in (("000007", 7), ("cats", 1), ("dogs", 2)):
        named = tmp_path / "in" / folder
        (one,) = kit.read(named, "mar", named / "photo.npz")
        assert annotations(one) == {"label": label}
    np.savez(tmp_path / "photo.npz", moments=z, moments_flip=z)  # in no class
    (one,) = kit.read(tmp_path, "mar", tmp_path / "photo.npz")
    assert annotations(one) == {}


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def npy(values):
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["webdataset", "sana"])
def test_flipped_arrays_before_the_latent_and_captions_of_both_names(tmp_path, name):
    members = {
        "a.flipped.npy": npy(-Z),
        "a.latents.npy": npy(Z),
        "a.caption": b"a cat",
        "b.caption": b"longer",
        "b.txt": b"a dog",
        "b.x.npy": npy(Z),
        "c.latent_flip.npy": npy(Z),
    }
    tar(tmp_path / "a.tar", members)
    a, b, c = kit.read(tmp_path, name, tmp_path / "a.tar")
    assert np.array_equal(a.values, Z)
    assert (annotations(a), a.ignored) == ({"caption": "a cat"}, (".flipped.npy",))
    assert (annotations(b), b.ignored) == ({"caption": "a dog"}, (".caption",))
    assert "only flipped copies" in c.fault


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_tensors_are_saved_without_a_warning(dtype):
    latent = kit.make_latent(0, dtype=dtype)
    latent.values.flags.writeable = False  # as a file's are
    assert saved(latent.values, latent.dtype)


@pytest.mark.parametrize("name", ["npz", "safetensors"])
def test_a_flipped_copy_alone_is_no_latent(tmp_path, name):
    content = {"latent_flipped": Z, "mask": Z[0]}
    save = np.savez if name == "npz" else lambda path, **arrays: save_file(arrays, path)
    save(tmp_path / f"a.{name}", **content)
    with pytest.raises(LatentFileError):
        one = kit.read(tmp_path, name, tmp_path / f"a.{name}")
        LatentImporter(name, kit.SPACE)(one[0])


def test_labels_of_lightningdit_with_a_fraction_are_told(tmp_path):
    content = {"latents": Z[None].repeat(2, 0), "labels": np.array([1.5, 2], np.float32)}
    save_file(content, tmp_path / "a.safetensors")
    one, other = kit.read(tmp_path, "lightningdit", tmp_path / "a.safetensors")
    assert (annotations(one), one.ignored) == ({}, ("labels",))
    assert (annotations(other), other.ignored) == ({"label": 2}, ())
    words = (BFLOAT16, (2,)), BFLOAT16.from_float32(np.array([7, 8], np.float32))
    latents = (FLOAT32, (2, *Z.shape)), Z[None].repeat(2, 0)
    header = safetensors_file.header_bytes({"labels": words[0], "latents": latents[0]}, {})
    path = tmp_path / "b.safetensors"
    path.write_bytes(header + words[1].tobytes() + latents[1].tobytes())
    found = kit.read(tmp_path, "lightningdit", path)
    assert [annotations(one) for one in found] == [{"label": 7}, {"label": 8}]
