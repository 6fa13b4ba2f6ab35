"""Names, lists and text files as they come from shells, editors and other systems."""

from __future__ import annotations

import os
import subprocess
import unicodedata
from pathlib import Path

import pytest

from auravae_cli.errors import UsageError
from auravae_cli.operations.encode import encode_files
from tests.cli.datasets import picture, rows, write_folder, write_tar

STORE = ["-o", "store", "--layout", "shards"]


@pytest.fixture
def captions(auravae, work):
    """Encode into a store; the captions by key."""

    def make(*arguments):
        result = auravae("encode", *arguments, *STORE)
        assert result.code == 0, result.err
        found = rows(Path("store")).items()
        return {key: row.records[0].annotations.get("caption") for key, row in found}

    return make


@pytest.mark.parametrize(
    "command",
    ["encode  ", "encode x.png -o ", "decode  ", "verify  ", "info  ", "flip  -H", "encode --files-from ",
     "roundtrip  ", "import x --from npz -o ", "eval  ", "train r.toml -o "],
)  # fmt: skip
def test_an_empty_name_is_never_the_current_folder(auravae, work, command):
    (work / "x.png").write_bytes(picture(1))
    before = sorted(work.iterdir())
    result = auravae(*command.split(" "))
    assert (
        result.code == 2
        and "an empty name: is a variable in the command not set?" in result.message
    )
    assert sorted(work.iterdir()) == before


def test_an_empty_name_in_python(work):
    (work / "x.png").write_bytes(picture(1))
    for names, output in (("", None), (["x.png", ""], None), ("x.png", "")):
        with pytest.raises(UsageError, match="an empty name"):
            encode_files(names, output, model="linear")


def test_file_urls_are_paths_everywhere(auravae, work, captions):
    write_folder(work / "p q", {"a%20b.png": picture(1), "c.png": picture(2)})
    root = work.as_uri()
    assert auravae("encode", f"{root}/p%20q/c.png", "-o", f"{root}/x/c.safetensors").code == 0
    assert auravae("encode", f"file://localhost{work}/p%20q", "-o", f"{root}/x").code == 0
    assert sorted(path.name for path in Path("x").iterdir()) == [
        "a%20b.safetensors",
        "c.safetensors",
    ]
    assert auravae("decode", f"{root}/x/c.safetensors", "-o", f"{root}/y.png").code == 0
    (work / "list").write_text(f"{root}/p%20q/c.png\n{root}/p q/a%20b.png\n")  # the latter by hand
    assert captions("--files-from", f"{root}/list") == {"a%20b": None, "c": None}
    assert auravae("verify", f"{root}/store").code == 0
    assert auravae("decode", f"{root}/store", "-o", f"{root}/z").code == 0
    assert not [path for path in work.iterdir() if "file:" in path.name]


def test_a_slash_at_the_end_means_a_folder(auravae, work):
    (work / "a.png").write_bytes(picture(1))
    assert auravae("encode", "a.png", "-o", "out.safetensors/").code == 0
    assert Path("out.safetensors/a.safetensors").is_file()
    for output in ("a.png/", "a.png"):  # a file that no latent replaces is no folder either
        result = auravae("encode", "a.png", "-o", output)
        assert result.code == 2 and "expected a folder, and a file is there" in result.message


def test_lists_of_other_systems(auravae, work, captions):
    write_folder(
        work / "p", {"a.png": picture(1), "b\u2028c.png": picture(2), "d[1]{2,3}.png": picture(3)}
    )
    text = "p/a.png\r\n\r\np/b\u2028c.png\np/d[1]{2,3}.png"
    (work / "list").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert sorted(captions("--files-from", "list")) == ["a", "b\u2028c", "d[1]{2,3}"]
    assert auravae("encode", "--files-from", "-", "-o", "x", stdin=text.encode()).code == 0
    (work / "list").write_bytes(text.encode("utf-16"))
    result = auravae("encode", "--files-from", "list", "-o", "y")
    assert result.code and "it is UTF-16: save it as UTF-8" in result.message


def test_a_pattern_below_a_folder_with_brackets(auravae, work, captions):
    write_folder(work / "d[1]", {"a.png": picture(1), "e[2]/b.png": picture(2)})
    assert sorted(captions("d[1]/*.png", "d[1]/e[2]/*.png")) == ["d[1]/a", "e[2]/b"]
    assert auravae("encode", "d[1]/*.png", "-o", "x").code == 0


@pytest.mark.parametrize("form", ["folder", "tar", "files", "pattern"])
def test_captions_of_any_case_and_normal_form(work, captions, form):
    composed, decomposed = (unicodedata.normalize(kind, "\u00e9") for kind in ("NFC", "NFD"))
    files = {
        **{f"{composed}.png": picture(1), f"{decomposed}.TXT": b"\xef\xbb\xbfone"},
        **{"b.JPG": picture(2), "b.tXt": b"two"},
    }
    if form == "tar":
        names = [write_tar(work / "p.tar", files)]
    else:
        write_folder(work / "p", files)
        loose = [work / "p" / name for name in files if name[-3:].lower() in ("png", "jpg")]
        names = {"folder": ["p"], "files": loose, "pattern": ["p/*"]}[form]
    assert captions(*names) == {composed: "one", "b": "two"}


def test_a_label_with_a_byte_order_mark(work, captions):
    write_folder(
        work / "p",
        {"a.png": picture(1), "a.cls": b"\xef\xbb\xbf7", "a.json": b'\xef\xbb\xbf{"x": 1}'},
    )
    captions("p")
    annotations = rows(Path("store"))["a"].records[0].annotations
    assert annotations == {"label": 7, "metadata": {"x": 1}}


def test_closed_streams(program, work):
    command, environment = program
    (work / "a.png").write_bytes(picture(1))
    line = " ".join(command)
    script = f"""{line} encode a.png -o x <&- >&- 2>&-; echo $?
{line} encode - -o y.safetensors <&- ; echo $?
{line} encode a.png -o - >&- ; echo $?
"""
    environment = environment | {"AURAVAE_MODEL": "linear"}
    result = subprocess.run(
        script, shell=True, capture_output=True, text=True, cwd=work, env=environment, check=False
    )
    assert result.stdout.split() == ["0", "1", "1"], result.stderr
    assert "Traceback" not in result.stderr
    assert "cannot be read: Bad file descriptor" in result.stderr
    assert "cannot write to standard output: it is closed" in result.stderr
    assert os.listdir("x") == ["a.safetensors"]  # noqa: PTH208
