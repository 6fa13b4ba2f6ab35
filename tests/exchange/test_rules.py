"""Every format is written by its project's own rules; the checks notice where one is broken."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from auravae_cli.cli.shared.options import WRITTEN_FORMATS, ExchangeFormat
from auravae_cli.errors import UsageError
from auravae_cli.exchange.export import export_latents
from auravae_cli.exchange.formats.base import Choices
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.latents.dtypes import STORED_DTYPES
from auravae_cli.symmetry.action import act
from auravae_cli.symmetry.group import GROUP, H, V
from tests.exchange import kit
from tests.exchange.rules import RULES, tensors_of


def check(path, name, latent):
    RULES[name](path, *kit.plain_and_mirrored(latent), kit.facts_of(latent))


def test_every_format_has_its_rules_and_its_place_on_the_command_line():
    assert [form.value for form in ExchangeFormat] == list(FORMATS)
    assert list(kit.WRITTEN) == list(RULES)
    assert ", ".join(kit.WRITTEN) == WRITTEN_FORMATS
    assert all(form.name == name and form.rules for name, form in FORMATS.items())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", kit.WRITTEN)
def test_files_follow_the_rules(written, name, dtype):
    path, latent = written(name, dtype=dtype)
    check(path, name, latent)


@pytest.mark.parametrize("g", GROUP, ids=str)
@pytest.mark.parametrize("name", kit.WRITTEN)
def test_flipped_latents_and_those_without_captions(written, name, g):
    path, latent = written(name, g=g, label=None, caption=None, cropped=True)
    check(path, name, latent)


@pytest.mark.parametrize("name", kit.WRITTEN)
def test_what_a_trainer_gets_for_a_mirrored_sample_is_the_group_action(tmp_path, name):
    """Bit for bit, in every dtype: of the latent that was flipped, and of the copy where there is one."""
    for dtype in STORED_DTYPES:
        for g in (H, V):
            latent = kit.make_latent(0, dtype=dtype)
            path, *_ = kit.write(tmp_path / f"{dtype}-{g}", name, latent.act(g))
            z = act(g, kit.plain_and_mirrored(latent)[0], kit.SPACE.irreps)
            mirrored = act(H, z, kit.SPACE.irreps)
            RULES[name](path, z, mirrored, kit.facts_of(latent.act(g)))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].flipped])
def test_exporting_a_flipped_latent_exchanges_the_two_copies(tmp_path, name):
    latent = kit.make_latent(1)
    path, *_ = kit.write(tmp_path / "a", name, latent)
    other, *_ = kit.write(tmp_path / "b", name, latent.act(H))
    z, mirrored = kit.plain_and_mirrored(latent)
    RULES[name](path, z, mirrored, kit.facts_of(latent))
    RULES[name](other, mirrored, z, kit.facts_of(latent.act(H)))
    with pytest.raises(AssertionError):
        RULES[name](other, z, mirrored, kit.facts_of(latent.act(H)))


@pytest.mark.parametrize("name", [name for name in FORMATS if FORMATS[name].flipped])
def test_a_plain_flip_is_noticed(written, name):
    path, latent = written(name)
    z, mirrored = kit.plain_and_mirrored(latent)
    wrong = z[..., ::-1]
    assert not np.array_equal(wrong, mirrored)
    with pytest.raises(AssertionError):
        RULES[name](path, z, wrong, kit.facts_of(latent))


@pytest.mark.parametrize("name", ["kohya", "ai-toolkit", "npz"])
def test_the_flipped_copy_can_be_left_out(tmp_path, name):
    form = FORMATS[name]
    paths = kit.write(
        tmp_path, name, kit.make_latent(0), Choices(False, next(iter(form.archs), ""))
    )
    assert len(paths) == 1
    if paths[0].suffix == ".npz":
        with np.load(paths[0]) as arrays:
            assert not [key for key in arrays.files if "flipped" in key]


def with_safetensors(change):
    def mutate(path):
        tensors, metadata = load_file(path), {}
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        tensors, metadata = change(dict(tensors), dict(metadata))
        save_file(tensors, path, metadata)

    return mutate


def with_npz(change):
    def mutate(path):
        with np.load(path) as arrays:
            content = change({key: arrays[key] for key in arrays.files})
        np.savez(path, **content)

    return mutate


def with_npy(change):
    return lambda path: np.save(path, change(np.load(path)))


def with_tar(change):
    def mutate(path):
        with tarfile.open(path) as archive:
            members = [(m, archive.extractfile(m).read()) for m in archive]
        with tarfile.open(path, "w") as archive:
            for member, content in members:
                member.name, changed = change(member.name, content)
                member.size = len(changed)
                archive.addfile(member, io.BytesIO(changed))

    return mutate


def renamed(old, new):
    return lambda content: {key.replace(old, new): value for key, value in content.items()}


def cast(key, dtype):
    return lambda content: {k: v.astype(dtype) if key in k else v for k, v in content.items()}


def tensors(change):
    return with_safetensors(lambda found, metadata: (change(found), metadata))


def tensor(change):
    return tensors(lambda found: {k: change(v) if v.numel() else v for k, v in found.items()})


def with_statistics(change):
    def mutate(path):
        file = path.with_name("latents_stats.pt")
        torch.save(change(torch.load(file, weights_only=True)), file)

    return mutate


def of_one_orientation(path):
    """The statistics that its reader would make: of the latents, without the copies."""
    latents = load_file(path)["latents"].float()
    mean, std = (f(dim=[0, 2, 3], keepdim=True) for f in (latents.mean, latents.std))
    torch.save({"mean": mean, "std": std}, path.with_name("latents_stats.pt"))


def half_npy(name, content):
    if not name.endswith(".npy"):
        return name, content
    buffer = io.BytesIO()
    np.save(buffer, np.load(io.BytesIO(content)).astype(np.float32))
    return name, buffer.getvalue()


def with_table(change):
    def mutate(path):
        table = pyarrow.parquet.read_table(path)
        columns = {name: table.column(name).combine_chunks() for name in table.column_names}
        pyarrow.parquet.write_table(pyarrow.table(change(columns)), path)

    return mutate


def with_bytes(old, new):
    def mutate(path):
        content = path.read_bytes()
        assert old in content and len(old) == len(new)
        path.write_bytes(content.replace(old, new))

    return mutate


def with_index(name, value):
    """Another value of a field in the JSON beside a file."""

    def mutate(path):
        (index,) = path.parent.glob("*.json")
        content = re.sub(rf'"{name}": (\d+|\[[^]]*\])', f'"{name}": {value}', index.read_text())
        assert content != index.read_text()
        index.write_text(content)

    return mutate


MUTANTS = {
    "comfyui": [
        tensors(renamed("latent_tensor", "samples")),
        tensors(lambda t: {"latent_tensor": t["latent_tensor"]}),
        tensor(lambda t: t[0]),
        tensor(lambda t: t.half()),
    ],
    "kohya": [
        with_npz(renamed("latents_flipped", "latents_flip")),
        with_npz(renamed("_3x4", "_4x3")),
        with_npz(cast("latents", np.float16)),
        with_npz(lambda a: {k: v[None] if "latents" in k else v for k, v in a.items()}),
        with_npz(lambda a: {k: v[::-1] if "size" in k else v for k, v in a.items()}),
        lambda path: path.rename(path.with_name("a_0021x0030_flux.npz")),
    ],
    "musubi": [
        tensors(renamed("float16", "fp16")),
        tensors(renamed("_1x", "_")),
        tensor(lambda t: t.float()),
        tensor(lambda t: t[None]),
        tensors(lambda t: t | {"latents_flipped_1x3x4_float16": next(iter(t.values())).clone()}),
        with_safetensors(lambda t, m: (t, {k: v for k, v in m.items() if k != "format_version"})),
    ],
    "ai-toolkit": [
        tensors(renamed("latent", "latents")),
        tensor(lambda t: t[None]),
        tensor(lambda t: t.float()),
        with_safetensors(lambda t, m: (t, m | {"crop_x": "1"})),
        with_safetensors(lambda t, m: (t, m | {"filename": json.dumps(m["filename"])})),
    ],
    "simpletuner": [
        lambda path: torch.save(torch.load(path)[None].clone(), path),
        lambda path: torch.save(torch.load(path).float(), path),
        lambda path: path.rename(path.with_name("a photo.pt")),
    ],
    "lightningdit": [
        tensors(renamed("latents_flip", "latents_flipped")),
        tensors(lambda t: t | {"labels": t["labels"].int()}),
        tensors(lambda t: t | {"latents": t["latents"][0]}),
        tensors(lambda t: t | {"latents_flip": t["latents_flip"].float()}),
        lambda path: path.rename(path.with_name("shard.safetensors")),
        of_one_orientation,
        with_statistics(lambda stats: {key: value[0] for key, value in stats.items()}),
        with_statistics(lambda stats: {key: value.double() for key, value in stats.items()}),
    ],
    "edm2": [
        with_npy(lambda a: a[: len(a) // 2]),
        with_npy(lambda a: a.astype(np.float16)),
        with_npy(lambda a: a[None]),
        with_npy(lambda a: a + (np.arange(len(a)) >= len(a) // 2)[:, None, None].astype("f4")),
        lambda path: path.rename(path.with_name("img00000000.npy")),
        lambda path: (path.parents[1] / "dataset.json").write_text('{"labels": null}'),
    ],
    "mar": [
        with_npz(renamed("moments_flip", "moments_flipped")),
        with_npz(cast("moments", np.float16)),
        with_npz(lambda a: {k: v[:4] if "moments" in k else v for k, v in a.items()}),
    ],
    "webdataset": [
        with_tar(lambda name, content: (name.replace(".latent.npy", ".npy"), content)),
        with_tar(lambda name, content: (name.replace(".json", ".b.json"), content)),
        with_tar(half_npy),
    ],
    "parquet": [
        with_table(lambda rows: {"latents" if k == "latent" else k: v for k, v in rows.items()}),
        with_table(
            lambda rows: rows | {"latent": rows["latent"].cast(pyarrow.list_(pyarrow.float16()))}
        ),
        with_table(lambda rows: rows | {"shape": pyarrow.array([[3, 4, 4]])}),
        with_table(lambda rows: rows | {"dtype": pyarrow.array(["float32"])}),
    ],
    "mds": [
        with_bytes(b"float16", b"float61"),
        with_bytes(b'"label"', b'"class"'),
        with_bytes("café".encode(), b"cafes"),
        lambda path: path.rename(path.with_name("shard.mds")),
        with_index("samples", 2),
    ],
    "litdata": [
        with_bytes(bytes((0, 0, 0, 9, 0, 0, 0, 3)), bytes((0, 0, 0, 8, 0, 0, 0, 3))),
        with_bytes("café".encode(), b"cafes"),
        lambda path: path.rename(path.with_name("chunk.bin")),
        with_index("chunk_bytes", 2),
        with_index("data_format", []),
    ],
    "sana": [
        with_tar(lambda name, content: (name.replace(".npy", ".latent.npy"), content)),
        with_tar(half_npy),
        with_index("nsamples", 2),
    ],
    "repa-e": [
        lambda path: path.rename(path.with_name("z.h5")),
        lambda path: path.with_name("latents_h5.json").write_text("[]"),
    ],
    "npy": [with_npy(lambda a: a[None]), with_npy(lambda a: a.astype(np.float32))],
    "npz": [
        with_npz(renamed("latent", "z")),
        with_npz(cast("latent", np.float32)),
        with_npz(lambda a: {k: v[None] if "latent" in k else v for k, v in a.items()}),
    ],
    "safetensors": [
        tensors(renamed("latents", "latent")),
        tensor(lambda t: t[0]),
        tensor(lambda t: t.float()),
    ],
    "pt": [
        lambda path: torch.save(torch.load(path)[0].clone(), path),
        lambda path: torch.save(torch.load(path).float(), path),
        lambda path: torch.save({"latents": torch.load(path)}, path),
    ],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name, found in MUTANTS.items() for n in range(len(found))]
)
def test_the_checks_notice_a_wrong_key_shape_or_dtype(written, name, number):
    path, latent = written(name)
    check(path, name, latent)
    folder = path.parent
    MUTANTS[name][number](path)
    if not path.exists():  # renamed
        path = next(file for file in folder.iterdir() if file.suffix == path.suffix)
    with pytest.raises((AssertionError, KeyError, AttributeError, TypeError, ValueError)):
        check(path, name, latent)


def test_every_format_has_mutants():
    assert MUTANTS.keys() == kit.WRITTEN.keys()


@pytest.mark.parametrize("arch", ["sd", "sdxl"])
def test_kohya_before_sd3_has_keys_without_sizes(tmp_path, arch):
    latent = kit.make_latent(0)
    (path,) = kit.write(tmp_path, "kohya", latent, Choices(True, arch))
    assert path.name == f"a photo_0030x0021_{arch}.npz"
    with np.load(path) as arrays:
        assert set(arrays.files) == {
            *("latents", "latents_flipped", "original_size", "crop_ltrb", "auravae")
        }


@pytest.mark.parametrize(("arch", "full"), [("qi", "qwen_image"), ("wan", "wan")])
def test_musubi_with_frames(tmp_path, arch, full):
    latent = kit.make_latent(0)
    (path,) = kit.write(tmp_path, "musubi", latent, Choices(True, arch))
    tensors, metadata = tensors_of(path)
    assert metadata["architecture"] == full
    assert tuple(tensors["latents_1x3x4_float16"].shape) == (4, 1, 3, 4)
    (found,) = kit.read(tmp_path, "musubi", path)
    assert found.known.to_bytes() == latent.to_bytes()


def test_the_page_names_the_formats_that_an_import_makes_stores_of():
    page = (Path(__file__).parents[2] / "docs" / "exchange.md").read_text()
    (told,) = re.findall(r"Files of many latents \(([^)]*)\) become a store", page)
    filling = {name for name, form in FORMATS.items() if form.fills_stores}
    assert set(re.findall(r"`(.+?)`", told)) == filling


@pytest.mark.parametrize(
    "name", [n for n, form in FORMATS.items() if form.needs or form.write_needs]
)
def test_a_library_that_is_missing_is_told_before_anything_is_written(tmp_path, monkeypatch, name):
    monkeypatch.setattr("auravae_cli.exchange.registry.find_spec", lambda library: None)
    latent = kit.make_latent(0, 16, 16)
    (tmp_path / "z.safetensors").write_bytes(latent.to_bytes())
    with pytest.raises(UsageError, match="pip install"):
        export_latents(tmp_path / "z.safetensors", tmp_path / "out", name)
    assert not (tmp_path / "out").exists()


def test_formats_whose_writing_takes_torch_say_so():
    takes = {"lightningdit", "simpletuner", "pt"}
    assert {
        n for n, form in kit.WRITTEN.items() if "torch" in (form.needs, form.write_needs)
    } == takes
