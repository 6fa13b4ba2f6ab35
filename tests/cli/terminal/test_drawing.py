"""What terminals are sent, read back by small decoders of our own."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from auravae_cli.cli.terminal.detect import best_protocol
from auravae_cli.cli.terminal.drawing import (
    characters,
    grid,
    half_blocks,
    kitty,
    shades,
    sixel,
)
from auravae_cli.cli.terminal.protocol import Protocol


@pytest.fixture
def pixels():
    image = np.zeros((24, 32, 3), np.uint8)
    image[:12, :16], image[12:, 16:] = (250, 20, 40), (10, 90, 240)
    image[3, 5] = (255, 255, 255)
    return image


def read_blocks(lines):
    """The pixels that 24-bit half blocks stand for."""
    rows = []
    for line in lines:
        pairs = re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m(▀+)", line)
        upper = [tuple(map(int, p[:3])) for p in pairs for _ in p[6]]
        lower = [tuple(map(int, p[3:6])) for p in pairs for _ in p[6]]
        rows += [upper, lower]
    return np.array(rows)


def read_sixels(text):
    """The pixels of a sixel image, by the definition of the VT340's manual."""
    size = re.match(r'\x1bP0;1;0q"1;1;(\d+);(\d+)', text)
    width, height = int(size[1]), int(size[2])
    palette = {
        int(n): [int(r), int(g), int(b)]
        for n, r, g, b in re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)", text)
    }
    body = re.sub(r"#\d+;2;\d+;\d+;\d+", "", text[size.end() :].removesuffix("\x1b\\"))
    image, x, y, colour = np.full((height + 5, width, 3), -1.0), 0, 0, 0
    for number, control, repeat, sign in re.findall(r"#(\d+)|([$-])|(?:!(\d+))?([?-~])", body):
        if number:
            colour = int(number)
        elif control:
            x, y = 0, y + 6 * (control == "-")
        else:
            run = slice(x, x + int(repeat or 1))
            for bit in range(6):
                if (ord(sign) - 63) >> bit & 1:
                    image[y + bit, run] = np.array(palette[colour]) * 2.55
            x = run.stop
    return image[:height]


def test_half_blocks_hold_every_pixel(pixels):
    lines = half_blocks(pixels, only_256=False)
    assert np.array_equal(read_blocks(lines), pixels)
    assert all(line.endswith("\x1b[0m") for line in lines)
    assert len(lines[4]) < 100  # equal neighbours share a colour code


def test_256_colours_are_near(pixels):
    (line,) = half_blocks(np.array([[[255, 0, 0]], [[120, 121, 119]]], np.uint8), only_256=True)
    assert line.startswith("\x1b[38;5;196;48;5;243m")


def test_shades():
    row = np.array([[[0] * 3, [128] * 3, [255] * 3]], np.uint8)
    assert shades(row) == [" +@"]


def test_sixels(pixels):
    assert np.abs(read_sixels(sixel(pixels)) - pixels).max() < 3


def test_kitty(pixels):
    noise = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    for image in (pixels, noise):
        chunks = re.findall(r"\x1b_G(.*?);(.*?)\x1b\\", kitty(image, 10, 5))
        assert chunks[0][0].startswith("a=T,f=100,c=10,r=5,q=2,m=")
        assert all(len(data) <= 4096 for _, data in chunks)
        assert [keys[-3:] for keys, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
        png = base64.b64decode("".join(data for _, data in chunks))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), image)


def test_proportions(pixels):
    for protocol in (Protocol.ascii, Protocol.blocks, Protocol.blocks256):
        assert len(characters(pixels, 16, protocol)) == 6
        assert len(characters(pixels[:1], 4, protocol)) == 1
    lines = characters(pixels, 64, Protocol.blocks)  # enlarged: no new colours
    assert len(np.unique(read_blocks(lines).reshape(-1, 3), axis=0)) == 4


def test_a_grid_in_a_pipe(pixels):
    cells = [(f"{number} ee", pixels) for number in range(6)]
    lines = grid(cells, 38, None, Protocol.ascii)
    assert lines[0].split() == ["0", "ee", "1", "ee", "2", "ee", "3", "ee"]
    assert max(map(len, lines)) <= 38
    assert sum("ee" in line for line in lines) == 2


@pytest.mark.parametrize("number", [1, 2, 3, 5, 16, 25])
@pytest.mark.parametrize("shape", [(60, 90, 3), (90, 60, 3), (20, 90, 3)])
def test_a_grid_fits_its_window(number, shape):
    cells = [("a/long name.png", np.full(shape, 99, np.uint8))] * number
    lines = grid(cells, 80, 22, Protocol.ascii)
    assert len(lines) <= 22 and max(map(len, lines)) <= 80
    assert sum("name" in line for line in lines) >= 1
    assert sum(line.count("-") for line in lines) > 200  # it uses the room


def test_pictures_of_different_shapes_share_a_row():
    cells = [("wide", np.zeros((20, 60, 3), np.uint8)), ("high\n", np.zeros((60, 20, 3), np.uint8))]
    lines = grid(cells, 60, 22, Protocol.blocks)
    assert lines[0].split() == ["wide", "high\\n"]
    assert lines[-1].startswith("  ") and len(lines) <= 22


def test_25_photographs_of_two_shapes_are_seen_in_a_window_of_80_by_24():
    shapes = [(321, 481, 3)] * 17 + [(481, 321, 3)] * 8
    cells = [(f"{100_000 + n}.jpg", np.full(s, 99, np.uint8)) for n, s in enumerate(shapes)]
    lines = grid(cells, 80, 22, Protocol.ascii)
    assert lines[0].split() == [f"{100_000 + n}" for n in range(7)]  # no name is cut
    assert len(lines) <= 22 and sum(line.count("-") for line in lines) > 550


def test_too_many_for_a_window_scroll():
    lines = grid([("x", np.zeros((60, 60, 3), np.uint8))] * 60, 40, 10, Protocol.ascii)
    assert len(lines) > 10 and max(map(len, lines)) <= 40


YES, NO = lambda: True, lambda: False


@pytest.mark.parametrize(
    ("environment", "ask", "expected"),
    [
        ({"TERM": "xterm-kitty"}, NO, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, NO, "kitty"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/x"}, NO, "ascii"),
        ({"TERM": "tmux-256color", "TMUX": "/tmp/x", "KITTY_WINDOW_ID": "1"}, NO, "blocks256"),
        ({"TERM": "xterm-256color"}, YES, "sixel"),
        ({"TERM": "xterm-256color", "COLORTERM": "truecolor"}, NO, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, NO, "blocks256"),
        ({"WT_SESSION": "x"}, NO, "blocks"),
        ({"TERM": "vt100"}, NO, "ascii"),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, YES, "ascii"),
        ({"TERM": "xterm-256color", "NO_COLOR": ""}, NO, "blocks256"),
        ({"TERM": "dumb", "COLORTERM": "truecolor"}, YES, "ascii"),
        ({}, NO, "ascii"),
    ],
)
def test_what_a_terminal_is_known_for(environment, ask, expected):
    assert best_protocol(environment, True, "utf-8", ask) == expected
    assert best_protocol(environment, False, "utf-8", ask) == "ascii"


def test_no_blocks_where_they_cannot_be_written():
    environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    assert best_protocol(environment, True, "ascii", NO) == "ascii"
