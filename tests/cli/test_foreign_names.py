"""Stores, tars, lists and files of others: whatever their names say, nothing else is touched."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from auravae_cli import LatentDataset
from auravae_cli.errors import OutputError, StoreError
from auravae_cli.files.canonical_json import canonical
from auravae_cli.files.places import fault_of
from auravae_cli.files.storage import open_storage
from auravae_cli.images.prepare import Preparation
from auravae_cli.latents.dtypes import FLOAT16
from auravae_cli.latents.latent_file import read_latents
from auravae_cli.operations.encode_shard import ShardOptions
from auravae_cli.operations.input_shards import InputShard
from auravae_cli.operations.ray_runner import ShardWorker
from auravae_cli.operations.sources import find_files
from auravae_cli.operations.store_work import Wanted, find_work
from auravae_cli.store.commit import PreviousShard
from auravae_cli.store.settings import StoreSettings
from tests.cli.datasets import everything, picture, pictures, write_folder, write_tar
from tests.exchange.kit import WRITTEN

VICTIM = "a.2x3.safetensors"
OUTSIDE = [
    "../victims/x",
    "../../victims/x",
    "sub/../../victims/x",
    "{}/victims/x",
    "./../victims/x",
]
STORE = ("-o", "store", "--layout", "shards")
OUTSIDE += ["..\\victims\\x", "C:x", "C:\\victims\\x", ""]
MEMBERS = [*OUTSIDE[:5], "a\\..\\..\\victims\\x", "C:x", "C:\\victims\\x"]  # none is a hidden file


@pytest.fixture
def place(work):
    """The current folder, deep in one whose other files are never to change."""
    (work / "victims").mkdir()
    (work / "victims" / "x.png").write_bytes(b"mine")
    return work


@pytest.fixture
def hostile(make_store, place):
    """A store whose manifest of shard ``a`` names a file that lies elsewhere, and is there."""

    def make(name):
        store = make_store()
        name = name.format(place)
        manifest = json.loads((store / "a.manifest.json").read_bytes())
        content = (store / VICTIM).read_bytes()
        for root in (store, place / "out"):
            if "victims" in name and "\\" not in name:
                target = (root / name).resolve()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
        manifest["outputs"][0]["name"] = name
        (store / "a.manifest.json").write_bytes(canonical(manifest))
        return store

    return make


def unchanged(folder, before, *but):
    """Whether all files are as before, those below some folders apart."""
    after = everything(folder)
    return {n: c for n, c in after.items() if not n.startswith(but)} == {
        n: c for n, c in before.items() if not n.startswith(but)
    }


READERS = {
    "flip": ["flip", "STORE", "-H", "-o", "out"],
    "decode": ["decode", "STORE", "--any-model", "-m", "linear", "-o", "out"],
    "export": ["export", "STORE", "--to", "npz", "-o", "out"],
    "export stacked": ["export", "STORE", "--to", "webdataset", "-o", "out"],
    "info": ["info", "STORE"],
    "info quick": ["info", "STORE", "--quick"],
    "show": ["show", "STORE", "--index", "0"],
    "verify": ["verify", "STORE"],
    "verify quick": ["verify", "STORE", "--quick"],
}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize(
    "name", [*OUTSIDE[:5], "..\\victims\\x", "sub/c.2x3.safetensors", "store.json"]
)
def test_a_manifest_names_no_files_but_its_own(auravae, place, hostile, command, name):
    store = hostile(name)
    before = everything(place)
    arguments = [str(store) if part == "STORE" else part for part in READERS[command]]
    result = auravae(*arguments)
    assert result.code == 1
    assert "a.manifest.json" in result.message or "shard a" in result.message
    assert "no file of shard 'a'" in result.message
    assert unchanged(place, before, "out", "store")
    with pytest.raises(StoreError, match="no file of shard 'a'"):
        LatentDataset(store)


@pytest.mark.parametrize("shard", OUTSIDE)
def test_a_manifest_is_of_no_shard_elsewhere(auravae, place, make_store, shard):
    """The known case: flip wrote beside its output."""
    store = make_store()
    shard = shard.format(place)
    manifest = json.loads((store / "a.manifest.json").read_bytes())
    before = everything(place)
    outputs = [
        output | {"name": f"{shard}.{'x'.join(map(str, output['shape'][-2:]))}.safetensors"}
        for output in manifest["outputs"]
    ]
    for output, old in zip(outputs, manifest["outputs"], strict=True):
        if "victims" in shard and "\\" not in shard:
            (store / output["name"]).parent.resolve().mkdir(exist_ok=True)
            (store / output["name"]).resolve().write_bytes((store / old["name"]).read_bytes())
    (store / "a.manifest.json").write_bytes(
        canonical(manifest | {"shard": shard, "outputs": outputs})
    )
    before = everything(place)
    result = auravae("flip", store, "-H", "-o", "deep/out", "--json")
    assert result.code == 1
    reasons = {row["shard"]: row["reason"] for row in result.rows if row["status"] == "failed"}
    assert set(reasons) == {"a"}
    assert "shard: " in reasons["a"]
    assert unchanged(place, before, "deep")
    assert auravae("verify", "deep/out").code == 0  # the others


def test_a_renamed_manifest_is_not_flipped_in_the_place_of_another(auravae, work, make_store):
    store = make_store()
    for path in store.glob("b.*"):
        path.rename(path.with_name(path.name.replace("b.", "z.")))
    result = auravae("flip", store, "-H", "-o", "out")
    assert result.code == 1
    assert "shard z: its manifest is that of shard 'b', renamed" in result.message
    assert not list(Path("out").glob("[bz].*"))


def test_a_store_far_away_is_no_exception(auravae, place, hostile):
    import fsspec

    store = hostile("../victims/x")
    files = fsspec.filesystem("memory")
    files.put(str(store), "/far/store", recursive=True)
    files.put(str(place / "victims"), "/far/victims", recursive=True)
    try:
        before = everything(place)
        for command in ("flip", "decode", "export", "info", "verify"):
            places = {"STORE": "memory://far/store", "out": f"out/{command}"}
            arguments = [places.get(a, a) for a in READERS[command]]
            result = auravae(*arguments)
            assert result.code == 1
            assert "no file of shard 'a'" in result.message
            assert unchanged(place, before, "out")
        for name in ("../x", "a/../../x", "/x"):
            storage = open_storage("memory://far/store")
            for use in (storage.read, storage.open, storage.map, storage.remove, storage.check):
                with pytest.raises(StoreError, match="can have this name"):
                    use(name)
            (place / "finished").write_bytes(b"")
            with pytest.raises(StoreError, match="can have this name"):
                storage.publish(place / "finished", name)
            (place / "finished").unlink()
    finally:
        files.store.clear()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "", ".", ".."])
def test_a_storage_reaches_nothing_else(tmp_path, name):
    (tmp_path / "x").write_bytes(b"mine")
    (tmp_path / "finished").write_bytes(b"new")
    storage = open_storage(str(tmp_path / "store"))
    for use in (storage.read, storage.open, storage.map, storage.remove, storage.check):
        with pytest.raises(StoreError, match="can have this name"):
            use(name)
    with pytest.raises((StoreError, OutputError), match="can have this name"):
        storage.publish(tmp_path / "finished", name)
    assert (tmp_path / "x").read_bytes() == b"mine"


@pytest.fixture
def named(auravae, place):
    """A store of pictures out of a tar whose members say that they lie elsewhere."""
    names = [f"{name.format(place)}{n}" for n, name in enumerate(MEMBERS)]
    members = {f"{name}.png": picture(n, 16, 16) for n, name in enumerate(names)}
    write_tar(place / "in" / "a.tar", members)
    assert auravae("encode", "in/a.tar", "-o", "deep/store").code == 0
    (path,) = Path("deep/store").glob("*.safetensors")
    sources = [record.source for record in read_latents(path).records]
    assert sources == [name.removeprefix("./") for name in members]
    return Path("deep/store")


def test_decoded_members_of_tars_lead_nowhere_else(auravae, place, named):
    before, number = everything(place), len(MEMBERS)
    shard = next(named.glob("*.safetensors"))
    for source, out in ((named, "deep/store-out"), (shard, "deep/shard-out")):
        assert auravae("decode", source, "-o", out).code == 0
        assert len(list(Path(out).rglob("*.png"))) == number
    alone = Path("deep/alone/shard.safetensors")
    alone.parent.mkdir()
    alone.write_bytes(shard.read_bytes())
    assert auravae("decode", alone).code == 0  # beside its file
    assert len(list(alone.parent.rglob("*.png"))) == number
    assert unchanged(place, before, "deep")


def test_measured_members_of_tars_lead_nowhere_else(auravae, place, named):
    before = everything(place)
    result = auravae("eval", "in/a.tar", "-o", "deep/eval", "--html", "deep/page.html")
    assert result.code == 0
    assert "victims" in Path("deep/page.html").read_text()
    assert unchanged(place, before, "deep")


@pytest.mark.parametrize("to", WRITTEN)
def test_exchanged_members_of_tars_lead_nowhere_else(auravae, place, named, to):
    before = everything(place)
    result = auravae("export", named, "--to", to, "-o", "deep/out")
    assert result.code == 0, result.err
    back = auravae(
        "import", "deep/out", "--from", to, "--assume-model", "linear", "-o", "deep/back"
    )
    assert back.code == 0, back.err
    for path in Path("deep/out").glob("*.tar"):
        with tarfile.open(path) as archive:
            assert not any(map(fault_of, archive.getnames()))
    assert len(list(Path("deep/back").rglob("*.safetensors"))) >= 1
    assert unchanged(place, before, "deep")


@pytest.mark.parametrize("layout", [["-o", "deep/out"], ["-o", "deep/out", "--layout", "files"]])
def test_rows_to_import_lead_nowhere_else(auravae, place, make_store, layout):
    assert auravae("export", make_store(), "--to", "webdataset", "-o", "deep/in").code == 0
    for path in Path("deep/in").glob("*.tar"):
        with tarfile.open(path) as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive}
        write_tar(path, {f"../../victims/{name}": content for name, content in members.items()})
    before = everything(place)
    assert auravae("import", "deep/in", "--from", "webdataset", *layout).code == 0
    assert unchanged(place, before, "deep")


def test_entries_of_lists_lead_nowhere_else(auravae, place):
    write_folder(place / "in" / "sub", {"a.png": picture(1), "b.png": picture(2)})
    Path("list").write_text(
        "in/sub/../sub/a.png\nin/sub/../../in/sub/b.png\n../x.png\nnothing/..\n"
    )
    before = everything(place)
    result = auravae("encode", "--files-from", "list", "-o", "deep/out", "--json")
    assert result.code == 1
    assert sorted(row["status"] for row in result.rows) == ["done", "done", "failed", "failed"]
    assert sorted(everything(Path("deep/out"))) == ["a.safetensors", "b.safetensors"]
    assert unchanged(place, before, "deep")


# Shards are named after tars, which others make.


def options():
    return ShardOptions(Preparation(), 10**6)


@pytest.mark.parametrize("name", ["x\\y", "C:x", ".x", ""])
def test_a_tar_whose_name_makes_no_store_costs_itself(auravae, work, name):
    write_tar(work / "in" / f"{name}.tar", pictures(1))
    write_tar(work / "in" / "b.tar", pictures(1))
    result = auravae("encode", f"in/{name}.tar", "in/b.tar", *STORE, "--json")
    assert result.code == 1, result.err
    assert {row["shard"]: row["status"] for row in result.rows} == {name: "failed", "b": "done"}
    assert auravae("verify", "store").code == 0


@pytest.mark.parametrize("root", ["store", "memory://some/store"])
def test_a_worker_writes_no_shard_elsewhere(work, root):
    """On a Ray cluster the same function makes the place; here without one."""
    write_tar(work / "a.tar", pictures(1))
    shard = InputShard("../x", tuple(find_files(["a.tar"])), True)
    worker = ShardWorker("linear", "cpu", "auto", None, False)
    space, compute_dtype, kernels, symmetry = worker.facts()
    settings = StoreSettings(
        space, FLOAT16, compute_dtype, Preparation().to_json(), kernels=kernels, symmetry=symmetry
    )
    with pytest.raises(StoreError, match="can have this name"):
        worker.encode(shard, PreviousShard(), root, settings, options())
    (outcome,) = find_work([shard], open_storage(root), settings, Wanted(frozenset()))
    assert (outcome.status, outcome.shard) == ("failed", "../x")
    assert not list(work.glob("x*"))


# Links


@pytest.fixture
def linked(place):
    """An output folder in which somebody put a link to another one."""
    (place / "out").mkdir()
    (place / "out" / "sub").symlink_to(place / "victims")
    return place


@pytest.mark.parametrize(
    "command",
    [
        ["flip", "STORE", "-H", "-o", "out"],
        ["encode", "in", "-o", "out"],
        ["encode", "tars", "-o", "out", "--layout", "shards"],
        ["roundtrip", "in", "-o", "out"],
        ["decode", "latents", "-o", "out"],
        ["flip", "latents", "-H", "-o", "out"],
        ["export", "STORE", "--to", "npz", "-o", "out"],
        ["import", "npz", "--from", "npz", "-o", "out"],
        ["import", "tar", "--from", "webdataset", "-o", "out"],
    ],
    ids=" ".join,
)
def test_nothing_is_written_through_a_link_out_of_the_folder(auravae, linked, make_store, command):
    store = make_store(shards={"a": {(2, 3): 1}, "sub/c": {(2, 3): 1}}, failures={})
    write_folder(linked / "in", {"a.png": picture(1), "sub/b.png": picture(2)})
    for name in ("a", "sub/b"):
        write_tar(linked / "tars" / f"{name}.tar", pictures(1))
    auravae("encode", "in", "-o", "latents")
    auravae("export", store, "--to", "npz", "-o", "npz")
    auravae("export", "latents/sub/b.safetensors", "--to", "webdataset", "-o", "tar/sub")
    before = everything(linked / "victims")
    arguments = [str(store) if part == "STORE" else part for part in command]
    result = auravae(*arguments)
    assert result.code == 1
    assert "a link leads out of out to" in result.message
    assert everything(linked / "victims") == before
    if "tar" not in command:
        assert len(list(Path("out").glob("a*"))) >= 1  # the others are done


def test_results_go_beside_no_input_behind_a_link(auravae, place, latent):
    write_folder(place / "in", {"a.png": picture(1)})
    write_folder(place / "elsewhere", {"b.png": picture(2)})
    for name in ("in/c.safetensors", "elsewhere/d.safetensors"):
        (place / name).write_bytes(latent.read_bytes())
    (place / "in" / "more").symlink_to(place / "elsewhere")
    before = everything(place / "elsewhere")
    for command in (["encode"], ["roundtrip"], ["decode"], ["flip", "-H"]):
        result = auravae(*command, "in")
        assert result.code == 1
        assert "a link leads out of in to" in result.message
        assert everything(place / "elsewhere") == before
    for name in ("a.safetensors", "a.roundtrip.png", "c.decoded.png", "c.h.safetensors"):
        assert Path("in", name).exists()  # the others are done
    assert auravae("encode", "in", "-o", "out").code == 0  # it is read, as it was
    assert Path("out/more/b.safetensors").exists()
    assert auravae("encode", "elsewhere").code == 0  # and named, it may be written to


@pytest.mark.parametrize("layout", [[], ["--layout", "shards"]])
@pytest.mark.parametrize(
    "inputs", [["in"], ["in/x", "in/y"], ["in/x"], ["in/**/*.png"], ["i*/**/*.png"]]
)
def test_folders_that_link_to_each_other_are_walked_once(auravae, place, layout, inputs):
    write_folder(place / "in", {"x/1.png": picture(1), "y/2.png": picture(2)})
    for link, target in (("x/to-y", "../y"), ("y/to-x", "../x")):
        Path("in", link).symlink_to(target)
    assert auravae("encode", *inputs, "-o", "out", *layout).code == 0
    assert auravae("eval", *inputs, "-o", "measured").code == 0
    number = 2 if len(inputs) == 1 else 4  # each of two that were named
    found = [read_latents(path) for path in Path("out").rglob("*.safetensors")]
    assert sum(len(latents.records) for latents in found) == number


def test_a_store_is_not_gone_on_with_through_a_link(auravae, place):
    for n, name in enumerate(("a", "sub/b")):
        write_tar(place / "in" / f"{name}.tar", pictures(1, n))
    assert auravae("encode", "in", *STORE).code == 0
    Path("store/sub").rename("elsewhere")
    Path("store/sub").symlink_to(place / "elsewhere")
    write_tar(place / "in" / "sub" / "b.tar", pictures(2))
    before = everything(place / "elsewhere")
    result = auravae("encode", "in", *STORE, "--json")
    assert result.code == 1
    assert {row["shard"]: row["status"] for row in result.rows} == {
        "a": "skipped",
        "sub/b": "failed",
    }
    assert everything(place / "elsewhere") == before
    assert all(read_latents(path) for path in Path("elsewhere").glob("*.safetensors"))
