"""Names from elsewhere: none leads out of its folder, and nothing joins one but `below`."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

import auravae_cli
from auravae_cli.errors import OutputError
from auravae_cli.files.places import below, fault_of, safe_name
from tests.files.joins import joins

PACKAGE = Path(auravae_cli.__file__).parent

FINE = ["a", "a/b.c", "a..b/..c", "...a", "a/b c/é", "ab:c", "a/C:b", "-", "~", "a\nb", "CON"]
# What is wrong here, and what is wrong on Windows alone.
BAD = [
    "",
    "/",
    ".",
    "./.",
    "..",
    "../a",
    "a/..",
    "a/../../b",
    "./../a",
    "/a",
    "//a",
    "/../a",
    "a\0b",
    "a/\ud800.png",
]
BAD_THERE = [
    "C:",
    "C:a",
    "c:/a",
    "./C:a",
    "\\a",
    "\\\\host\\a",
    "..\\a",
    "a\\..\\..\\b",
    "a/.. /b",
    "...",
]


@pytest.mark.parametrize("name", FINE)
def test_a_name_of_a_file_below_a_folder(tmp_path, name):
    assert fault_of(name) == ""
    assert below(tmp_path, name) == tmp_path / name
    assert below(tmp_path, PurePosixPath(name)) == tmp_path / name


@pytest.mark.parametrize("name", BAD)
def test_what_leads_out_of_a_folder_is_refused(tmp_path, name):
    assert fault_of(name) and fault_of(name, on_windows=False)
    for to_write in (True, False):
        with pytest.raises(OutputError, match="no file in"):
            below(tmp_path, name, to_write=to_write)


@pytest.mark.parametrize("name", BAD_THERE)
def test_what_leads_out_on_windows_is_refused_there_and_in_stores(tmp_path, name, monkeypatch):
    assert fault_of(name)
    assert below(tmp_path, name).parent.resolve().is_relative_to(tmp_path)
    monkeypatch.setattr("auravae_cli.files.places.os.name", "nt")
    with pytest.raises(OutputError, match="no file in"):
        below(tmp_path, name)


@pytest.mark.parametrize("name", [*FINE, *BAD, *BAD_THERE])
def test_a_safe_name_is_one_everywhere(name):
    assert fault_of(safe_name(name)) == ""
    if name in FINE:
        assert safe_name(name) == name


@pytest.fixture
def linked(tmp_path, monkeypatch):
    """Links out of a folder, and such as stay in it."""
    monkeypatch.chdir(tmp_path)
    for folder in ("home/a", "out"):
        Path(folder).mkdir(parents=True)
    for link, target in {"out": "../out", "up": "..", "in": "a", "loop": "loop"}.items():
        Path("home", link).symlink_to(target)
    Path("home/a/out").symlink_to(tmp_path / "out")
    Path("home/file").symlink_to(tmp_path / "out" / "file")
    Path("named").symlink_to("home")
    return tmp_path


@pytest.mark.parametrize("name", ["out/x", "out/b/x", "up/x", "up/out/x", "a/out/x", "in/out/x"])
def test_nothing_is_written_through_a_link_out_of_the_folder(linked, name):
    for folder in (Path("home"), linked / "home", Path("named")):
        with pytest.raises(OutputError, match="a link leads out"):
            below(folder, name)
        assert below(folder, name, to_write=False) == folder / name  # read by its owner's leave


@pytest.mark.parametrize("name", ["x", "a/x", "in/x", "up/home/x", "file", "new/x"])
def test_links_that_stay_in_the_folder_are_its_own(linked, name):
    for folder in (Path("home"), linked / "home", Path("named"), linked / "named"):
        assert below(folder, name) == folder / name


# Nothing else makes a place of such a name: what joins all the same, and why it may.
LISTED = "names of files that the system listed below what the user named"
NAME = "a name, of which `below` makes a place"
WRITTEN = "names that are written in the program, numbers, or hashes"
ALLOWED = {
    "files.places.below": "the one that may",
    "files.spelling.tells_apart": "a file of its own, spelled otherwise",
    "files.walk": LISTED,
    "operations.inputs._sources": LISTED,
    "exchange.import_files.open_foreign": LISTED,
    "operations.sources._place": LISTED,
    "files.storage.RemoteStorage._repeated": "checked there: no system joins the parts of a URL",
    "exchange.formats.aitoolkit": NAME,
    "exchange.formats.caches._found": NAME,
    "exchange.formats.caches.read_onetrainer": LISTED,
    "exchange.formats.caches._places": LISTED,
    "exchange.formats.litdata.read": LISTED,
    "operations.latent_rows.expand_shard": NAME,
    "operations.latent_rows.expand_store": NAME,
    "operations.latent_rows._fault": "of a file that cannot be read, for messages",
    "operations.outputs._place": NAME,
    "operations.roundtrip.sheet_place": "beside a place of `below`, by its own name",
    "forecast.benchmark.measure_peaks": "a division",
    "evaluation.run.Evaluation.ahead": "a division",
    "serve.remote_vae.decode": "a division",
    "serve.page._content": "names of the page's own files",
    "adapters.foreign_sources": "a model that the user names, and what lies beside it",
    "evaluation.protocols.find_protocol": "one of the names of the protocols' files",
    "evaluation.reconstructions.load_reconstructions.refuse": "for messages",
    "exchange.picture_order.PictureOrder": LISTED,
    "machine.memory._container": WRITTEN,
    "model.cpu.compiled": WRITTEN,
    "model.cpu.shipped": WRITTEN,
    "evaluation.page.document.page_bytes": WRITTEN,
    "evaluation.pictures.Album": WRITTEN,
    "store.flip.StoreFlipper.run": WRITTEN,
    "store.shard_writer.ShardWriter": WRITTEN,
    "model.spec.registry.local_weights": "the model's configuration, which is trusted, is written beside it",
    "model.spec.registry._in_hub_cache": "likewise, and only read",
    "exchange.export_files.EarlierFiles.count": "the folder's own names, which are counted",
}


def is_of(where: str, allowed: str) -> bool:
    return where == allowed or where.startswith(f"{allowed}.")


def test_no_other_place_joins_a_folder_and_a_name():
    found = [join for module in PACKAGE.rglob("*.py") for join in joins(module, PACKAGE)]
    unknown = [(w, line) for w, line in found if not any(is_of(w, name) for name in ALLOWED)]
    assert not unknown, "make the place with auravae_cli.files.places.below"
    others = [name for name, why in ALLOWED.items() if why != WRITTEN]
    unused = [name for name in others if not any(is_of(where, name) for where, _ in found)]
    assert not unused, "these join no more"


BREACHES = {
    "folder / output.name": True,
    "Path(root) / manifest.shard": True,
    'self._folder / f"{key}.png"': True,
    "scratch / member": True,
    "x / record.source": True,
    "Path(root, record.key)": True,
    "Path(*parts)": True,
    "folder.joinpath(name)": True,
    "output.with_name(name)": True,
    "os.path.join(folder, name)": True,
    'open(f"{folder}/{name}")': True,
    'os.scandir(folder + "/" + name)': True,
    'Path(f"{root}/{name}").read_bytes()': True,
    'storage = open_storage("%s/%s" % (root, name))': True,
    'path = f"{prefix}/{name}"': True,
    "count / number": False,
    "height / len(rows)": False,
    'folder / "store.json"': False,
    "folder / SETTINGS_FILE": False,
    "Path(folder, checkpoint.FILE_NAME)": False,
    "Path(name)": False,
    '"/".join(parts)': False,
    'raise StoreError(f"{root}/{name}: missing")': False,
}


@pytest.mark.parametrize(("line", "is_breach"), BREACHES.items())
def test_the_check_would_notice(tmp_path, line, is_breach):
    (tmp_path / "sub").mkdir()
    module = tmp_path / "sub" / "module.py"
    module.write_text(f"class Some:\n    def function(self):\n        {line}\n")
    expected = [("sub.module.Some.function", 3)] if is_breach else []
    assert list(joins(module, tmp_path)) == expected


@pytest.mark.skipif(os.name == "nt", reason="other separators")
def test_the_folder_named_may_itself_be_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert below(Path("../x/.."), "a/b") == Path("../x/../a/b")
