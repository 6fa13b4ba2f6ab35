"""The published rules of each format, as checks of a file that is to hold a latent.

Every check reads with the libraries that the project itself uses (numpy, safetensors, tarfile,
torch), asks for exact names, shapes and dtypes, and compares all values. ``z`` and ``mirrored`` are
float32 [C, h, w]: the latent, and the one that the horizontal flip makes of it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import torch
from safetensors import safe_open
from safetensors.torch import load_file


def tensors_of(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What safetensors' own reader finds."""
    with safe_open(path, framework="pt") as file:
        return load_file(path), file.metadata() or {}


def same(found: Any, expected: np.ndarray) -> None:
    """Every value, bit for bit."""
    array = found.float().numpy() if isinstance(found, torch.Tensor) else found
    assert array.shape == expected.shape, f"shape {array.shape}, expected {expected.shape}"
    assert array.astype(np.float32).tobytes() == expected.astype(np.float32).tobytes()


def comfyui(path: Path, z, mirrored, facts) -> None:
    """ComfyUI, nodes.py at a125cd84: LoadLatent: ``latent["latent_tensor"].float() * multiplier``,
    with 1 / 0.18215 where ``latent_format_version_0`` is missing; SaveLatent: [B, C, h, w], float32,
    and ``torch.tensor([])``.
    """
    assert path.suffix == ".latent"
    tensors, _ = tensors_of(path)
    assert set(tensors) == {"latent_tensor", "latent_format_version_0"}
    flag = tensors["latent_format_version_0"]
    assert (flag.dtype, tuple(flag.shape)) == (torch.float32, (0,))
    assert tensors["latent_tensor"].dtype == torch.float32
    same(tensors["latent_tensor"], z[None])


def kohya(path: Path, z, mirrored, facts) -> None:
    """kohya-ss/sd-scripts at 48d368fa, library/strategy_base.py: save_latents_to_disk (dtypes),
    _default_load_latents_from_disk (keys with ``_hxw``), get_image_size_from_disk_cache_path (the
    name ends in ``_WxH_flux``, the original size).
    """
    width, height = path.stem.split("_")[-2].split("x")
    assert (int(height), int(width)) == facts["original_size"]
    assert path.name.endswith(f"_{int(width):04d}x{int(height):04d}_flux.npz")
    key = f"_{z.shape[1]}x{z.shape[2]}"
    with np.load(path) as arrays:
        names = {"latents", "latents_flipped", "original_size", "crop_ltrb"}
        assert set(arrays.files) == {name + key for name in (*names, "auravae")}
        assert arrays["original_size" + key].tolist() == [int(width), int(height)]
        left, top, right, bottom = arrays["crop_ltrb" + key].tolist()
        assert (bottom - top, right - left) == (8 * z.shape[1], 8 * z.shape[2])
        for name, values in (("latents", z), ("latents_flipped", mirrored)):
            assert arrays[name + key].dtype == np.float32
            same(arrays[name + key], values)


def musubi(path: Path, z, mirrored, facts) -> None:
    """kohya-ss/musubi-tuner at 30c658c4, dataset/cache_io.py: save_latent_cache_common
    (metadata), save_latent_cache_z_image (key, [C, h, w]); BucketBatchManager strips dtype and size
    off each key and stacks what is left, so there must be ``latents`` alone.
    """
    height, width = facts["original_size"]
    assert path.name.endswith(f"_{width:04d}x{height:04d}_zi.safetensors")
    tensors, metadata = tensors_of(path)
    (key,) = tensors
    dtype = str(tensors[key].dtype).removeprefix("torch.")
    assert dtype == facts["dtype"]
    assert key == f"latents_1x{z.shape[1]}x{z.shape[2]}_{dtype}"
    assert key.rsplit("_", 1)[0].rsplit("_", 1)[0] == "latents"
    expected = {"architecture": "z_image", "width": str(width), "height": str(height)}
    assert metadata.items() >= (expected | {"format_version": "1.0.1"}).items()
    same(tensors[key], z)


def aitoolkit(path: Path, z, mirrored, facts) -> None:
    """ostris/ai-toolkit at 27a03a91: get_latent_info_dict (fields), get_latent_path (the hash of
    them names the file), cache_latents_all_latents (``latent`` [C, h, w]); get_meta_for_safetensors
    keeps text as it is and writes all else as JSON. A flipped picture has its own file.
    """
    folder = path.parent
    assert folder.name == "_latent_cache"
    found = {}
    for file in folder.iterdir():
        tensors, metadata = tensors_of(file)
        assert metadata.pop("format") == "pt"
        metadata.pop("software"), metadata.pop("auravae")
        texts = ("filename", "latent_space_version")
        info = {k: v if k in texts else json.loads(v) for k, v in metadata.items()}
        digest = hashlib.md5(json.dumps(info, sort_keys=True).encode()).digest()
        code = base64.urlsafe_b64encode(digest).decode().replace("=", "")
        assert file.stem == f"{Path(info['filename']).stem}_{code}"
        numbers = (
            "scale_to_width",
            "scale_to_height",
            "crop_x",
            "crop_y",
            "crop_width",
            "crop_height",
        )
        assert all(type(info[name]) is int for name in numbers)
        assert (info["crop_height"], info["crop_width"]) == (8 * z.shape[1], 8 * z.shape[2])
        flips = {name: info[name] for name in ("flip_x", "flip_y") if name in info}
        assert set(info) == {*numbers, *texts, "latent_version", *flips}
        assert info["latent_version"] == 1 and all(flag is True for flag in flips.values())
        assert set(tensors) == {"latent"}
        assert str(tensors["latent"].dtype) == f"torch.{facts['dtype']}"
        found["flip_x" in flips] = tensors["latent"]
    is_flipped = facts["orientation"].horizontal
    same(found[is_flipped], z)
    same(found[not is_flipped], mirrored)


def simpletuner(path: Path, z, mirrored, facts) -> None:
    """bghira/SimpleTuner at bc8e6ab7, simpletuner/helpers/caching/vae.py: generate_vae_cache_filename
    (sha256 of the stem, below the picture's folder); a tensor, or a table with ``latents``.
    """
    assert path.parent.name == "sub"
    assert path.name == hashlib.sha256(b"a photo").hexdigest() + ".pt"
    tensor = torch.load(path, weights_only=True)
    assert str(tensor.dtype) == f"torch.{facts['dtype']}"
    same(tensor, z)


def lightningdit(path: Path, z, mirrored, facts) -> None:
    """hustvl/LightningDiT, extract_features.py (names, keys, metadata) and
    datasets/img_latent_dataset.py (slices of ``latents`` or ``latents_flip``, and of ``labels``;
    compute_latent_stats: ``mean`` and ``std`` [1, C, 1, 1], unbiased, here of both orientations).
    """
    assert re.fullmatch(r"latents_rank\d{2}_shard\d{3}\.safetensors", path.name)
    tensors, metadata = tensors_of(path)
    assert set(tensors) == {"latents", "latents_flip", "labels"}
    labels = tensors["labels"]
    assert (labels.dtype, labels.tolist()) == (torch.int64, [facts["label"] or 0])
    expected = {"total_size": "1", "dtype": f"torch.{facts['dtype']}", "device": "cpu"}
    assert metadata.items() >= expected.items()
    for key, values in (("latents", z), ("latents_flip", mirrored)):
        assert str(tensors[key].dtype) == f"torch.{facts['dtype']}"
        same(tensors[key], values[None])
    stats = torch.load(path.parent / "latents_stats.pt", weights_only=True)
    both = torch.stack([tensors["latents"], tensors["latents_flip"]]).float().flatten(0, 1)
    assert list(stats) == ["mean", "std"]
    for key, value in stats.items():
        expected = getattr(both, key)(dim=[0, 2, 3], keepdim=True)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert not stats["mean"][0, 12:14].any()


def edm2(path: Path, z, mirrored, facts) -> None:
    """NVlabs/edm2 at 4bf8162f, dataset_tool.py encode (names, dataset.json) and
    training/dataset.py (labels of all files, or none); training/encoders.py:
    ``mean, std = x.chunk(2, dim=1)``, float32.
    """
    assert re.fullmatch(r"img-mean-std-\d{8}\.npy", path.name)
    assert path.parent.name == path.stem[-8:-3]
    both = np.load(path)
    assert both.dtype == np.float32
    same(both, np.concatenate([z, np.zeros_like(z)]))
    root = path.parent.parent
    labels = json.loads((root / "dataset.json").read_bytes())["labels"]
    if facts["label"] is None:
        assert labels is None
    else:
        assert dict(labels) == {path.relative_to(root).as_posix(): facts["label"]}


def mar(path: Path, z, mirrored, facts) -> None:
    """LTH14/mar at e0cccf83: engine_mar.py cache_latents (``moments``, ``moments_flip``: mean and
    log-variance, float32) and util/loader.py CachedFolder (.npz files below a folder for each class).
    models/vae.py clamps the log-variance to -30.
    """
    if facts["label"] is not None:
        assert f"{facts['label']:06d}" in [folder.name for folder in path.parents]
    with np.load(path) as arrays:
        assert set(arrays.files) == {"moments", "moments_flip", "auravae"}
        for key, values in (("moments", z), ("moments_flip", mirrored)):
            assert arrays[key].dtype == np.float32
            same(arrays[key], np.concatenate([values, np.full_like(values, -30)]))


def webdataset(path: Path, z, mirrored, facts) -> None:
    """webdataset/webdataset: tariterators.py base_plus_ext (a key ends at the first dot) and
    autodecode.py (npy, json, txt, cls), USTAR.
    """
    assert re.fullmatch(r"\d{6}\.tar", path.name)
    assert path.read_bytes()[257:265] == b"ustar\x0000"
    sample = {}
    with tarfile.open(path) as archive:
        for member in archive:
            key, suffix = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", member.name).groups()
            sample.setdefault("__key__", key)
            assert sample["__key__"] == key
            assert (member.mtime, member.uid, member.mode) == (0, 0, 0o644)
            sample[suffix] = archive.extractfile(member).read()
    values = np.load(io.BytesIO(sample["latent.npy"]), allow_pickle=False)
    assert values.dtype == (np.float16 if facts["dtype"] == "float16" else np.float32)
    same(values, z)
    assert json.loads(sample["json"])["model"] == "toy"
    expected = {"txt": facts["caption"], "cls": facts["label"]}
    for suffix, value in expected.items():
        assert sample.get(suffix) == (None if value is None else str(value).encode())


def parquet(path: Path, z, mirrored, facts) -> None:
    """Apache Parquet, as pyarrow reads it: a list of fixed length, and its shape and dtype."""
    table = pyarrow.parquet.read_table(path)
    assert path.parent.name == "x".join(map(str, z.shape))
    (row,) = table.to_pylist()
    assert (row["shape"], row["dtype"]) == (list(z.shape), facts["dtype"])
    assert (row["caption"], row["label"]) == (facts["caption"], facts["label"])
    column = table.column("latent").combine_chunks()
    assert column.type.list_size == z.size
    values = column.flatten().to_numpy()
    assert values.dtype == (np.float16 if facts["dtype"] == "float16" else np.float32)
    same(values.reshape(row["shape"]), z)


def mds(path: Path, z, mirrored, facts) -> None:
    """mosaicml/streaming 0.13, streaming/base/format/mds: writer.py (the layout of a shard, index.json) and
    encodings.py (str, int, ndarray of a fixed type and shape). Sizes of fields of any length come first.
    """
    content = path.read_bytes()
    dtype = "float16" if facts["dtype"] == "float16" else "float32"
    expected = {
        "auravae": ("str", None),
        "caption": ("str", None),
        "key": ("str", None),
        "label": ("int", 8),
        "latent": (
            f"ndarray:{dtype}:{','.join(map(str, z.shape))}",
            z.size * np.dtype(dtype).itemsize,
        ),
    }
    (shard,) = json.loads((path.parent / "index.json").read_bytes())["shards"]
    raw = {"basename": path.name, "bytes": len(content), "hashes": {}}
    assert (shard["raw_data"], shard["samples"], shard["format"]) == (raw, 1, "mds")
    count, start, end = np.frombuffer(content, "<u4", 3).tolist()
    assert (count, end) == (1, len(content))
    columns = json.loads(content[12:start])
    assert columns.items() <= shard.items()
    names = ("column_names", "column_encodings", "column_sizes")
    found = zip(*(columns[name] for name in names), strict=True)
    assert {name: (kind, size) for name, kind, size in found} == expected
    sizes = iter(np.frombuffer(content, "<u4", 3, start).tolist())
    at, fields = start + 12, {}
    for name, (_, size) in expected.items():
        fields[name] = content[at : (at := at + (next(sizes) if size is None else size))]
    assert fields["caption"].decode() == (facts["caption"] or "")
    assert fields["key"].decode() == "sub/a photo"
    assert np.frombuffer(fields["label"], "<i8") == (
        -1 if facts["label"] is None else facts["label"]
    )
    same(np.frombuffer(fields["latent"], dtype).reshape(z.shape), z)


def litdata(path: Path, z, mirrored, facts) -> None:
    """Lightning-AI/litData 0.2.76, litdata/streaming: writer.py (the layout of a chunk), item_loader.py
    PyTreeLoader (fields by data_format), serializers.py (str, int, tensor: type, sides, shape, big-endian).
    """
    content = path.read_bytes()
    index = json.loads((path.parent / "index.json").read_bytes())
    (chunk,), config = index["chunks"], index["config"]
    assert (chunk["filename"], chunk["chunk_bytes"], chunk["chunk_size"]) == (
        path.name,
        len(content),
        1,
    )
    assert config["data_format"] == ["str", "str", "str", "int", "tensor"]
    assert config["item_loader"] == "PyTreeLoader" and config["compression"] is None
    (_, spec) = json.loads(config["data_spec"])
    names = json.loads(spec["context"])
    assert names == ["auravae", "caption", "key", "label", "latent"]
    count, start, end = np.frombuffer(content, "<u4", 3).tolist()
    assert (count, start, end) == (1, 12, len(content))
    at, fields = start + 20, {}
    for name, size in zip(names, np.frombuffer(content, "<u4", 5, start).tolist(), strict=True):
        fields[name] = content[at : (at := at + size)]
    assert fields["caption"].decode() == (facts["caption"] or "")
    assert np.frombuffer(fields["label"], "<i8") == (
        -1 if facts["label"] is None else facts["label"]
    )
    kind, sides, *shape = np.frombuffer(fields["latent"], ">u4", 5).tolist()
    dtype = {1: torch.float32, 9: torch.float16, 10: torch.bfloat16}[kind]
    assert (str(dtype), sides, tuple(shape)) == (f"torch.{facts['dtype']}", 3, z.shape)
    same(torch.frombuffer(bytearray(fields["latent"][20:]), dtype=dtype).reshape(shape), z)


def sana(path: Path, z, mirrored, facts) -> None:
    """NVlabs/Sana at aa1b69a9, diffusion/data/datasets/sana_data.py SanaWebDataset (``.npy``, and a caption in
    ``.json``), and wids 0.1.11: wids_specs.py (the index).
    """
    index = json.loads((path.parent / "wids-meta.json").read_bytes())
    assert index["wids_version"] == 1
    assert index["shardlist"] == [{"url": path.name, "nsamples": 1}]
    with tarfile.open(path) as archive:
        sample = {m.name[m.name.index(".") :]: archive.extractfile(m).read() for m in archive}
    assert json.loads(sample[".json"])["prompt"] == (facts["caption"] or "")
    values = np.load(io.BytesIO(sample[".npy"]), allow_pickle=False)
    assert values.dtype == (np.float16 if facts["dtype"] == "float16" else np.float32)
    same(values, z)


def repa_e(path: Path, z, mirrored, facts) -> None:
    """End2End-Diffusion/REPA-E at 3ad80468, dataset.py: CustomH5Dataset (sorted names that end in .npy of the
    JSON beside it; ``dataset.json`` in the file, with a label of each), cache_latents.py (mean, deviation).
    """
    import h5py

    assert path.name == "latents.h5"
    names = json.loads(path.with_name("latents_h5.json").read_bytes())
    (name,) = sorted(name for name in names if name.endswith(".npy"))
    with h5py.File(path) as content:
        labels = dict(json.loads(np.array(content["dataset.json"]).tobytes().decode())["labels"])
        assert labels == {name: facts["label"] or 0}
        both = np.array(content[name])
    assert both.dtype == np.float32
    same(both, np.concatenate([z, np.zeros_like(z)]))


def npy(path: Path, z, mirrored, facts) -> None:
    """numpy.load, no pickle: [C, h, w] in float16 or float32."""
    values = np.load(path, allow_pickle=False)
    assert values.dtype == (np.float16 if facts["dtype"] == "float16" else np.float32)
    same(values, z)


def npz(path: Path, z, mirrored, facts) -> None:
    """numpy.load, no pickle: ``latent`` and ``latent_flipped`` [C, h, w]."""
    with np.load(path, allow_pickle=False) as arrays:
        assert set(arrays.files) == {"latent", "latent_flipped", "auravae"}
        for key, values in (("latent", z), ("latent_flipped", mirrored)):
            assert arrays[key].dtype == (np.float16 if facts["dtype"] == "float16" else np.float32)
            same(arrays[key], values)


def safetensors(path: Path, z, mirrored, facts) -> None:
    """diffusers' pipelines take and give [B, C, h, w] (output_type="latent")."""
    tensors, _ = tensors_of(path)
    assert set(tensors) == {"latents"}
    assert str(tensors["latents"].dtype) == f"torch.{facts['dtype']}"
    same(tensors["latents"], z[None])


def pt(path: Path, z, mirrored, facts) -> None:
    """The same as a bare tensor, which torch loads as weights alone."""
    tensor = torch.load(path, weights_only=True)
    assert str(tensor.dtype) == f"torch.{facts['dtype']}"
    same(tensor, z[None])


RULES = {
    "comfyui": comfyui,
    "kohya": kohya,
    "musubi": musubi,
    "ai-toolkit": aitoolkit,
    "simpletuner": simpletuner,
    "lightningdit": lightningdit,
    "edm2": edm2,
    "mar": mar,
    "webdataset": webdataset,
    "parquet": parquet,
    "mds": mds,
    "litdata": litdata,
    "sana": sana,
    "repa-e": repa_e,
    "npy": npy,
    "npz": npz,
    "safetensors": safetensors,
    "pt": pt,
}
