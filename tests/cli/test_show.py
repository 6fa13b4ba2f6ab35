"""show: pictures, latents, shards and stores in a terminal, in a pipe, and as files."""

from __future__ import annotations

import os
import select
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auravae_cli.latents.latent_file import read_latents, stack


@pytest.fixture
def latent(auravae, work, samples):
    """A latent of an odd size."""
    auravae("encode", samples / "coffee.jpg", "-o", "z.safetensors", "-q")
    return Path("z.safetensors")


def pixels_of(name):
    with Image.open(name) as image:
        return np.asarray(image)


def test_a_pipe_gets_plain_text(auravae, latent):
    result = auravae("show", latent, "--width", "40")
    assert result.code == 0
    lines = result.text.splitlines()
    assert len(lines) == 13 and max(map(len, lines)) == 40
    assert set(result.text) <= set(" .:-=+*#%@\n")
    assert result.err == "preview of a latent of linear, 16 x 34 x 50\n"
    quiet = auravae("show", latent, "--width", "40", "-q")
    assert (quiet.out, quiet.err) == (result.out, "")


def test_a_picture_and_the_preview_of_its_latent_are_alike(auravae, latent, samples):
    shown = [
        auravae("show", name, "--width", "50").text for name in (samples / "coffee.jpg", latent)
    ]
    places = [[" .:-=+*#%@".index(c) for c in text.replace("\n", "")[:300]] for text in shown]
    assert np.abs(np.subtract(*places)).mean() < 0.6


@pytest.mark.parametrize("protocol", ["kitty", "sixel", "blocks", "blocks256"])
@pytest.mark.parametrize("channels", [[], ["--channels"]])
def test_protocols_can_be_forced(auravae, latent, protocol, channels):
    result = auravae("show", latent, "--protocol", protocol, "--width", "30", *channels)
    start = {"kitty": "\x1b_G", "sixel": "\x1bP", "blocks": "\x1b[38;2;", "blocks256": "\x1b[38;5;"}
    assert result.code == 0
    assert start[protocol] in result.text
    assert result.text.startswith("\x1b") or channels


def test_channels_with_their_parity(auravae, latent):
    result = auravae("show", latent, "--channels", "--width", "80")
    for caption in ("0 ee", "11 ee", "12 oe", "13 oe", "14 eo", "15 eo"):
        assert caption in result.text
    assert "dark to bright: -" in result.err


def test_files(auravae, latent):
    assert auravae("show", latent, "-o", "preview.png").code == 0
    preview = pixels_of("preview.png")
    assert preview.shape == (267, 399, 3)
    auravae("flip", latent, "-H", "-o", "h.safetensors")
    auravae("show", "h.safetensors", "-o", "h.png")
    assert np.array_equal(pixels_of("h.png"), preview[:, ::-1])
    again = auravae("show", latent, "-o", "preview.png")
    assert again.code == 1 and "--overwrite" in again.err
    assert auravae("show", latent, "-o", "preview.png", "--overwrite").code == 0
    assert auravae("show", latent, "--channels", "-o", "maps.webp").code == 0
    assert pixels_of("maps.webp").shape[1] > 1600
    piped = auravae("show", "-", "-o", "-", stdin=latent.read_bytes())
    assert piped.out.startswith(b"\x89PNG") and piped.err == ""
    assert auravae("show", latent, "-o", "-", terminals="stdout").code == 2
    assert auravae("show", latent, "-o", "x.bmp").code == 1


def test_rows_of_a_shard(auravae, latent, samples):
    auravae("flip", latent, "-V", "-o", "y.safetensors")
    shard = stack([read_latents(latent), read_latents(Path("y.safetensors"))])
    Path("shard.safetensors").write_bytes(shard.to_bytes())
    for number, name in enumerate((latent, "y.safetensors")):
        row = auravae("show", "shard.safetensors", "--index", number)
        assert row.out == auravae("show", name).out
    assert "--index 0 to 1" in auravae("show", "shard.safetensors").err
    assert "rows 0 to 1" in auravae("show", "shard.safetensors", "--index", "2").err
    assert "have no keys" in auravae("show", "shard.safetensors", "--key", "a").err


def test_rows_of_a_store(auravae, make_store):
    store = make_store()
    result = auravae("show", store, "--key", "sub/d/2x2/1", "--width", "16")
    assert result.code == 0
    assert "no preview is known for the weights of 'toy': principal components" in result.err
    for index in (0, 14):
        assert auravae("show", store, "--index", index).code == 0
    shard = next(store.glob("a.2x3.safetensors"))
    by_key = auravae("show", shard, "--key", "a/2x3/2", "--channels")
    assert by_key.out == auravae("show", store, "--index", "2", "--channels").out
    assert "store of 15 latents" in auravae("show", store).err
    assert "no row 15" in auravae("show", store, "--index", "15").err
    missing = auravae("show", store, "--key", "none")
    assert missing.code == 1 and "'a/2x3/0'" in missing.err


@pytest.mark.parametrize("options", [["--index", "0"], ["--key", "a"], ["--channels"]])
def test_options_of_latents_for_a_picture(auravae, samples, options):
    result = auravae("show", samples / "coffee.jpg", *options)
    assert result.code == 1 and result.out == b""
    assert "failed: " in result.err


def test_what_is_no_picture(auravae, work, latent):
    Path("text.txt").write_text("no picture at all")
    Path("empty").touch()
    Path("cut.safetensors").write_bytes(latent.read_bytes()[:5000])
    file = read_latents(latent)
    values = file.values.copy()
    values[3, 4, 5] = np.nan
    Path("nan.safetensors").write_bytes(
        type(file)(values, file.dtype, file.space, file.records, "").to_bytes()
    )
    for name in ("text.txt", "empty", "cut.safetensors", "nan.safetensors", "gone"):
        result = auravae("show", name)
        assert (result.code, result.out) == (1, b""), name
        assert result.err.startswith(f"failed: {name}: ") and result.err.count("\n") == 1


def test_several_files_make_a_grid(auravae, latent, samples):
    Path("photos/more").mkdir(parents=True)
    for number, sample in enumerate(("coffee.jpg", "hubble_16bit_rgb.png", "camera_grey.png")):
        shutil.copy(samples / sample, f"photos/{'more/' * (number > 0)}{sample}")
    result = auravae("show", latent, "gone", "photos", "--width", "84")
    assert (result.code, result.err) == (
        1,
        "failed: gone: cannot be read: No such file or directory\n4 files\n",
    )
    captions = [line for line in result.text.splitlines() if "coffee" in line]
    assert captions[0].split() == [
        "z.safetensors",
        "coffee.jpg",
        "more/camera_grey",
        "…e/hubble_16bit_rgb",
    ]
    assert auravae("show", "photos", "-o", "sheet.png").text == "3 files -> sheet.png\n"
    assert pixels_of("sheet.png").shape[1] > 3 * 400
    nothing = auravae("show", "photos/more", "--channels")
    assert nothing.code == 1 and nothing.out == b"" and nothing.err.count("a picture: ") == 2
    Path("empty").mkdir()
    assert auravae("show", "empty").code == 2


def test_of_very_many_files_the_first_are_shown(auravae, picture, work, monkeypatch):
    monkeypatch.setattr("auravae_cli.operations.views.MOST_SHOWN", 2)
    for number in range(5):
        picture(f"photos/{number}.png")
    result = auravae("show", "photos")
    assert result.err == "2 files\nnote: 3 more files are not shown: name them, or fewer\n"


def test_notices(auravae, samples, work):
    result = auravae("show", samples / "coffee_alpha.png", "--background", "black")
    assert "note: " in result.err and "alpha composited on black" in result.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a pseudo-terminal needs fork")
@pytest.mark.parametrize(
    ("answer", "start"),
    [(b"\x1b[?62;4;22c", b"\x1bP0;1;0q"), (b"\x1b[?62;22c", b"\x1b[38;5;"), (b"", b"\x1b[38;5;")],
    ids=["sixel", "no sixel", "silent"],
)
def test_the_terminal_is_asked(latent, program, answer, start):
    import fcntl
    import pty
    import struct
    import termios

    command, environment = program
    environment = {
        n: v
        for n, v in environment.items()
        if n
        not in (
            "COLORTERM",
            "TMUX",
            "STY",
            "NO_COLOR",
            "COLUMNS",
            "LINES",
            "KITTY_WINDOW_ID",
            "TERM_PROGRAM",
        )
    }
    pid, terminal = pty.fork()
    if pid == 0:
        environment["TERM"] = "xterm-256color"
        time.sleep(0.1)  # until the size is set
        os.execve(sys.executable, [*command, "show", str(latent)], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 400, 600))
    seen = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end was closed
            break
        if not part:
            break
        if b"\x1b[c" in part and answer:
            os.write(terminal, answer)
        seen += part
    os.close(terminal)
    assert os.waitpid(pid, 0)[1] == 0
    drawing = seen.partition(b"\x1b[c")[2]
    assert drawing.startswith(start)
    assert b"\x1b[?62" not in drawing, "the answer was echoed"
    if start != b"\x1bP0;1;0q":
        lines = drawing.decode().splitlines()
        assert len(lines) == 19 and max(line.count("▀") for line in lines) <= 60


def test_a_window_limits_the_drawing(auravae, latent, monkeypatch):
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((70, 12)))
    monkeypatch.setenv("TERM", "vt100")
    monkeypatch.setattr("auravae_cli.cli.terminal.detect.draws_sixels", lambda: False)
    result = auravae("show", latent, terminals="stdout")
    assert len(result.text.splitlines()) == 10
    wide = auravae("show", latent, "--width", "60", terminals="stdout")
    assert len(wide.text.splitlines()) == 20
