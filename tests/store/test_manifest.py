"""The JSON of stores: canonical, exact, and never believed where it is damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from auravae_cli.errors import StoreError
from auravae_cli.files.canonical_json import canonical
from auravae_cli.files.storage import Entry, LocalStorage
from auravae_cli.latents.dtypes import BFLOAT16, FLOAT16
from auravae_cli.latents.latent_file import LatentSpace
from auravae_cli.store.ledger import Failure, read_failures
from auravae_cli.store.manifest import (
    Manifest,
    Output,
    SourceState,
    iterate_manifests,
    read_manifest,
)
from auravae_cli.store.names import (
    SETTINGS_FILE,
    failures_name,
    manifest_name,
    output_name,
    shard_of,
    shards_of,
)
from auravae_cli.store.settings import StoreSettings, read_settings
from auravae_cli.symmetry.group import Irreps

SPACE = LatentSpace("toy", "f" * 64, 8, Irreps.parse("2xee+1xoe"), 4.0)
SETTINGS = StoreSettings(SPACE, BFLOAT16, "float32", {"pad": "edge", "crop": [1, 2, 3, 4]}, 7)
MANIFEST = Manifest(
    "a/b",
    SETTINGS.sha256,
    (SourceState("b.tar", 10, "v", "e" * 64),),
    (Output("a/b.2x3.safetensors", 99, "d" * 64, (5, 3, 2, 3)),),
    2,
)
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=3), inside, max_size=3)
    ),
    max_leaves=5,
)


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "a").mkdir()
    return LocalStorage(tmp_path)


def write(storage, name, content):
    (storage.path / name).write_bytes(content)


def test_canonical_json_depends_on_the_content_alone():
    assert canonical({"b": 1, "a": [1, 2.5, "ü"]}) == b'{"a":[1,2.5,"\\u00fc"],"b":1}\n'
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})


def test_settings_come_back(storage):
    assert read_settings(storage) is None
    write(storage, SETTINGS_FILE, canonical(SETTINGS.to_json()))
    assert read_settings(storage) == SETTINGS
    assert canonical(read_settings(storage).to_json()) == storage.read(SETTINGS_FILE)


@pytest.mark.parametrize(
    "change",
    [
        {"space": replace(SPACE, weights_sha256="0" * 64)},
        {"stored_dtype": FLOAT16},
        {"compute_dtype": "bfloat16"},
        {"preparation": {"pad": "reflect"}},
        {"num_file_shards": 8},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_covers_every_setting(change):
    assert replace(SETTINGS, **change).sha256 != SETTINGS.sha256


LIES = {
    "another format": {"format": "something"},
    "a later version": {"format_version": 2},
    "no shards": {"num_file_shards": 0},
    "shards in words": {"num_file_shards": "7"},
    "half a shard": {"num_file_shards": 1.5},
    "an unknown dtype": {"stored_dtype": "float8"},
    "a dtype as a list": {"stored_dtype": []},
    "a preparation as a list": {"preparation": []},
    "no compute dtype": {"compute_dtype": None},
    "no weights": {"weights_sha256": 7},
    "no representation": {"representation": "sixteen"},
}


@pytest.mark.parametrize("lie", LIES)
def test_settings_that_lie_are_refused(storage, lie):
    write(storage, SETTINGS_FILE, canonical(SETTINGS.to_json() | LIES[lie]))
    with pytest.raises(StoreError, match=r"store\.json: no store that this auravae reads"):
        read_settings(storage)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\xff", b"[" * 100_000, b"null", b"[]", b"{}", b'"x"']
)
def test_damaged_json_is_an_error_that_names_the_file(storage, content):
    for name in (SETTINGS_FILE, manifest_name("a/b"), failures_name("a/b")):
        write(storage, name, content)
    with pytest.raises(StoreError, match=r"store\.json"):
        read_settings(storage)
    with pytest.raises(StoreError, match=r"a/b\.manifest\.json: damaged manifest"):
        read_manifest(storage, "a/b")
    if content:
        with pytest.raises(StoreError, match=r"a/b\.failures\.jsonl: damaged ledger"):
            read_failures(storage, "a/b")


def test_manifests_come_back(storage):
    assert read_manifest(storage, "a/b") is None
    write(storage, manifest_name("a/b"), MANIFEST.to_bytes())
    assert read_manifest(storage, "a/b") == MANIFEST
    assert json.loads(MANIFEST.to_bytes())["rows"] == MANIFEST.rows == 5
    assert list(iterate_manifests(storage)) == [MANIFEST]


@pytest.mark.parametrize(
    "shape", [[], [5], [5, 3, 2], [5, 3, 2, 3, 1], [5, 3, 2, "3"], [0, 3, 2, 3], [5, 3, -2, 3]]
)
def test_impossible_shapes_are_damage(storage, shape):
    content = json.loads(MANIFEST.to_bytes())
    content["outputs"][0]["shape"] = shape
    write(storage, manifest_name("a/b"), canonical(content))
    with pytest.raises(StoreError, match="damaged manifest"):
        read_manifest(storage, "a/b")


@pytest.mark.parametrize(
    ("place", "value", "fault"),
    [
        (("settings_sha256",), 5, "settings_sha256: expected str, found 5"),
        (("failures",), -1, "failures: expected a number from 0, found -1"),
        (("failures",), 2**64, "failures: expected a number of 64 bits"),
        (("outputs", 0, "name"), ["a"], "outputs\\[0\\].name: expected str, found \\['a'\\]"),
        (("outputs", 0, "size"), "5", "outputs\\[0\\].size: expected int, found '5'"),
        (("sources", 0, "version"), None, "sources\\[0\\].version: expected str, found None"),
        (("sources", 0), 7, "sources\\[0\\]: expected a table, found 7"),
    ],
)
def test_a_field_of_another_type_is_named(storage, place, value, fault):
    content = json.loads(MANIFEST.to_bytes())
    table = content
    for step in place[:-1]:
        table = table[step]
    table[place[-1]] = value
    write(storage, manifest_name("a/b"), canonical(content))
    with pytest.raises(StoreError, match=f"damaged manifest \\({fault}"):
        read_manifest(storage, "a/b")


def test_a_ledger_names_the_line(storage):
    lines = canonical(vars(Failure("k", "read", "why"))) + b'{"key":5,"stage":"read"}\n'
    write(storage, failures_name("a/b"), lines)
    fault = "line 2: key: expected str, found 5; missing reason"
    with pytest.raises(StoreError, match=f"damaged ledger: {fault}"):
        read_failures(storage, "a/b")


@given(st.data())
def test_any_change_of_the_json_is_read_or_refused(tmp_path_factory, data):
    storage = LocalStorage(tmp_path_factory.mktemp("store"))
    contents = (SETTINGS.to_json(), json.loads(MANIFEST.to_bytes()))
    readers = (read_settings, lambda storage: read_manifest(storage, "x").rows)
    for content, name, read in zip(
        contents, (SETTINGS_FILE, manifest_name("x")), readers, strict=True
    ):
        table = data.draw(
            st.sampled_from([content, *content.get("outputs", []), *content.get("sources", [])])
        )
        table[data.draw(st.sampled_from([*table, "new"]))] = data.draw(JUNK)
        write(storage, name, json.dumps(content).encode())
        try:
            read(storage)
        except StoreError as error:
            assert name in str(error)


def test_ledgers_come_back(storage):
    failures = [Failure("k\u2028\n", "decode", "wäs\x1c"), Failure(None, "archive", "cut off")]
    assert read_failures(storage, "a/b") == []
    write(storage, failures_name("a/b"), b"".join(canonical(vars(f)) for f in failures))
    assert read_failures(storage, "a/b") == failures


def test_a_source_is_still_the_same():
    state = SourceState("a", 3, "v", "e" * 64)
    assert state.is_still(Entry("a", 3, "v"))
    assert not state.is_still(Entry("a", 4, "v"))
    assert not state.is_still(Entry("a", 3, "w"))
    assert not replace(state, version="").is_still(Entry("a", 3, ""))  # nothing is known


@given(st.text("a.0x\n/", min_size=1, max_size=6))
def test_files_are_told_by_their_names(shard):
    names = [manifest_name(shard), failures_name(shard), output_name(shard, (32, 48))]
    assert [shard_of(name) for name in names] == [shard] * 3
    entries = [Entry(name, 1, "") for name in [*names, SETTINGS_FILE, f"{shard}.txt"]]
    assert shards_of(entries) == [shard]
    assert shard_of(SETTINGS_FILE) is None
