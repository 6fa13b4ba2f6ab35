"""Caches that trainers made, and files that others wrote in formats of many samples."""

from __future__ import annotations

import json
import sqlite3
import struct
from contextlib import closing

import numpy as np
import pytest
import torch

from auravae_cli.errors import LatentFileError, UsageError
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.export import export_latents
from auravae_cli.exchange.import_files import plan_import
from auravae_cli.exchange.registry import FORMATS
from tests.exchange import kit

Z = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(0)).clamp(-4, 4)


def adopted(name, found):
    return LatentImporter(name, kit.SPACE)(found)


def test_onetrainer(tmp_path):
    folder = tmp_path / "image" / "aa" / "variation-0"
    folder.mkdir(parents=True)
    for number in (0, 1):
        table = {"latent_image": Z[number].bfloat16(), "original_resolution": (100, 90)}
        torch.save(table | {"crop_offset": (1, 2), "latent_mask": Z[0]}, folder / f"{number}.pt")
    pictures = [{"image_path": f"/data/{stem}.png", "crop_resolution": (16, 24)} for stem in "ab"]
    torch.save(pictures, folder / "aggregate.pt")
    _, sources, _ = plan_import(str(tmp_path), "onetrainer", None, None)
    assert [source.path.name for source in sources] == ["0.pt", "1.pt"]
    (one,) = kit.read(tmp_path, "onetrainer", folder / "1.pt")
    assert (one.name, one.ignored) == ("image/aa/variation-0/b", ("latent_mask",))
    latent = adopted("onetrainer", one)
    assert latent.dtype.name == "bfloat16"
    assert latent.values.tobytes() == Z[1].bfloat16().view(torch.int16).numpy().tobytes()
    record = latent.records[0]
    assert (record.source, record.source_size) == ("b.png", (100, 90))
    (folder / "aggregate.pt").unlink()
    (one,) = kit.read(tmp_path, "onetrainer", folder / "1.pt")
    assert one.name == "image/aa/variation-0/1"


def test_nemo(tmp_path):
    table = {"latent": Z[0].half(), "prompt": "a cat", "image_path": r"C:\data\cat.jpg"}
    torch.save(table | {"original_resolution": (90, 100)}, tmp_path / "x.pt")
    (one,) = kit.read(tmp_path, "nemo", tmp_path / "x.pt")
    record = adopted("nemo", one).records[0]
    assert (one.name, record.source, record.source_size) == ("cat", "cat.jpg", (100, 90))
    assert record.annotations == {"caption": "a cat"}

    for prompt, ignored in ((["a"], ("caption",)), ("", ()), (None, ())):
        torch.save(table | {"prompt": prompt}, tmp_path / "x.pt")
        (one,) = kit.read(tmp_path, "nemo", tmp_path / "x.pt")
        assert (adopted("nemo", one).records[0].annotations, one.ignored) == ({}, ignored)
    torch.save(table | {"original_resolution": (2**70, 3)}, tmp_path / "x.pt")
    (one,) = kit.read(tmp_path, "nemo", tmp_path / "x.pt")
    with pytest.raises(LatentFileError, match=r"source_size.*64 bits"):
        adopted("nemo", one)


def diffusion_pipe(folder, tables, rows=None):
    """A shard, with its database."""
    content, places = b"", []
    for table in tables:
        torch.save(table, folder / "one")
        item = (folder / "one").read_bytes()
        places.append((len(content), len(item)))
        content += item
    (folder / "shard_0.bin").write_bytes(content)
    (folder / "metadata.db").unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / "metadata.db")) as database:
        database.execute("CREATE TABLE shard_0(offset, size)")
        database.executemany("INSERT INTO shard_0 VALUES (?, ?)", rows or places)
        database.commit()
    return folder / "shard_0.bin"


def test_diffusion_pipe(tmp_path):
    tables = [
        {
            "latents": z[:, None],
            "mask": None,
            "image_spec": [None, f"/p/{n}.png"],
            "caption": [f"c{n}"],
        }
        for n, z in enumerate(Z)
    ]
    path = diffusion_pipe(tmp_path, [*tables, {"mask": None}])
    *found, broken = kit.read(tmp_path, "diffusion-pipe", path)
    assert [one.name for one in found] == ["shard_0/0", "shard_0/1", "shard_0/2"]
    for n, (one, z) in enumerate(zip(found, Z, strict=True)):
        latent = adopted("diffusion-pipe", one)
        assert latent.values.tobytes() == z.numpy().tobytes()
        assert latent.records[0].annotations == {"caption": f"c{n}"}
    assert "no tensor 'latents'" in broken.fault
    several = [tables[0] | {"caption": captions} for captions in (["a", "b"], [], "c", [3])]
    found = kit.read(tmp_path, "diffusion-pipe", diffusion_pipe(tmp_path, several))
    assert [(one.facts["annotations"].get("caption"), one.ignored) for one in found] == [
        *(("a", ("further captions",)), (None, ()), ("c", ()), (None, ("caption",)))
    ]
    for rows in ([(0, 10**9)], [(5, 5), (0, 5)], [("a", 1)], [(0, -1)]):
        with pytest.raises(LatentFileError, match=r"metadata\.db"):
            list(kit.read(tmp_path, "diffusion-pipe", diffusion_pipe(tmp_path, tables, rows)))
    (tmp_path / "metadata.db").write_bytes(b"no database")
    with pytest.raises(LatentFileError, match="cannot be read"):
        kit.read(tmp_path, "diffusion-pipe", path)
    with closing(sqlite3.connect(tmp_path / "other.db")) as database:
        database.execute("CREATE VIEW shard_0 AS SELECT 0 AS offset, 1 AS size")
        database.commit()
    (tmp_path / "other.db").replace(tmp_path / "metadata.db")
    with pytest.raises(LatentFileError, match="no table"):
        kit.read(tmp_path, "diffusion-pipe", path)
    (tmp_path / "metadata.db").unlink()
    with pytest.raises(LatentFileError, match="not beside it"):
        kit.read(tmp_path, "diffusion-pipe", path)


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in kit.WRITTEN])
def test_they_are_not_exported(tmp_path, name):
    (tmp_path / "z.safetensors").write_bytes(kit.make_latent(0).to_bytes())
    with pytest.raises(UsageError, match="only imported"):
        export_latents(tmp_path, tmp_path / "out", name)
    torch.save([1], tmp_path / "x.pt")
    with pytest.raises(LatentFileError):
        kit.read(tmp_path, name, tmp_path / "x.pt")


def mds_shard(columns, samples):
    """A shard as `MDSWriter` lays it out; columns are (name, encoding, size)."""
    keys = ("column_names", "column_encodings", "column_sizes")
    text = json.dumps(dict(zip(keys, zip(*columns, strict=True), strict=True))).encode()
    ends = np.cumsum([4 * (len(samples) + 2) + len(text), *map(len, samples)]).astype("<u4")
    return struct.pack("<I", len(samples)) + ends.tobytes() + text + b"".join(samples)


def test_mds_of_others(tmp_path):
    """Arrays that say their own type and shape, and a pickled column, which is not loaded."""
    z = Z[0].half().numpy()
    array = bytes([18, 3 << 2, *z.shape]) + z.tobytes()
    columns = [
        ("caption", "str", None),
        ("class", "pkl", None),
        ("label", "uint8", 1),
        ("z", "ndarray", None),
    ]
    sample = struct.pack("<3I", 2, 3, len(array)) + b"hi" + b"cos" + b"\7" + array
    cut = struct.pack("<3I", 2, 3, 10**6) + sample[12:]
    (tmp_path / "z.mds").write_bytes(mds_shard(columns, [sample, cut, sample[:8]]))
    one, *others = kit.read(tmp_path, "mds", tmp_path / "z.mds")
    assert (one.name, one.ignored) == ("z/000000", ("class",))
    assert one.values.tobytes() == z.tobytes()
    assert one.facts["annotations"] == {"caption": "hi", "label": 7}
    assert all(other.fault for other in others)
    (tmp_path / "z.mds").write_bytes(mds_shard([("n", "int", 8)], [bytes(8)]))
    with pytest.raises(LatentFileError, match="no column 'latent'"):
        kit.read(tmp_path, "mds", tmp_path / "z.mds")


def litdata_index(kinds, **config):
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = {"type": "builtins.dict", "context": json.dumps(list(kinds)), "children_spec": [leaf]}
    said = {"data_format": list(kinds.values()), "data_spec": json.dumps([1, spec])}
    return json.dumps(
        {"chunks": [], "config": said | {"compression": None, "encryption": None} | config}
    )


def test_litdata_of_others(tmp_path):
    z = Z[0].numpy()
    array = struct.pack("<5I", 9, 3, *z.shape) + z.tobytes()
    sample = struct.pack("<3I", 3, len(array), 8) + b"cos" + array + struct.pack("<q", 5)
    chunk = struct.pack("<3I", 1, 12, 12 + len(sample)) + sample
    (tmp_path / "chunk-0-0.bin").write_bytes(chunk)
    kinds = {"class": "pickle", "latents": "numpy", "label": "int"}
    (tmp_path / "index.json").write_text(litdata_index(kinds))
    (one,) = kit.read(tmp_path, "litdata", tmp_path / "chunk-0-0.bin")
    assert one.values.tobytes() == z.tobytes()
    assert (one.ignored, one.facts["annotations"]) == (("class",), {"label": 5})
    for index, reason in (
        (litdata_index({"label": "int"}), "no tensor"),
        (litdata_index(kinds, compression="zstd"), "compressed"),
        ("{}", "no tables"),
        ('{"config": {}}', "no tables"),
    ):
        (tmp_path / "index.json").write_text(index)
        with pytest.raises(LatentFileError, match=reason):
            kit.read(tmp_path, "litdata", tmp_path / "chunk-0-0.bin")
    (tmp_path / "index.json").unlink()
    (one,) = kit.read(tmp_path, "litdata", tmp_path / "chunk-0-0.bin")
    assert one.fault


def test_hdf5_that_leads_elsewhere_is_not_followed(tmp_path):
    h5py = pytest.importorskip("h5py")
    both = np.zeros((8, 2, 3), np.float32)
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["z.npy"] = both
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["here.npy"] = both
        file["linked.npy"] = h5py.ExternalLink("other.h5", "z.npy")
        file["dataset.json"] = h5py.ExternalLink("other.h5", "z.npy")
        layout = h5py.VirtualLayout((8, 2, 3), np.float32)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "z.npy", (8, 2, 3))
        file.create_virtual_dataset("virtual.npy", layout)
        raw = [(str(tmp_path / "raw"), 0, both.nbytes)]
        file.create_dataset("raw.npy", both.shape, both.dtype, external=raw)
    found = {one.name: one.fault for one in kit.read(tmp_path, "repa-e", tmp_path / "z.h5")}
    assert found.keys() == {"here", "virtual", "raw"}
    assert not found["here"]
    assert all("another file" in found[name] for name in ("virtual", "raw"))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"chunks": (4, 2, 3), "compression": "gzip"},
        {"dtype": ">f4"},
        {"userblock": 512},
        {"userblock": 1024, "dtype": "float16"},
    ],
    ids=str,
)
def test_hdf5_is_read_however_its_values_lie(tmp_path, how):
    h5py = pytest.importorskip("h5py")
    how = dict(how)
    both = np.concatenate([kit.make_latent(0).values.astype(np.float32), np.zeros((4, 3, 4))])
    with h5py.File(tmp_path / "z.h5", "w", userblock_size=how.pop("userblock", 0)) as file:
        file.create_dataset("a/é.npy", data=both, **{"dtype": "f4", **how})
    (one,) = kit.read(tmp_path, "repa-e", tmp_path / "z.h5")
    assert (one.name, one.fault, one.ignored) == ("a/é", "", ())
    assert one.values.dtype.isnative
    assert np.array_equal(one.values, kit.make_latent(0).values)


def test_a_prompt_of_sana_is_the_caption(tmp_path):
    path, *_ = kit.write(tmp_path, "sana", kit.make_latent(0))
    content = path.read_bytes().replace(b'"weights_sha256"', b'"weights_sha265"')
    path.write_bytes(content)
    (one,) = kit.read(tmp_path, "sana", path)
    assert one.known is None and one.facts["annotations"]["caption"] == "a café"
