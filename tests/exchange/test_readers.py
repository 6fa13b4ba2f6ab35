"""The readers that people install find every latent in what export writes."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import webdataset

from auravae_cli.exchange.export import export_latents
from auravae_cli.exchange.formats import samples
from auravae_cli.exchange.import_store import import_store
from auravae_cli.flip_hook import RandomFlip
from auravae_cli.symmetry.group import H
from tests.exchange import kit

GOLDEN = Path(__file__).parents[1] / "golden/streams"


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    """Seven latents in files, of two shapes, with captions and labels."""
    folder = tmp_path_factory.mktemp("latents")
    made = [kit.make_latent(n, 16, 24 if n < 5 else 16, label=n, caption=f"{n}") for n in range(7)]
    for number, latent in enumerate(made):
        (folder / f"{number}.safetensors").write_bytes(latent.to_bytes())
    return folder, made


@pytest.mark.parametrize("shape", ["4x2x3", "4x2x2"])
def test_load_dataset(tmp_path, latents, shape):
    folder, made = latents
    outcomes = export_latents(folder, tmp_path / "out", "parquet").outcomes
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "out" / shape / "*"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    assert rows.features["latent"].feature.dtype == "float16"
    expected = [z for z in made if "x".join(map(str, z.values.shape)) == shape]
    for row, latent in zip(rows.with_format("numpy", dtype=np.float16), expected, strict=True):
        values = row["latent"].reshape(row["shape"].astype(int))
        assert values.tobytes() == latent.values.tobytes()
        annotations = latent.records[0].annotations
        assert (row["caption"], row["label"]) == (annotations["caption"], annotations["label"])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_webdataset(tmp_path, latents):
    folder, made = latents
    export_latents(folder, tmp_path / "out", "webdataset")
    tars = sorted(map(str, (tmp_path / "out").glob("*.tar")))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode())
    for sample, latent in zip(samples, made, strict=True):
        assert sample["latent.npy"].tobytes() == latent.values.tobytes()
        assert sample["cls"] == latent.records[0].annotations["label"]


def test_parquet_goes_back_into_a_store(tmp_path, latents):
    folder, made = latents
    export_latents(folder, tmp_path / "out", "parquet")
    outcomes = import_store(tmp_path / "out", tmp_path / "store", "parquet").outcomes
    assert sum(outcome.rows for outcome in outcomes) == len(made)


def test_tables_of_others_are_read(tmp_path):
    """Lists in lists, as Array3D of datasets is stored."""
    z = np.random.default_rng(0).normal(size=(2, 4, 2, 3)).astype(np.float32)
    features = datasets.Features({"latents": datasets.Array3D((4, 2, 3), "float32")})
    rows = datasets.Dataset.from_dict({"latents": list(z)}, features=features)
    rows.to_parquet(tmp_path / "z.parquet")
    found = kit.read(tmp_path, "parquet", tmp_path / "z.parquet")
    assert [one.fault for one in found] == ["", ""]
    assert np.array_equal(np.stack([one.values for one in found]), z)


@pytest.mark.parametrize("form", ["mds", "litdata"])
def test_streams_have_the_bytes_of_the_packages_own_writers(tmp_path, form):
    """scripts/make_stream_golden.py made the files that they are compared with."""
    for number, latent in enumerate(kit.streamed()):
        (tmp_path / f"{number}.safetensors").write_bytes(latent.to_bytes())
    export_latents(sorted(tmp_path.glob("*.safetensors")), tmp_path / "out", form)
    made = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in made] == sorted(p.name for p in (GOLDEN / form).iterdir())
    for file in made:
        found, expected = file.read_bytes(), (GOLDEN / form / file.name).read_bytes()
        if file.suffix == ".json":
            found, expected = json.loads(found), json.loads(expected)
            expected.pop("updated_at", None)  # a time
        assert found == expected


@pytest.mark.parametrize("form", ["mds", "litdata"])
def test_streams_are_written_in_parts_that_four_bytes_can_count(
    tmp_path, latents, form, monkeypatch
):
    folder, made = latents
    monkeypatch.setattr(samples, "_FILE_BYTES", 1500)
    export_latents(folder, tmp_path / "out", form)
    files = [file for file in (tmp_path / "out").iterdir() if file.suffix != ".json"]
    assert len(files) > 2
    outcomes = import_store(files, tmp_path / "store", form).outcomes
    assert sum(outcome.rows for outcome in outcomes) == len(made)


@pytest.mark.filterwarnings("ignore")  # of the package
def test_mds_with_mosaicml_streaming(tmp_path, latents):
    streaming = pytest.importorskip("streaming", exc_type=ImportError)
    folder, made = latents
    export_latents(folder, tmp_path / "out", "mds")
    rows = streaming.LocalDataset(str(tmp_path / "out"))
    for row, latent in zip((rows[n] for n in range(len(rows))), made, strict=True):
        assert row["latent"].tobytes() == latent.values.tobytes()
        assert row["label"] == latent.records[0].annotations["label"]
        hook = RandomFlip("latent", horizontal=1.0, representation=str(kit.SPACE.irreps))
        assert hook(row)["latent"].tobytes() == latent.act(H).values.tobytes()


@pytest.mark.filterwarnings("ignore")  # of the package
def test_litdata(tmp_path, latents):
    litdata = pytest.importorskip("litdata")
    folder, made = latents
    export_latents(folder, tmp_path / "out", "litdata")
    rows = litdata.StreamingDataset(str(tmp_path / "out"), shuffle=False)
    hook = RandomFlip("latent", horizontal=1.0, representation=str(kit.SPACE.irreps))
    for row, latent in zip((rows[n] for n in range(len(rows))), made, strict=True):
        assert row["latent"].numpy().tobytes() == latent.values.tobytes()
        assert row["label"] == latent.records[0].annotations["label"]
        assert hook(row)["latent"].numpy().tobytes() == latent.act(H).values.tobytes()


@pytest.mark.filterwarnings("ignore")  # the package leaves its maps open
def test_wids(tmp_path, latents):
    wids = pytest.importorskip("wids")
    folder, made = latents
    export_latents(folder, tmp_path / "out", "sana")
    index = str(tmp_path / "out" / "wids-meta.json")
    rows = wids.ShardListDataset(index, base=str(tmp_path / "out"), cache_dir=str(tmp_path / "c"))
    for row, latent in zip((rows[n] for n in range(len(rows))), made, strict=True):
        assert row[".npy"].tobytes() == latent.values.tobytes()
        assert row[".json"]["prompt"] == latent.records[0].annotations["caption"]
