"""Tars whose members stand in an odd order, through the command: nothing is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.datasets import picture, rows, write_tar


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_captions_behind_the_pictures_are_kept(work: Path, auravae) -> None:
    members = [(f"{n}.png", picture(n)) for n in range(3)]
    members += [(f"{n}.txt", f"caption {n}".encode()) for n in range(3)]
    write_tar(work / "a.tar", members)
    result = auravae("encode", "a.tar", "-o", "store", "-m", "linear")
    assert result.code == 0
    found = {key: latent.records[0].annotations for key, latent in rows(work / "store").items()}
    assert found == {str(n): {"caption": f"caption {n}"} for n in range(3)}
    assert auravae("verify", "store").code == 0


def test_a_sample_that_stands_twice_is_named(work: Path, auravae) -> None:
    once = [("0.png", picture(0)), ("0.txt", b"red")]
    write_tar(work / "a.tar", [*once, ("0.png", picture(1)), ("0.txt", b"blue")])
    result = auravae("encode", "a.tar", "-o", "store", "-m", "linear")
    assert result.code == 1
    assert "failed: 0.png: occurs twice" in result.err


def test_what_is_passed_over_is_counted(work: Path, auravae) -> None:
    members = [("0.jpg", picture(0)), ("0.depth.png", picture(1)), ("1.png", picture(2))]
    members += [("__meta__/2.png", picture(3)), ("more.tar", b""), ("x.psd", b""), ("y.psd", b"")]
    write_tar(work / "a.tar", members)
    result = auravae("encode", "a.tar", "-o", "store", "-m", "linear")
    assert result.code == 0
    assert set(rows(work / "store")) == {"0", "1"}
    assert "note: a: passed over: 2 .psd, 1 .depth.png, 1 .tar\n" in result.err


@pytest.mark.parametrize("layout", ["files", "shards"])
def test_what_a_folder_has_besides_is_counted(work: Path, auravae, layout: str) -> None:
    folder = work / "p"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(0))
    for name in ("b.psd", "c.PSD", "d.svg", "e.tar.xz", "f.txt", "g.safetensors.md"):
        (folder / name).write_bytes(b"")
    if layout == "files":
        write_tar(folder / "more.tar", [("a.png", picture(1))])
    result = auravae("encode", "p", "-o", "out", "-m", "linear", "--layout", layout)
    assert result.code == 0
    tars = "1 .svg, 1 .tar, 1 .tar.xz" if layout == "files" else "1 .svg, 1 .tar.xz"
    assert f"note: passed over: 2 .psd, {tars}\n" in result.err
