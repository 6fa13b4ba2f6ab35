"""A second run over a folder that holds results already."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest


def test_results_in_a_folder_are_no_inputs(auravae, work, picture, tree):
    picture("a.png")
    commands = [
        ("encode", "."),
        ("decode", "."),
        ("roundtrip", ".", "--flip", "h"),
        ("flip", ".", "-H"),
    ]
    for command in commands:
        assert auravae(*command).code == 0
    once = set(tree(work))
    for command in commands[:1] + commands[2:]:
        assert auravae(*command).code == 0
    assert set(tree(work)) == once


@pytest.mark.parametrize("command", ["files", "shards", "eval"])
def test_every_command_takes_the_pictures_alone(auravae, work, picture, tree, command):
    picture("p/a.png", 32, 32, 1)
    picture("p/sub/b.png", 32, 32, 2)
    for made in (("roundtrip", "p", "--flip", "h"), ("encode", "p"), ("decode", "p")):
        assert auravae(*made).code == 0
    taken = {
        "files": ("encode", "p", "-o", "out", "--json"),
        "shards": ("encode", "p", "-o", "out", "--layout", "shards", "--json"),
        "eval": ("eval", "p", "-m", "linear", "-o", "out", "--lpips", "none", "--json"),
    }
    result = auravae(*taken[command])
    assert result.code == 0
    if command == "files":
        assert sorted(row["source"] for row in result.rows) == ["p/a.png", "p/sub/b.png"]
    elif command == "shards":
        assert sum(row["rows"] for row in result.rows if "rows" in row) == 2
    else:
        assert [row["kind"] for row in result.rows].count("picture") == 2


def test_a_name_like_a_result_is_a_picture_where_nothing_made_it(auravae, work, picture):
    for name in ("hero.sheet", "photo.decoded", "v2.roundtrip", "plain"):
        picture(f"p/{name}.png")
    assert len(auravae("encode", "p", "-o", "out", "--json").rows) == 4
    rows = auravae("encode", "p", "-o", "store", "--layout", "shards", "--json").rows
    assert sum(row.get("rows") or 0 for row in rows) == 4


def test_braces_that_the_shell_left_alone(auravae, work, picture):
    for name in ("a1", "a2", "a3", "{a1,a2}"):
        picture(f"{name}.png")
    rows = auravae("encode", "a{2..3}.png", "-o", "out", "--json").rows
    assert [row["source"] for row in rows] == ["a2.png", "a3.png"]
    rows = auravae("encode", "{a1,a2}.png", "-o", "out", "--json").rows
    assert [row["source"] for row in rows] == ["{a1,a2}.png"]


def test_a_result_that_is_named_is_an_input(auravae, work, picture):
    picture("a.decoded.png")
    assert auravae("encode", "a.decoded.png").code == 0
    assert Path("a.decoded.safetensors").exists()


def test_two_spellings_of_a_file_are_one_input(auravae, work, picture):
    picture("a.png")
    result = auravae("encode", "a.png", work / "a.png", "./a.png", "-o", "out", "--json")
    assert result.code == 0
    assert result.row["status"] == "done"


def test_an_output_of_another_kind_is_a_usage_error(auravae, work, picture):
    picture("a.png")
    result = auravae("encode", "a.png", "-o", "x.png")
    assert result.code == 2
    assert ".safetensors" in result.message
    assert not Path("x.png").exists()


def test_quality_is_no_setting_of_a_png(auravae, latent):
    assert auravae("decode", latent).code == 0
    result = auravae("decode", latent, "--quality", "50", "--json")
    assert result.row["status"] == "skipped"


def test_a_pipe_by_name_is_read(auravae, latent):
    os.mkfifo("pipe")
    feeder = threading.Thread(target=lambda: Path("pipe").write_bytes(latent.read_bytes()))
    feeder.start()
    result = auravae("info", "pipe", "--json")
    feeder.join()
    assert result.row["model"] == "linear"


def test_a_full_disk_behind_info_is_one_line(program, latent):
    import subprocess

    command, environment = program
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended = subprocess.run(
            [*command, "info", str(latent)],
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment,
        )
    assert ended.returncode == 1
    assert ended.stderr.decode().count("\n") == 1
