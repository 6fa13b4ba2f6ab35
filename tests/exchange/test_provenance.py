"""Our metadata speaks only of the values that it was written with, whatever rewrites the file."""

from __future__ import annotations

import io
import json
import re
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from auravae_cli.errors import LatentFileError, LatentMismatchError
from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.export import export_latents
from auravae_cli.exchange.formats.base import NOTE, SHA256, Choices, source_name
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.symmetry.group import E, H
from tests.exchange import kit

NOTED = [name for name, form in FORMATS.items() if form.note]


def adopted(folder, name, path, assumed=None):
    """What import makes of a file's latents, copies left out."""
    adopt = LatentImporter(name, assumed)
    return [adopt(found) for found in kit.read(folder, name, path) if not found.is_copy]


def change_npz(path, change):
    with np.load(path) as arrays:
        content = {key: arrays[key].copy() for key in arrays.files}
    change(content)
    np.savez(path, **content)


def change_safetensors(path, change):
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    content = {key: array.copy() for key, array in load_file(path).items()}
    change(content)
    save_file(content, path, metadata)


def change_tar(path, change):
    members = {}
    with tarfile.open(path) as archive:
        for member in archive:
            members[member.name] = archive.extractfile(member).read()
    name = next(name for name in members if name.endswith(".npy"))
    content = {"z": np.load(io.BytesIO(members[name]))}
    change(content)
    buffer = io.BytesIO()
    np.save(buffer, content["z"])
    members[name] = buffer.getvalue()
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def change_parquet(path, change):
    table = pyarrow.parquet.read_table(path)
    column = table.column("latent").combine_chunks()
    content = {"z": column.flatten().to_numpy().reshape(1, 1, -1).copy()}
    change(content)
    flat = pyarrow.array(content["z"].reshape(-1))
    changed = pyarrow.FixedSizeListArray.from_arrays(flat, column.type.list_size)
    pyarrow.parquet.write_table(table.set_column(0, "latent", changed), path)


def change_tail(path, change):
    """Of files that end with the latent: float32 [4, 3, 4]."""
    content = path.read_bytes()
    tail = {"latent": np.frombuffer(content[-192:], "<f4").reshape(4, 3, 4).copy()}
    change(tail)
    path.write_bytes(content[:-192] + tail["latent"].tobytes())


REWRITE = {
    "mds": change_tail,
    "litdata": change_tail,
    "sana": change_tar,
    "parquet": change_parquet,
    "kohya": change_npz,
    "mar": change_npz,
    "npz": change_npz,
    "webdataset": change_tar,
}


@pytest.mark.parametrize("name", NOTED)
def test_other_values_under_our_metadata_are_foreign(tmp_path, name):
    """As sd-scripts does: it writes its own latents, and keeps what else a file holds."""
    latent = kit.make_latent(0, dtype="float32")
    path, *_ = kit.write(tmp_path, name, latent)
    rewrite = REWRITE.get(name, change_safetensors)
    rewrite(path, lambda content: None)
    assert [z.to_bytes() for z in adopted(tmp_path, name, path)] == [latent.to_bytes()]

    def halve(content):
        for key in content:
            if content[key].ndim >= 3 and "flip" not in key:
                content[key] /= 2

    rewrite(path, halve)
    with pytest.raises(LatentMismatchError, match="--assume-model"):
        adopted(tmp_path, name, path)
    (foreign,) = adopted(tmp_path, name, path, kit.SPACE)
    assert foreign.records[0].preparation["imported_from"] == name
    assert np.array_equal(foreign.values, latent.values / 2)


def test_metadata_without_a_hash_is_no_proof(tmp_path):
    path, *_ = kit.write(tmp_path, "npz", kit.make_latent(0))

    def forget(content):
        note = json.loads(content[NOTE].tobytes())
        assert note.pop(SHA256)
        content[NOTE] = np.frombuffer(json.dumps(note).encode(), np.uint8)

    change_npz(path, forget)
    with pytest.raises(LatentMismatchError):
        adopted(tmp_path, "npz", path)


def latents_of_one_picture(folder):
    """Two latents of a picture, in two sizes; a path for each."""
    whole, part = kit.make_latent(0), kit.make_latent(1, 16, 16, cropped=True)
    paths = []
    for name, latent in (("a", whole), ("b", part)):
        path = folder / name / "photo.safetensors"
        path.parent.mkdir()
        record = replace(latent.records[0], source_size=(21, 30), source_box=None)
        path.write_bytes(replace(latent, records=(record,)).to_bytes())
        paths.append(path)
    return paths


def test_two_sizes_of_a_picture_share_a_file_of_sd_scripts(tmp_path):
    paths, out = latents_of_one_picture(tmp_path), tmp_path / "out"
    outcomes = export_latents(paths, out, "kohya").outcomes
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    (file,) = out.iterdir()
    with np.load(file) as arrays:
        assert {key for key in arrays.files if key.startswith("latents_")} == {
            *("latents_3x4", "latents_2x2", "latents_flipped_3x4", "latents_flipped_2x2")
        }
    back = adopted(out, "kohya", file)
    assert sorted(z.to_bytes() for z in back) == sorted(p.read_bytes() for p in paths)
    again = export_latents(paths[::-1], out, "kohya").outcomes
    assert [outcome.status for outcome in again] == ["skipped", "skipped"]
    other = export_latents(paths[::-1], tmp_path / "other", "kohya").outcomes
    assert [outcome.status for outcome in other] == ["done", "done"]
    assert next((tmp_path / "other").iterdir()).read_bytes() == file.read_bytes()


def test_sizes_that_sd_scripts_added_are_kept_and_foreign(tmp_path):
    paths, out = latents_of_one_picture(tmp_path), tmp_path / "out"
    list(export_latents(paths[:1], out, "kohya").outcomes)
    (file,) = out.iterdir()

    def save_latents_to_disk(content):  # library/strategy_base.py
        content["latents_5x6"] = np.ones((4, 5, 6), np.float32)
        content["original_size_5x6"] = np.array([30, 21])
        content["crop_ltrb_5x6"] = np.array([0, 0, 48, 40])

    change_npz(file, save_latents_to_disk)
    ours, theirs = kit.read(out, "kohya", file)
    assert LatentImporter("kohya")(ours).to_bytes() == paths[0].read_bytes()
    with pytest.raises(LatentMismatchError):
        LatentImporter("kohya")(theirs)
    list(export_latents(paths[1:], out, "kohya").outcomes)
    assert len(kit.read(out, "kohya", file)) == 3
    change_npz(file, lambda content: content["latents_3x4"].fill(0))
    (kept,) = export_latents(paths[:1], out, "kohya").outcomes
    assert kept.status == "failed" and "--overwrite" in kept.reason
    (done,) = export_latents(paths[:1], out, "kohya", overwrite=True).outcomes
    assert done.status == "done"
    assert len(kit.read(out, "kohya", file)) == 3


FOLDING = [("kohya", "sd3"), ("musubi", "zi")]


@pytest.mark.parametrize(("name", "arch"), FOLDING)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_shift_can_be_folded_in_and_out_again(tmp_path, name, arch, dtype):
    latent = kit.make_latent(0, dtype=dtype)
    network = FORMATS[name].archs[arch]
    path, *_ = kit.write(tmp_path, name, latent, Choices(True, arch, network))
    z, mirrored = kit.plain_and_mirrored(latent)
    content = dict(np.load(path)) if name == "kohya" else load_file(path)
    for key, expected in (("latents_", z), ("latents_flipped_", mirrored)):
        for found in (a for k, a in content.items() if k.startswith(key) and k[len(key)].isdigit()):
            assert found.dtype == np.float32
            trained = (found - np.float32(network.shift)) * np.float32(network.scale)
            assert np.abs(trained - expected).max() < 1e-6
    (back,) = adopted(tmp_path, name, path)
    assert back.to_bytes() == latent.to_bytes()


@pytest.mark.parametrize(("name", "arch"), FOLDING)
def test_a_shift_is_folded_out_of_float32_up_to_rounding(tmp_path, name, arch):
    latent = kit.make_latent(0, dtype="float32")
    latent.values[:, 0, :2] = [4, -4]  # at the clamp, which rounding must not exceed
    network = FORMATS[name].archs[arch]
    path, *_ = kit.write(tmp_path, name, latent, Choices(True, arch, network))
    for assumed in (None, kit.SPACE):
        (back,) = adopted(tmp_path, name, path, assumed)
        assert back.dtype.name == "float32" and back.records == latent.records
        assert np.abs(back.values - latent.values).max() < 1e-6


@pytest.mark.parametrize(("name", "arch"), FOLDING)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_changed_values_under_a_folded_shift_are_refused(tmp_path, name, arch, dtype):
    """They could be folded or not: the trainer may have written its own."""
    latent = kit.make_latent(0, dtype=dtype)
    path, *_ = kit.write(tmp_path, name, latent, Choices(True, arch, FORMATS[name].archs[arch]))

    def halve(content):
        for key in content:
            if re.match(r"latents_\d", key):
                content[key] /= 2

    REWRITE.get(name, change_safetensors)(path, halve)
    for assumed in (None, kit.SPACE):
        with pytest.raises(LatentFileError, match=r"--for-shift.*export the latent again"):
            adopted(tmp_path, name, path, assumed)


@pytest.mark.parametrize("flipped", [True, False])
def test_a_folded_file_of_kohya_is_no_plain_one(tmp_path, flipped):
    choices = Choices(flipped, "sd3", FORMATS["kohya"].archs["sd3"])
    path, *_ = kit.write(tmp_path, "kohya", kit.make_latent(0), choices)
    with pytest.raises(LatentFileError, match="--from kohya"):
        adopted(tmp_path, "npz", path, kit.SPACE)


@pytest.mark.parametrize("arch", FORMATS["musubi"].archs)
def test_a_file_of_musubi_is_a_safetensors_file_of_one_latent(tmp_path, arch):
    """[C, 1, h, w] for networks that also take videos."""
    latent = kit.make_latent(0)
    for number, fold in enumerate((None, FORMATS["musubi"].archs[arch])):
        folder = tmp_path / str(number)
        path, *_ = kit.write(folder, "musubi", latent, Choices(True, arch, fold))
        (back,) = adopted(folder, "safetensors", path)
        assert back.to_bytes() == latent.to_bytes()


def test_what_belongs_to_replaced_latents_goes_with_them(tmp_path):
    paths, out = latents_of_one_picture(tmp_path), tmp_path / "out"
    list(export_latents(paths, out, "kohya").outcomes)
    (file,) = out.iterdir()

    def masked(content):
        content["alpha_mask_3x4"] = content["alpha_mask_2x2"] = np.zeros((3, 4), np.float32)

    change_npz(file, masked)
    other = kit.make_latent(7)
    paths[0].write_bytes(replace(other, records=read_latents(paths[0]).records).to_bytes())
    options = {"overwrite": True, "flipped": False}
    assert [z.status for z in export_latents(paths[:1], out, "kohya", **options).outcomes] == [
        "done"
    ]
    with np.load(file) as arrays:
        of_3x4 = {key for key in arrays.files if key.endswith("_3x4")}
        assert np.array_equal(arrays["latents_3x4"], other.values.astype(np.float32))
        assert {"latents_flipped_2x2", "alpha_mask_2x2"} <= set(arrays.files)
    assert of_3x4 == {"latents_3x4", "original_size_3x4", "crop_ltrb_3x4", "auravae_3x4"}


@pytest.mark.parametrize("arch", ["flux", "sdxl"])
def test_a_crop_of_sd_scripts_comes_back_to_it(tmp_path, arch):
    key = "" if arch == "sdxl" else "_2x3"
    name = f"k_0100x0080_{arch}.npz"
    arrays = {"latents": np.zeros((4, 2, 3), np.float32), "original_size": [100, 80]}
    arrays |= {"crop_ltrb": [-1, 0, 25, 16]}
    np.savez(tmp_path / name, **{f"{k}{key}": array for k, array in arrays.items()})
    (latent,) = adopted(tmp_path, "kohya", tmp_path / name, kit.SPACE)
    for g, crop in ((E, [-1, 0, 25, 16]), (H, [0, 0, 24, 16])):
        folder = tmp_path / str(g)
        path, *_ = kit.write(folder, "kohya", latent.act(g), Choices(True, arch))
        with np.load(path) as arrays:
            assert arrays[f"crop_ltrb{key}"].tolist() == crop


@pytest.mark.parametrize("name", ["kohya", "musubi", "mar"])
def test_the_name_of_a_cache_is_not_that_of_its_picture(tmp_path, name):
    """An export by the picture's name would look for photo_0024x0016_flux otherwise."""
    arrays = {"latents_2x3": np.zeros((4, 2, 3), np.float32), "moments": np.zeros((8, 2, 3), "f4")}
    path = tmp_path / "000001" / "photo_0024x0016_x"
    path.parent.mkdir()
    if name == "musubi":
        save_file({"latents_1x2x3_float32": arrays["latents_2x3"]}, path)
    else:
        np.savez(path.with_suffix(".npz"), **arrays)
        path = path.with_suffix(".npz")
    (latent,) = adopted(tmp_path, name, path, kit.SPACE)
    assert latent.records[0].source is None
    assert source_name(latent, "sub/photo") == "photo"
