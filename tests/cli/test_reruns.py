"""A second run over a folder that holds results already."""

from __future__ import annotations

import os
import threading
from pathlib import Path


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
