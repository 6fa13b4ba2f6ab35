"""Where results go, and what stays untouched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auravae_cli.operations import inputs

PRODUCTS = {  # command line => what it writes beside a.png or a.safetensors
    ("encode", "a.png"): "a.safetensors",
    ("decode", "a.safetensors"): "a.decoded.png",
    ("flip", "a.safetensors", "-H"): "a.h.safetensors",
    ("flip", "a.safetensors", "-V"): "a.v.safetensors",
    ("flip", "a.safetensors", "-H", "-V"): "a.hv.safetensors",
    ("roundtrip", "a.png"): "a.roundtrip.png",
}


@pytest.fixture
def pair(auravae, work, picture):
    """a.png and a.safetensors in the current folder."""
    picture("a.png")
    assert auravae("encode", "a.png").code == 0
    return work


@pytest.mark.parametrize(("arguments", "product"), PRODUCTS.items())
def test_beside_the_input_results_carry_a_tag(auravae, work, picture, tree, arguments, product):
    picture("a.png")
    if arguments[0] in ("decode", "flip"):
        auravae("encode", "a.png")
    before = set(tree(work))
    result = auravae(*arguments)
    assert result.code == 0
    assert f"{arguments[1]} -> {product}" in result.text
    assert set(tree(work)) - before == {product}


@pytest.mark.parametrize("arguments", PRODUCTS)
def test_in_a_folder_results_carry_none(auravae, pair, tree, arguments):
    assert auravae(*arguments, "-o", "new/out").code == 0
    (name,) = tree(pair / "new")
    assert name == f"out/a{Path(PRODUCTS[arguments]).suffix}"


@pytest.mark.parametrize("arguments", PRODUCTS)
def test_a_name_is_taken_as_it_is(auravae, pair, tree, arguments):
    suffix = Path(PRODUCTS[arguments]).suffix
    assert auravae(*arguments, "-o", f"new/my.name{suffix}").code == 0
    assert list(tree(pair / "new")) == [f"my.name{suffix}"]


@pytest.mark.parametrize("arguments", PRODUCTS)
def test_many_inputs_do_not_fit_one_file(auravae, pair, tree, arguments):
    suffix = Path(PRODUCTS[arguments]).suffix
    before = tree(pair)
    for output in (f"one{suffix}", "-"):
        result = auravae(*arguments, f"b{suffix}", "-o", output)
        assert result.code == 2
        assert "2 inputs cannot all be written" in result.message
    assert tree(pair) == before


def test_a_folder_gives_a_mirrored_folder(auravae, work, picture, tree):
    for name in ("a.png", "sub/b.jpg", "sub/deep/c.bmp", ".hidden/d.png", "sub/.e.png"):
        picture(f"in/{name}")
    Path("in/readme.txt").write_text("no picture")
    assert auravae("encode", "in", "-o", "out").code == 0
    expected = ["a.safetensors", "sub/b.safetensors", "sub/deep/c.safetensors"]
    assert sorted(tree(work / "out")) == expected
    assert auravae("decode", "out", "-o", "back", "--format", "webp").code == 0
    assert sorted(tree(work / "back")) == ["a.webp", "sub/b.webp", "sub/deep/c.webp"]


def test_patterns_that_the_shell_left_alone(auravae, work, picture, tree):
    for name in ("a.png", "b.png", "c.jpg", "sub/d.png"):
        picture(f"in/{name}")
    assert auravae("encode", "in/*.png", "-o", "flat").code == 0
    assert sorted(tree(work / "flat")) == ["a.safetensors", "b.safetensors"]
    assert auravae("encode", "in/**/*.png", "-o", "all").code == 0
    assert sorted(tree(work / "all")) == ["a.safetensors", "b.safetensors", "d.safetensors"]


def test_a_file_named_like_a_pattern(auravae, work, picture, tree):
    picture("a[1].png")
    picture("a1.png")
    assert auravae("encode", "a[1].png").code == 0
    assert "a[1].safetensors" in tree(work) and "a1.safetensors" not in tree(work)


def test_a_pattern_without_matches_is_a_failure(auravae, work):
    result = auravae("encode", "*.png")
    assert result.code == 1
    assert "failed: *.png: cannot be read" in result.err


def test_lists_and_duplicates(auravae, work, picture):
    for name in ("a", "b", "c"):
        picture(f"{name}.png")
    Path("list.txt").write_text("b.png\n\n  c.png  \r\na.png\n./b.png\n")
    result = auravae("encode", "a.png", "--files-from", "list.txt", "--json")
    assert result.code == 0
    assert [row["source"] for row in result.rows] == ["a.png", "b.png", "c.png"]


def test_a_list_from_standard_input(auravae, work, picture):
    picture("a.png")
    picture("in/b.png")
    result = auravae("encode", "--files-from", "-", "--json", stdin=b"a.png\nin\n")
    assert [row["source"] for row in result.rows] == ["a.png", "in/b.png"]
    assert {row["status"] for row in result.rows} == {"done"}


@pytest.mark.parametrize("content", [b"a.png\0b.png\0", b"\xff\xfe\x00"])
def test_a_list_that_is_none(auravae, work, picture, content):
    picture("a.png")
    Path("list.txt").write_bytes(content)
    result = auravae("encode", "--files-from", "list.txt")
    assert result.code == 1
    assert "list.txt" in result.message


@pytest.mark.parametrize("command", [["encode"], ["decode"], ["flip", "-H"], ["roundtrip"]])
@pytest.mark.parametrize("inputs", [[], ["empty"], ["--files-from", "empty.txt"]])
def test_no_inputs_is_wrong_usage(auravae, work, command, inputs):
    Path("empty").mkdir()
    Path("empty.txt").write_text("\n")
    result = auravae(*command, *inputs)
    assert result.code == 2
    assert result.out == b""


@pytest.mark.parametrize("command", [["encode"], ["decode"], ["flip", "-H"], ["roundtrip"]])
def test_a_missing_list_is_a_missing_input(auravae, work, command):
    result = auravae(*command, "--files-from", "none")
    assert (result.code, result.out) == (1, b"")
    assert "the list none cannot be read" in result.message


def test_colliding_results_fail_alone(auravae, work, picture, tree):
    for name in ("a.jpg", "a.png", "b.png"):
        picture(f"in/{name}")
    for options, place in (([], "in"), (["-o", "out"], "out")):
        result = auravae("encode", "in", *options)
        assert result.code == 1
        for name in ("a.jpg", "a.png"):
            assert f"failed: in/{name}: {place}/a.safetensors would be" in result.err
        assert "b.safetensors" in tree(work / place)
        assert "a.safetensors" not in tree(work / place)


def test_colliding_inputs_alone_are_exit_1(auravae, work, picture):
    picture("a.jpg")
    picture("a.png")
    assert auravae("encode", "a.jpg", "a.png").code == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_finished_work_is_skipped(auravae, pair, tree, suffix):
    commands = [
        ["encode", "a.png"],
        ["decode", "a.safetensors", "--format", suffix],
        ["decode", "a.safetensors", "--format", suffix, "-o", "named"],
        ["flip", "a.safetensors", "-H"],
    ]
    for command in commands:
        auravae(*command)
    before = tree(pair)
    for command in commands:
        again = auravae(*command, "--json")
        assert (again.code, again.row["status"]) == (0, "skipped")
        assert "up to date" in auravae(*command).text
    assert tree(pair) == before


def test_skipping_looks_at_content_not_names(auravae, pair):
    os.utime("a.png", (1, 1))
    Path("b.png").write_bytes(Path("a.png").read_bytes())
    result = auravae("encode", "b.png", "-o", "a.safetensors", "--json")
    assert result.row["status"] == "skipped"


CHANGES = {
    "source": (["encode", "a.png"], []),
    "store": (["encode", "a.png"], ["--latent-dtype", "float32"]),
    "pad": (["encode", "a.png"], ["--pad", "reflect"]),
    "crop": (["encode", "a.png"], ["--crop", "0,0,16,16"]),
    "background": (["encode", "a.png"], ["--background", "black"]),
    "noise": (["decode", "a.safetensors"], ["--noise", "0.5"]),
    "bits": (["decode", "a.safetensors"], ["--bits", "16"]),
    "quality": (["decode", "a.safetensors", "-o", "a.jpg"], ["--quality", "50"]),
    "latent": (["decode", "a.safetensors"], []),
    "flip": (["flip", "a.safetensors", "-H", "-o", "f.safetensors"], ["-V"]),
    "flipped source": (["flip", "a.safetensors", "-H"], []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_other_results_are_kept_unless_overwritten(auravae, pair, picture, tree, change):
    command, options = CHANGES[change]
    done = auravae(*command, "--json").row
    if change == "source":
        picture("a.png", shift=90)
    elif not options:
        picture("other.png", shift=90)
        auravae("encode", "other.png", "-o", "a.safetensors", "--overwrite")
    before = tree(pair)
    refused = auravae(*command, *options)
    assert refused.code == 1
    assert done["output"] in refused.err and "--overwrite" in refused.err
    assert tree(pair) == before
    replaced = auravae(*command, *options, "--overwrite", "--json")
    assert (replaced.code, replaced.row["status"]) == (0, "done")
    assert Path(done["output"]).read_bytes() != before[done["output"]]
    again = auravae(*command, *options, "--json")
    assert (again.code, again.row["status"]) == (0, "skipped")


@pytest.mark.parametrize("command", [["encode", "a.png"], ["decode", "a.safetensors"]])
def test_somebody_elses_file_is_kept(auravae, pair, command):
    output = Path("mine").with_suffix(".safetensors" if command[0] == "encode" else ".png")
    output.write_text("my notes")
    assert auravae(*command, "-o", output).code == 1
    assert output.read_text() == "my notes"


def test_a_picture_named_like_a_latent_is_not_overwritten(auravae, work, picture):
    data = picture("a.png").read_bytes()
    Path("odd.safetensors").write_bytes(data)
    for options in ([], ["--overwrite"]):
        assert auravae("encode", "odd.safetensors", *options).code == 1
        assert Path("odd.safetensors").read_bytes() == data


def test_files_follow_the_umask(auravae, pair):
    mask = os.umask(0)
    os.umask(mask)
    auravae("decode", "a.safetensors")
    for name in ("a.safetensors", "a.decoded.png"):
        assert Path(name).stat().st_mode & 0o777 == 0o666 & ~mask


@pytest.mark.parametrize("locked", ["in/locked", "in"])
def test_a_folder_that_may_not_be_listed_is_a_failure(auravae, work, picture, monkeypatch, locked):
    picture("in/a.png")
    picture("in/locked/b.png")
    genuine = os.scandir

    def refuse(folder):
        if str(folder) == locked:
            raise PermissionError(13, "Permission denied")
        return genuine(folder)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    result = auravae("encode", "in", "-o", "out", "--json")
    assert result.code == 1
    assert result.rows[-1]["source"] == locked
    assert result.rows[-1]["status"] == "failed"
    assert Path("out/a.safetensors").exists() == (locked != "in")


def test_links_to_folders_are_followed_but_not_in_circles(auravae, work, picture):
    picture("in/a.png")
    picture("elsewhere/b.png")
    Path("in/more").symlink_to(Path("elsewhere").resolve())
    Path("in/up").symlink_to(Path("in").resolve())
    Path("elsewhere/round").symlink_to(Path("elsewhere").resolve())
    assert auravae("encode", "in", "-o", "out").code == 0
    found = {path.relative_to("out").as_posix() for path in Path("out").rglob("*.safetensors")}
    assert found == {"a.safetensors", "more/b.safetensors"}
