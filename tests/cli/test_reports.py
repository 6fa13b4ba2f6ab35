"""What is printed, and where: results on stdout, everything else on stderr."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from auravae_cli import load_codec
from auravae_cli.cli.reports import outcomes
from auravae_cli.cli.terminal import live
from auravae_cli.evaluation import session
from auravae_cli.evaluation.run import Evaluation
from auravae_cli.forecast.outlook import Outlook
from auravae_cli.operations.encode import FileEncoder
from auravae_cli.operations.local_runner import LocalRunner
from auravae_cli.operations.timed_batches import ENCODE_PARTS, Ahead

COMMANDS = [
    ["encode", "a.png", "bad.png", "b.png"],
    ["decode", "a.safetensors", "bad.safetensors"],
    ["flip", "-H", "a.safetensors", "bad.safetensors"],
    ["roundtrip", "a.png", "bad.png"],
]


@pytest.fixture
def inputs(auravae, work, picture):
    """Sound and bad pictures and latents."""
    picture("a.png")
    picture("b.png")
    auravae("encode", "a.png")
    Path("bad.png").write_text("no picture")
    Path("bad.safetensors").write_text("no latent")
    return work


@pytest.mark.parametrize("command", COMMANDS)
def test_json_has_one_line_an_input(auravae, inputs, command):
    result = auravae(*command, "--json")
    assert result.code == 1
    assert result.err == ""
    names = [argument for argument in command[1:] if argument != "-H"]
    assert [row["source"] for row in result.rows] == names
    for row in result.rows:
        assert set(row) == {"source", "status", "output", "reason", "notices", "details"}
        bad = row["source"].startswith("bad")
        assert (row["status"] == "failed") == bad == bool(row["reason"] and "not" in row["reason"])
        assert bad or Path(row["output"]).exists()


def test_json_of_collisions_notices_and_missing_files(auravae, work, picture, samples):
    for name in ("c.jpg", "c.png"):
        picture(name)
    photo = samples / "coffee_alpha.png"
    result = auravae("encode", "c.jpg", "c.png", "gone.png", photo, "-o", "out", "--json")
    assert result.code == 1
    rows = {row["source"]: row for row in result.rows}
    assert {name: row["status"] for name, row in rows.items()} == {
        "c.jpg": "failed",
        "c.png": "failed",
        "gone.png": "failed",
        str(photo): "done",
    }
    assert rows[str(photo)]["notices"] == ["alpha composited on white"]


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_prints_failures_only(auravae, inputs, command):
    result = auravae(*command, "--quiet")
    assert result.code == 1
    assert result.out == b""
    (line,) = result.err.splitlines()
    assert line.startswith("failed: bad")


@pytest.mark.parametrize("command", COMMANDS)
def test_quiet_success_is_silent(auravae, inputs, command):
    good = [argument for argument in command if not argument.startswith("bad")]
    result = auravae(*good, "-q")
    assert (result.code, result.out, result.err) == (0, b"", "")


def test_a_batch_ends_with_a_summary_on_stderr(auravae, inputs):
    result = auravae("encode", "a.png", "b.png", "bad.png")
    assert result.err.splitlines()[-1] == "1 done, 1 failed, 1 skipped"
    assert len(result.text.splitlines()) == 2


def untimed(output):
    """Its lines, without what differs from run to run: what was predicted of each, and measured."""
    timed = re.compile(rb'"(predicted|measured)": \{[^}]*\}')
    return [timed.sub(b"", line) for line in output.splitlines()]


@pytest.fixture
def at_once(monkeypatch):
    """Show progress from the first moment on, and let what is shown be seen."""
    genuine = FileEncoder.finish

    def finish(*arguments):
        time.sleep(0.1)
        return genuine(*arguments)

    monkeypatch.setattr(live, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(live, "_INTERVAL", 0.01)
    monkeypatch.setattr(FileEncoder, "finish", finish)


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_progress_on_a_terminal_leaves_stdout_alone(auravae, inputs, at_once, options):
    command = ["encode", "a.png", "b.png", "bad.png", *options, "--overwrite"]
    plain, watched = auravae(*command), auravae(*command, terminals="stderr")
    assert watched.code == 1
    assert untimed(watched.out) == untimed(plain.out) != []
    assert "\x1b[" in watched.err and "\x1b[" not in plain.err  # a bar was drawn and cleared
    if not options:
        assert "failed: bad.png" in watched.err and "2 done, 1 failed" in watched.err


def test_on_a_terminal_lines_stand_above_the_bar(auravae, inputs, at_once):
    result = auravae("encode", "a.png", "b.png", terminals="stdout stderr")
    assert result.code == 0
    assert "b.png -> b.safetensors" in result.text + result.err


def test_data_on_stdout_passes_the_bar_untouched(auravae, inputs, at_once):
    command = ["encode", "a.png", "-", "--overwrite"]
    data = Path("b.png").read_bytes()
    plain, watched = (
        auravae(*command, stdin=data),
        auravae(*command, stdin=data, terminals="stderr"),
    )
    assert watched.code == 0
    assert watched.out == plain.out
    assert watched.out[8:9] == b"{"


def test_one_input_is_watched_too(auravae, inputs, at_once):
    watched = auravae("encode", "a.png", "--overwrite", terminals="stderr")
    assert "encoding a.png" in watched.err


def test_nothing_moves_in_a_quiet_run(auravae, inputs, at_once):
    assert auravae("encode", "b.png", "--overwrite", "--quiet", terminals="stderr").err == ""


def test_of_a_long_run_the_time_is_said_first(auravae, inputs, monkeypatch):
    monkeypatch.setattr(outcomes, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(outcomes, "FEW_PIXELS", 1)
    monkeypatch.setattr(outcomes, "SMALLER_SIDE", 16)
    told = (
        "note: about .* s: 2 pictures, 0.0 megapixels, with linear on cpu; --resize 16 takes less\n"
    )
    for command in ("encode", "roundtrip"):
        said = auravae(command, "a.png", "b.png", "--overwrite").err
        assert re.match(told, said), said
    decoded = auravae("decode", "a.safetensors")
    assert re.fullmatch(
        r"note: about .* s: 1 picture, 0.0 megapixels, with linear on cpu\n", decoded.err
    )
    assert auravae("encode", "a.png", "b.png").err == "2 skipped\n"  # nothing is ahead
    store = ["encode", "a.png", "b.png", "-o", "store", "--layout", "shards"]
    assert re.match(told, auravae(*store).err)
    assert "note" not in auravae(*store).err
    measured = auravae("eval", "a.png", "b.png", "-m", "linear", "-m", "linear", "--lpips", "none")
    assert re.match(
        r"note: about .* s: 2 pictures, 0.0 megapixels, with linear on cpu; --quick or --resize 16 takes less\n",
        measured.err,
    )
    assert "note" not in auravae("encode", "a.png", "b.png", "--overwrite", "-q").err
    monkeypatch.setattr(outcomes, "SMALLER_SIDE", 1024)  # which would enlarge these
    assert "--resize" not in auravae("encode", "a.png", "b.png", "--overwrite").err


def test_who_shares_a_long_run_is_said_too(auravae, inputs, monkeypatch):
    monkeypatch.setattr(outcomes, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(outcomes, "FEW_PIXELS", 1)
    alone = Evaluation.run
    monkeypatch.setattr(session, "measure_by_processes", lambda e, survey, *_: alone(e, survey))
    monkeypatch.setattr(session, "measure_by_ray", lambda e, survey, *_: alone(e, survey))
    quick = ["eval", "a.png", "-m", "linear", "--quick", "--lpips", "none"]
    for options, said in (
        (["--processes", "3"], "3 processes\n"),
        (["--runner", "ray"], "a Ray cluster\n"),
        (["--runner", "ray", "--address", "a:1"], "a Ray cluster, which may be faster than this"),
    ):
        told = auravae(*quick, *options).err
        assert "note: about " in told and f"on cpu, shared by {said}" in told, told


def test_workers_of_ray_share_the_filling_of_a_store(auravae, inputs, monkeypatch):
    monkeypatch.setattr(outcomes, "LONG_SECONDS", 0.0)
    monkeypatch.setattr(outcomes, "FEW_PIXELS", 1)
    monkeypatch.setattr(LocalRunner, "workers", "4 workers of Ray")
    told = auravae("encode", "a.png", "-o", "store", "--layout", "shards").err
    assert "with linear on cpu, shared by 4 workers of Ray\n" in told


def test_half_the_share_is_half_the_time(monkeypatch):
    monkeypatch.setattr(outcomes, "FEW_PIXELS", 1)
    monkeypatch.setattr(outcomes, "LONG_SECONDS", 0.0)
    monkeypatch.setattr("auravae_cli.forecast.outlook.outlook", lambda _: Outlook(240.0, 1))
    codec = load_codec("linear")
    ahead = Ahead("encode", ENCODE_PARTS, codec, ((64, 64),), 9, "4 workers of Ray", 0.5)
    assert outcomes.predict_time([ahead], live.Live(), "") == 120.0


@pytest.mark.parametrize(
    "arguments", [["encode", "--nonsense"], ["nonsense"], ["decode", "--bits", "many", "x"]]
)
def test_unknown_arguments_are_wrong_usage(auravae, work, arguments):
    result = auravae(*arguments)
    assert result.code == 2
    assert result.out == b""
    assert "Usage" in result.message


def test_help_and_version(auravae, work):
    from auravae_cli import __version__

    assert auravae("--version").text == f"auravae {__version__}\n"
    for command in (["encode"], ["decode"], ["flip"], ["roundtrip"], ["info"], ["models"], []):
        for option in ("--help", "-h"):
            result = auravae(*command, option)
            assert (result.code, result.err) == (0, "")
            assert "Usage: " in result.text and " ".join(["auravae", *command]) in result.text
