"""--dry-run: what commands say that they would do, and that they do it then."""

from __future__ import annotations

import json
import re
import tarfile

import pytest
from PIL import Image

from auravae_cli.model.cpu import native

SMALL = ("-m", "small", "--device", "cpu")


@pytest.fixture
def no_probe(monkeypatch):
    """Speeds are not measured: tests of sizes and memory need none."""
    from auravae_cli.forecast import calibrate

    monkeypatch.setattr(calibrate, "calibrate", lambda *arguments: None)


def test_nothing_is_written_and_sizes_are_those_of_the_run(work, auravae, picture, tree, no_probe):
    picture("a.png", 21, 30), picture("sub/b.png", 64, 40)
    before = tree(work)
    predicted = auravae("encode", ".", "-o", "out", "--dry-run", "--json")
    assert predicted.code == 0 and tree(work) == before
    done = auravae("encode", ".", "-o", "out", "--json")
    for plan, result in zip(predicted.rows, done.rows, strict=True):
        assert (plan["source"], plan["output"]) == (result["source"], result["output"])
        assert (plan["status"], result["status"]) == ("planned", "done")
        cells = result["details"]["latent_shape"][1:]
        assert plan["details"]["padded_size"] == [8 * side for side in cells]
        assert plan["details"]["tiles"] == result["details"]["tiles"] == 1
        memory = result["details"]["predicted"]["memory"]
        assert plan["details"]["predicted"]["memory"] == memory
        assert result["details"]["measured"]["seconds"] > 0
    back = auravae("decode", "out", "-o", "back", "--dry-run", "--json")
    sizes = [row["details"]["padded_size"] for row in back.rows]
    assert sizes == [row["details"]["padded_size"] for row in predicted.rows]
    assert not (work / "back").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--resize", "16"),
        ("--crop", "3,2,17,9"),
        ("--center-crop", "11x9"),
        ("--buckets", "64:8"),
        ("--buckets-of", "ai-toolkit:64"),
        ("--crop", "3,2,17,9", "--resize", "40", "--center-crop", "24"),
    ],
    ids=" ".join,
)
def test_what_is_done_to_pictures_first_is_counted(work, auravae, picture, no_probe, options):
    picture("a.png", 21, 30)
    predicted = auravae("encode", "a.png", *options, "--dry-run", "--json").row
    done = auravae("encode", "a.png", *options, "--json").row
    cells = done["details"]["latent_shape"][1:]
    assert predicted["details"]["padded_size"] == [8 * side for side in cells]


def test_pictures_that_lie_on_their_side_are_turned(work, auravae, picture, no_probe):
    picture("a.png", 16, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open("a.png").save("b.png", exif=exif)
    assert auravae("encode", "b.png", "--dry-run", "--json").row["details"]["padded_size"] == [
        40,
        16,
    ]


def test_a_picture_that_does_not_fit_is_told_and_changes_the_exit_code(
    work, auravae, picture, no_probe
):
    picture("a.png", 256, 256), picture("b.png", 8, 8)
    result = auravae("encode", "a.png", "b.png", *SMALL, "--memory", "20M", "--dry-run", "--json")
    assert result.code == 1
    a, b = result.rows
    assert a["status"] == "failed" and "256 x 256 pixels take at least" in a["reason"]
    assert a["details"]["padded_size"] == [256, 256]
    assert b["status"] == "planned" and b["details"]["predicted"]["memory"] <= 20 << 20


def test_what_cannot_be_read_is_told(work, auravae, no_probe):
    (work / "a.png").write_bytes(b"no picture")
    (work / "z.safetensors").write_bytes(b"no latent")
    result = auravae("encode", "a.png", "missing.png", "--dry-run", "--json")
    assert result.code == 1
    reasons = [row["reason"] for row in result.rows]
    assert "not a picture" in reasons[0] and "No such file" in reasons[1]
    assert auravae("decode", "z.safetensors", "--dry-run").code == 1


def test_strips_and_their_number(work, auravae, picture, no_probe):
    picture("a.png", 96, 128)
    mebi = 32 if native.kernels() is None else 24
    command = ("roundtrip", "a.png", *SMALL, "--dry-run", "--json")
    whole = auravae(*command, "--memory", "4G").row["details"]
    strips = auravae(*command, "--memory", f"{mebi}M").row["details"]
    assert whole["tiles"] == 1 < strips["tiles"]
    assert strips["predicted"]["memory"] <= mebi << 20 < whole["predicted"]["memory"]


def test_outputs_that_exist_are_not_counted(work, auravae, picture, no_probe):
    picture("a.png"), picture("b.png")
    auravae("encode", "a.png")
    statuses = [row["status"] for row in auravae("encode", ".", "--dry-run", "--json").rows]
    assert statuses == ["skipped", "planned"]
    again = auravae("encode", ".", "--dry-run", "--json", "--overwrite")
    assert [row["status"] for row in again.rows] == ["planned", "planned"]


def test_a_stream_is_not_used_up(work, auravae, no_probe):
    result = auravae("encode", "-", "-o", "a.safetensors", "--dry-run", "--json", stdin=b"x")
    assert result.row["status"] == "unknown" and result.code == 0


def test_tars_and_stores(work, auravae, picture, no_probe):
    for name, height in (("a.png", 16), ("b.png", 24)):
        picture(name, height, 16)
    (work / "c.png").write_bytes(b"no picture")
    with tarfile.open("t.tar", "w") as archive:
        for name in ("a.png", "b.png", "c.png"):
            archive.add(name)
    result = auravae("encode", "t.tar", "-o", "store", "--dry-run", "--json")
    details = result.row["details"]
    assert (details["pictures"], details["unreadable"]) == (2, 1)
    assert details["padded_size"] == [24, 16] and result.code == 0
    (work / "cut.tar").write_bytes((work / "t.tar").read_bytes()[:700])
    assert auravae("encode", "cut.tar", "-o", "store", "--dry-run").code == 1
    assert not (work / "store").exists()


def test_the_speed_is_measured_once_and_then_known(work, auravae, picture, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture("a.png", 64, 96)
    for command in ("encode", "roundtrip"):
        first = auravae(command, "a.png", "--dry-run")
        assert "measuring how fast linear" in first.err
        second = auravae(command, "a.png", "--dry-run")
        assert "measuring" not in second.err
        assert re.search(r"96 x 64, whole, \d+ MiB, [\d.e-]+ s", second.text)
        assert "total: 1 picture" in second.text


def test_a_real_run_learns_and_says_what_was_predicted(
    work, auravae, picture, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    picture("a.png", 64, 96), picture("b.png", 64, 96)
    first, second = auravae("encode", "a.png", "b.png", "--json").rows
    assert first["details"]["predicted"]["seconds"] is None
    assert second["details"]["predicted"]["seconds"] > 0
    assert first["details"]["measured"]["seconds"] > 0
    z = auravae("decode", "a.safetensors", "--json").row["details"]
    assert set(z["measured"]) == set(z["predicted"]) == {"seconds", "memory"}


@pytest.mark.parametrize("command", ["encode", "decode", "roundtrip"])
def test_a_run_saves_the_speeds_of_all_its_batches_at_once(
    work, auravae, picture, tmp_path, monkeypatch, command
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sides = (16, 64, 256)  # each of another rate
    for side in sides:
        picture(f"{side}.png", side, side)
    if command == "decode":
        assert auravae("encode", ".", "-o", ".").code == 0
    saves = []
    monkeypatch.setattr(
        "auravae_cli.machine.speeds.write_private", lambda *file: saves.append(file)
    )
    assert auravae(command, ".", "-o", "out").code == 0
    ((path, content),) = saves
    assert path == tmp_path / "cache" / "auravae" / "speed.json"
    rates = [rates for key, rates in json.loads(content).items() if key.startswith(command)]
    assert [len(rates) for rates in rates] == [len(sides)]
