"""What trainers find in exported files, and what is found in theirs: lookups, pairs, classes, frames."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from auravae_cli.exchange.adopt import LatentImporter
from auravae_cli.exchange.export import export_latents
from auravae_cli.exchange.formats.base import Choices
from auravae_cli.exchange.import_files import import_files
from auravae_cli.exchange.import_store import import_store
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.read import LoadedImage
from auravae_cli.images.trainer_buckets import parse_buckets
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.latents.latent_file import LatentFile, Record, read_latents, stack
from auravae_cli.symmetry.geometry import Padding
from auravae_cli.symmetry.group import GROUP, HV, H, V
from tests.exchange import kit


def bucketed(text, height, width, seed=0):
    """A latent of a picture as ``encode --buckets-of`` prepares it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    prepared = Preparation(buckets=parse_buckets(text)).apply(LoadedImage(pixels, "ab", 1, ()), 8)
    size = prepared.pixels.shape[:2]
    values = np.random.default_rng(seed).normal(size=(4, size[0] // 8, size[1] // 8))
    record = Record(
        size,
        prepared.padding,
        source="photo.jpg",
        preparation=prepared.preparation.to_json(),
        source_size=(height, width),
        source_box=prepared.box,
    )
    return LatentFile(values.astype("<f2").clip(-4, 4), FLOAT16, kit.SPACE, (record,), "test")


def ai_toolkit_info(name, width, height, bucket, **flips):
    """ai-toolkit, toolkit/dataloader_mixins.py at 27a03a91: setup_buckets and get_latent_info_dict."""
    scale = max(bucket[0] / width, bucket[1] / height)
    wide, high = math.ceil(width * scale), math.ceil(height * scale)
    return {
        "filename": name,
        "scale_to_width": wide,
        "scale_to_height": high,
        "crop_x": int((wide - bucket[0]) / 2),
        "crop_y": int((high - bucket[1]) / 2),
        "crop_width": bucket[0],
        "crop_height": bucket[1],
        "latent_space_version": "flux1",
        "latent_version": 1,
        **flips,
    }


def ai_toolkit_path(info):
    """get_latent_path."""
    digest = hashlib.md5(json.dumps(info, sort_keys=True).encode("utf-8")).digest()
    code = base64.urlsafe_b64encode(digest).decode("ascii").replace("=", "")
    return Path("_latent_cache", f"{Path(info['filename']).stem}_{code}.safetensors")


SIZES = [(403, 601), (601, 403), (333, 777), (512, 512), (100, 101), (731, 1023)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_ai_toolkit_finds_every_picture_and_its_mirror_image(tmp_path, height, width):
    latent = bucketed("ai-toolkit:512", height, width)
    (cells_high, cells_wide) = latent.values.shape[1:]
    bucket = 8 * cells_wide, 8 * cells_high
    for folder, g in (("a", GROUP[0]), ("b", HV)):
        (tmp_path / folder).mkdir()
        path = (
            tmp_path / folder / ("photo.safetensors" if g == GROUP[0] else f"photo.{g}.safetensors")
        )
        path.write_bytes(latent.act(g).to_bytes())
        export_latents([path], tmp_path / "out", "ai-toolkit")
    z, flips = latent.to_float32(), {"h": {"flip_x": True}, "v": {"flip_y": True}}
    for g in GROUP:  # of the two exports, each with its mirrored copy
        info = ai_toolkit_info("photo.jpg", width, height, bucket)
        for axis in "hv":
            if axis in str(g):
                info |= flips[axis]
        found = load_file(tmp_path / "out" / ai_toolkit_path(info))["latent"]
        expected = replace(latent, values=z.astype("<f2")).act(g).values
        assert found.tobytes() == expected.tobytes()
    made = import_files([tmp_path / "out"], tmp_path / "back", "ai-toolkit").outcomes
    assert sorted(outcome.status for outcome in made) == ["done", "done", "skipped", "skipped"]


def test_what_ai_toolkit_made_is_taken_once_and_named_again(tmp_path):
    cache = tmp_path / "_latent_cache"
    cache.mkdir()
    z = np.random.default_rng(0).normal(size=(4, 1, 2, 3)).astype("<f2").clip(-4, 4)  # one frame
    for flips in ({}, {"flip_x": True}, {"flip_y": True}, {"flip_x": True, "flip_y": True}):
        info = ai_toolkit_info("a.b.jpg", 31, 16, (24, 16), **flips, cache_tensors_to_disk=True)
        texts = ("filename", "latent_space_version")
        metadata = {k: v if k in texts else json.dumps(v) for k, v in info.items()}
        content = {"latent": z, "tensor": np.zeros((3, 16, 24), np.uint8)}
        save_file(content, tmp_path / ai_toolkit_path(info), metadata | {"format": "pt"})
    assert len(list(cache.iterdir())) == 4
    results = [
        LatentImporter("ai-toolkit", kit.SPACE)(found)
        for path in cache.iterdir()
        for found in kit.read(tmp_path, "ai-toolkit", path)
        if not found.is_copy
    ]
    (latent,) = results
    assert np.array_equal(latent.values, z[:, 0])
    info = ai_toolkit_info("a.b.jpg", 31, 16, (24, 16))
    (path,) = kit.write(tmp_path / "again", "ai-toolkit", latent, Choices(False, "flux1"))
    assert path.name.rpartition("_")[2] == ai_toolkit_path(info).name.rpartition("_")[2]


@pytest.mark.parametrize("trainer", ["kohya", "musubi", "ai-toolkit"])
def test_latents_are_compared_with_the_trainers_buckets(tmp_path, trainer):
    made = bucketed(f"{trainer}:512", 300, 400)
    (record,) = made.records
    fits = replace(record, preparation={"crop": "by hand"})
    shifted = replace(fits, source_box=replace(record.source_box, left=9.0, right=360.0))
    latents = {
        "made": made,
        "fits": replace(made, records=(fits,)),
        "shifted": replace(made, records=(shifted,)),
        "other": kit.make_latent(0),
    }
    told = {}
    for name, latent in latents.items():
        (tmp_path / f"{name}.safetensors").write_bytes(latent.to_bytes())
        exported = export_latents(tmp_path / f"{name}.safetensors", tmp_path / name, trainer)
        told[name] = [text for text in exported.unkept.notices() if "trainer's buckets" in text]
    assert not told["made"]
    (text,) = told["fits"]
    assert "at a resolution of" in text
    # ai-toolkit alone looks for the part of the picture, the others for the size
    (text,) = told["shifted"]
    assert ("1 of 1 fit none" in text) == (trainer == "ai-toolkit")
    (text,) = told["other"]
    assert f"--buckets-of {trainer}:SIDE" in text


@pytest.mark.parametrize(
    ("name", "arch", "told"),
    [
        ("kohya", None, None),
        ("kohya", "sd", "sd takes 4 channels"),
        ("kohya", "sd3", "(z - 0.0609) * 1.5305"),
        ("musubi", "zi", "(z - 0.1159) * 0.3611"),
        ("musubi", "kr2", None),
    ],
)
def test_what_a_trainer_does_to_the_values_is_told(tmp_path, name, arch, told):
    values = np.zeros((16, 2, 2), np.float16)
    space = replace(kit.SPACE, irreps=type(kit.SPACE.irreps).parse("12xee+2xoe+2xeo"))
    latent = LatentFile(values, FLOAT16, space, (Record((16, 16), Padding()),), "test")
    path = tmp_path / "z.safetensors"
    path.write_bytes(latent.to_bytes())
    found = export_latents(path, tmp_path / "out", name, arch=arch).unkept.notices()
    hits = [text for text in found if told and told in text]
    assert len(hits) == (told is not None)
    assert told or not [text for text in found if "channels" in text or "(z -" in text]


@pytest.fixture
def store(tmp_path):
    """A store of several shards, whose order is not that of the names."""
    folder = tmp_path / "npy"
    names = [f"{n // 4:02d}/img{n:03d}" for n in range(12)]
    for number, name in enumerate(names):
        path = folder / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.full((16, 2, 2), number / 4, np.float16))
    target = tmp_path / "store"
    made = import_store(folder, target, "npy", assume_model="linear", shard_size=3).outcomes
    assert len(made) > 2
    return target, names


def repa_pairs(data):
    """sihyun-yu/REPA, dataset.py at 67f71450: CustomDataset."""
    listed = []
    for folder, suffix in (("images", ".png"), ("vae-sd", ".npy")):
        root = data / folder
        files = {Path(d, f).relative_to(root).as_posix() for d, _, fs in os.walk(root) for f in fs}
        listed.append(sorted(name for name in files if name.endswith(suffix)))
    images, features = listed
    assert len(images) == len(features)
    labels = dict(json.loads((data / "vae-sd/dataset.json").read_bytes())["labels"])
    return [
        (image, np.load(data / "vae-sd" / feature), labels[feature])
        for image, feature in zip(images, features, strict=True)
    ]


def test_repa_pairs_every_latent_with_its_picture(tmp_path, store):
    store, names = store
    data = tmp_path / "data"
    for name in names:
        (data / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (data / "images" / f"{name}.png").touch()
    index = {"labels": [[f"{name}.png", n * 7] for n, name in enumerate(names)]}
    (data / "images/dataset.json").write_text(json.dumps(index))
    made = export_latents(store, data / "vae-sd", "edm2", pictures=data / "images")
    assert {outcome.status for outcome in made.outcomes} == {"done"}
    pairs = repa_pairs(data)
    assert [image for image, _, _ in pairs] == [f"{name}.png" for name in names]
    for number, (_, features, label) in enumerate(pairs):
        assert label == 7 * number
        assert (features[:16] == number / 4).all() and not features[16:].any()

    (data / "images" / f"{names[3]}.png").rename(data / "images/00/other.png")
    made = export_latents(store, tmp_path / "new", "edm2", pictures=data / "images").outcomes
    faults = {
        outcome.source.rpartition("/")[2]: outcome.reason for outcome in made if outcome.reason
    }
    assert any("no picture" in reason for reason in faults.values())
    assert "no latent is of this picture" in faults["other.png"]


def test_without_pictures_the_index_says_what_is_what(tmp_path, store):
    store, names = store
    export_latents(store, tmp_path / "out", "edm2")
    sources = json.loads((tmp_path / "out/dataset.json").read_bytes())["sources"]
    assert sorted(source for _, source in sources) == sorted(names)
    for file, source in sources:
        assert (np.load(tmp_path / "out" / file)[:16] == names.index(source) / 4).all()
    made = import_files(tmp_path / "out", tmp_path / "back", "edm2", assume_model="linear")
    for outcome in made.outcomes:
        latent = read_latents(Path(outcome.output))
        assert (latent.values == names.index(latent.records[0].source) / 4).all()


def test_edm2s_zip_is_read(tmp_path):
    path = tmp_path / "latents.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for n in range(3):
            with archive.open(f"00000/img-mean-std-{n:08d}.npy", "w") as file:
                np.save(file, np.full((8, 2, 2), n, np.float32))
        archive.writestr("00000/img-mean-std-00000003.npy", b"no array")
        labels = [[f"00000/img-mean-std-{n:08d}.npy", 10 + n] for n in range(4)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    *good, bad = kit.read(tmp_path, "edm2", path)
    assert bad.fault
    for n, found in enumerate(good):
        latent = LatentImporter("edm2", kit.SPACE)(found)
        assert (latent.values == n).all() and latent.records[0].annotations == {"label": 10 + n}


def test_classes_are_those_that_mar_counts(tmp_path):
    for name in ("n01440764", "n01443537", "n02119789"):
        (tmp_path / name).mkdir()
    moments = np.zeros((8, 2, 2), np.float32)
    for path, label in (("n02119789/a.npz", 2), ("n01440764/b.npz", 0), ("c.npz", None)):
        np.savez(tmp_path / path, moments=moments, moments_flip=moments)
        (found,) = kit.read(tmp_path, "mar", tmp_path / path)
        labels = LatentImporter("mar", kit.SPACE)(found).records[0].annotations
        assert labels == ({} if label is None else {"label": label})


def test_labels_that_mar_would_renumber_stay_and_are_told(tmp_path):
    for label in (3, 7, 12):
        latent = kit.make_latent(label, label=label)
        (tmp_path / f"{label}.safetensors").write_bytes(latent.to_bytes())
    made = export_latents([*tmp_path.glob("*.safetensors")], tmp_path / "out", "mar")
    assert [
        text
        for text in made.unkept.notices()
        if "the 3 from 000003 to 000012 become 0 to 2" in text
    ]
    for path in (tmp_path / "out").rglob("*.npz"):
        with np.load(path) as arrays:  # as another program would leave it
            moments = arrays["moments"].copy()
        np.savez(path, moments=moments)
        (found,) = kit.read(tmp_path / "out", "mar", path)
        label = LatentImporter("mar", kit.SPACE)(found).records[0].annotations["label"]
        assert label == int(path.stem)


@pytest.mark.parametrize("name", ["mds", "sana", "lightningdit", "edm2", "mar"])
def test_only_what_is_true_of_labels_is_told(tmp_path, name):
    for stem, label in (("0/a", None), ("1/b", None), ("1/c", 1)):
        latent = kit.make_latent(0, 16, 16, label=label)
        (tmp_path / "in" / stem).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / f"{stem}.safetensors").write_bytes(latent.to_bytes())
    told = " ".join(export_latents(tmp_path / "in", tmp_path / "out", name).unkept.notices())
    assert ("2 of 3 have no label, so none are written" in told) == (name == "edm2")
    assert ("2 of 3 have no label: 0 stands" in told) == (name == "lightningdit")
    assert ("the 3 from 0 to 1 become 0 to 2" in told) == (
        name == "mar"
    )  # of folders 0, 000001 and 1


@pytest.mark.parametrize("name", ["kohya", "musubi", "ai-toolkit", "webdataset"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_pictures_that_the_trainer_sees_on_their_side_are_told(tmp_path, name, orientation):
    latent = kit.make_latent(0, 16, 24)
    record = replace(latent.records[0], exif_orientation=orientation)
    path = tmp_path / "a.safetensors"
    path.write_bytes(replace(latent, records=(record,)).to_bytes())
    told = " ".join(export_latents(path, tmp_path / "out", name).unkept.notices())
    is_lost = name in ("kohya", "musubi") and orientation == 6
    assert ("1 of 1 pictures lie on their side" in told) == is_lost


@pytest.mark.parametrize("name", ["kohya", "musubi", "pt", "safetensors", "npy", "comfyui"])
def test_a_video_of_one_frame_is_a_picture(tmp_path, name):
    import torch

    z = np.random.default_rng(0).normal(size=(4, 2, 3)).astype(np.float32).clip(-4, 4)
    one, batch = z[:, None], z[None, :, None]
    path = tmp_path / "a_0024x0016_zi.safetensors"
    if name == "kohya":
        path = tmp_path / "a_0024x0016_anima.npz"
        np.savez(path, latents_2x3=one)
    elif name == "musubi":
        save_file({"latents_1x2x3_float32": one}, path)
    elif name == "pt":
        torch.save(torch.from_numpy(batch), path)
    elif name == "npy":
        path = tmp_path / "a.npy"
        np.save(path, batch)
    elif name == "comfyui":
        flag = np.zeros(0, np.float32)
        save_file({"latent_tensor": batch, "latent_format_version_0": flag}, path)
    else:
        save_file({"latents": batch}, path)
    (found,) = kit.read(tmp_path, name, path)
    assert np.array_equal(LatentImporter(name, kit.SPACE)(found).values, z)


def of_picture(seed, source, key=None):
    """A latent whose header names another picture, or none."""
    latent = kit.make_latent(seed)
    records = (replace(latent.records[0], source=source, key=key),)
    return replace(latent, records=records)


def exported_names(tmp_path, name):
    made = export_latents([*sorted(tmp_path.glob("*.safetensors"))], tmp_path / "out", name)
    return made.outcomes, sorted(p.name.partition("_")[0] for p in (tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize("name", ["kohya", "musubi", "ai-toolkit"])
def test_a_file_has_the_name_of_its_picture_whatever_the_latents_is(tmp_path, name):
    latents = {
        "photo.h.v": of_picture(0, "photo.jpg").act(H).act(V),
        "renamed": of_picture(1, "in/other.jpg"),
        "unknown.h": of_picture(2, None).act(H),
        "plain.h": of_picture(3, None),  # its own name
        "imported": of_picture(4, "third_0064x0048_flux.npz"),  # no picture's name
    }
    for stem, latent in latents.items():
        (tmp_path / f"{stem}.safetensors").write_bytes(latent.to_bytes())
    outcomes, names = exported_names(tmp_path, name)
    assert {outcome.status for outcome in outcomes} == {"done"}
    found = set(names) - {""}
    assert found == {"photo", "other", "unknown", "plain.h", "imported"}


def test_keys_have_no_tags(tmp_path):
    """A picture may be called pic.h.jpg, and another one pic.jpg."""
    rows = [of_picture(0, None, "pic.h").act(H), of_picture(1, None, "pic").act(H)]
    (tmp_path / "shard.safetensors").write_bytes(stack(rows).to_bytes())
    assert exported_names(tmp_path, "kohya")[1] == ["pic", "pic.h"]


def test_two_pictures_whose_names_make_one_file_are_told_apart(tmp_path):
    for stem, source in (("x", "a.jpg"), ("y", "a.png")):
        (tmp_path / f"{stem}.safetensors").write_bytes(of_picture(0, source).to_bytes())
    made = export_latents([*tmp_path.glob("*.safetensors")], tmp_path / "out", "simpletuner")
    assert sorted(outcome.status for outcome in made.outcomes) == ["done", "failed"]
