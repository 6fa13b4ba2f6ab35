"""Real processes: pipes, interrupts, full disks, and names that are no text."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from auravae_cli import read_latents


@pytest.fixture
def shell(work, program):
    """Run a line of bash in the current folder; ``$A`` is the program."""
    command, environment = program

    def run(line: str) -> subprocess.CompletedProcess[bytes]:
        script = f"set -o pipefail\nA={shlex.quote(shlex.join(command))}\n{line}"
        return subprocess.run(
            ["bash", "-c", script], env=environment, capture_output=True, check=False, timeout=60
        )

    return run


def wait_until(condition, process) -> None:
    """Poll until ``condition()``; fails where the process ends or half a minute passes before."""
    for _ in range(3000):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    pytest.fail("waited in vain")


def test_the_pipeline_of_the_readme(shell, auravae, samples, pixels):
    Path("a.jpg").write_bytes((samples / "coffee.jpg").read_bytes())
    line = "cat a.jpg | $A encode - | $A flip - --horizontal | $A decode - -o b.png"
    result = shell(line)
    assert result.returncode == 0, result.stderr
    assert auravae("encode", "a.jpg").code == 0
    assert auravae("decode", "a.safetensors").code == 0
    assert pixels("b.png").shape == (267, 399, 3)
    assert np.array_equal(pixels("b.png"), pixels("a.decoded.png")[:, ::-1])


def test_a_failure_runs_down_the_pipeline(shell):
    result = shell("cat missing.jpg | $A encode - | $A decode - -o b.png")
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert result.stderr.count(b"the file is empty") == 2
    assert not Path("b.png").exists()


def test_streams_carry_nothing_but_data(auravae, samples):
    data = (samples / "coffee_alpha.png").read_bytes()
    latent = auravae("encode", "-", stdin=data)
    assert latent.out[8:9] == b"{" and b"alpha composited" not in latent.out
    assert "alpha composited on white" in latent.err
    assert latent.err == "note: -: alpha composited on white\n"
    assert auravae("flip", "-", "-V", stdin=latent.out).out[8:9] == b"{"
    picture = auravae("decode", "-", "--json", stdin=latent.out)
    assert picture.out[:4] == b"\x89PNG" and picture.out[-8:-4] == b"IEND"
    assert '"status": "done"' in picture.err


def test_a_file_to_a_stream_and_a_stream_to_a_file(auravae, work, picture):
    data = picture("a.png").read_bytes()
    auravae("encode", "a.png")
    to_stream = auravae("encode", "a.png", "-o", "-").out
    assert to_stream == Path("a.safetensors").read_bytes()
    assert auravae("encode", "-", "-o", "s.safetensors", stdin=data).out == (
        b"- -> s.safetensors\n"
    )
    assert auravae("encode", "-", "-o", "folder", stdin=data).code == 0
    assert Path("folder/stdin.safetensors").read_bytes() == Path("s.safetensors").read_bytes()
    assert read_latents(Path("s.safetensors")).records[0].source is None


def test_a_stream_beside_files(auravae, work, picture):
    data = picture("a.png").read_bytes()
    result = auravae("encode", "a.png", "-", stdin=data)
    assert result.code == 0
    assert result.out[8:9] == b"{" and Path("a.safetensors").exists()


def test_a_named_pipe_is_read_once(shell, auravae, work, picture):
    picture("a.png")
    assert auravae("encode", "a.png").code == 0
    result = shell("$A decode <(cat a.safetensors) -o named.png && $A decode a.safetensors")
    assert result.returncode == 0, result.stderr
    assert Path("named.png").read_bytes() == Path("a.decoded.png").read_bytes()


def test_data_does_not_go_to_a_terminal(auravae, work, picture):
    data = picture("a.png").read_bytes()
    for arguments in (["encode", "-"], ["encode", "a.png", "-o", "-"]):
        result = auravae(*arguments, stdin=data, terminals="stdout stderr")
        assert result.code == 2
        assert "terminal" in result.message
        assert result.out == b""


@pytest.mark.parametrize("options", ["", "--crop 0,0,8,8"])  # more, and less, than a pipe holds
def test_a_reader_that_goes_away(shell, samples, options):
    photo = shlex.quote(str(samples / "astronaut.jpg"))
    result = shell(f"$A encode - {options} < {photo} | true; echo ${{PIPESTATUS[0]}}")
    assert result.stdout in (b"0\n", b"1\n")
    assert b"Traceback" not in result.stderr and b"Exception" not in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("options", ["", "--crop 0,0,8,8"])
@pytest.mark.parametrize("command", ["encode", "roundtrip"])
def test_a_full_disk_behind_standard_output(shell, samples, command, options):
    photo = shlex.quote(str(samples / "coffee.jpg"))
    result = shell(f"$A {command} - {options} < {photo} > /dev/full")
    assert result.returncode == 1
    assert result.stderr == (
        b"failed: -: cannot write to standard output: No space left on device\n"
    )


def test_names_that_are_no_text(shell, picture):
    picture("a.png").rename(os.fsdecode(b"caf\xe9.png"))
    result = shell(
        "export PYTHONIOENCODING=utf-8:strict\n"
        "$A encode caf*.png && $A info caf*.safetensors && $A decode caf*.safetensors"
    )
    assert result.returncode == 0, result.stderr
    assert Path(os.fsdecode(b"caf\xe9.decoded.png")).exists()
    assert b"caf\\udce9.png -> " in result.stdout


INTERRUPTED = "interrupted: finished work is kept; the same command continues from there\n"


def test_an_interrupt_while_waiting_for_input(interruptible, work, program, picture):
    command, environment = program
    picture("a.png")
    os.mkfifo("b.png")
    process = subprocess.Popen(
        [*command, "encode", "a.png", "b.png"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until(Path("a.safetensors").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.decode().endswith(INTERRUPTED)
    assert b"Traceback" not in err
    assert sorted(p.name for p in work.iterdir()) == ["a.png", "a.safetensors", "b.png"]


def test_an_interrupt_while_busy(interruptible, work, program, samples):
    command, environment = program
    Path("in").mkdir()
    for number in range(3000):
        Path(f"in/{number:04}.jpg").symlink_to(samples / "astronaut.jpg")
    process = subprocess.Popen(
        [*command, "encode", "in", "-o", "out", "--latent-dtype", "float32"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    wait_until(lambda: len(list(Path("out").glob("*.safetensors"))) > 5, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and err.decode().endswith(INTERRUPTED)
    assert b"Traceback" not in err
    written = sorted(Path("out").iterdir())
    assert 5 <= len(written) < 3000
    assert all(path.suffix == ".safetensors" and path.name[0] != "." for path in written)
    assert len({read_latents(path).values.tobytes() for path in written}) == 1


def test_the_installed_entry_point(repository, work, program):
    with (repository / "pyproject.toml").open("rb") as file:
        module, _, function = tomllib.load(file)["project"]["scripts"]["auravae"].partition(":")
    assert callable(getattr(import_module(module), function))
    code = f"""import sys; from {module} import {function} as main
sys.argv[:] = ["auravae", "--version"]
main()"""
    result = subprocess.run(
        [sys.executable, "-c", code], env=program[1], capture_output=True, check=True, timeout=60
    )
    from auravae_cli import __version__

    assert result.stdout.decode() == f"auravae {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["encode"], 2), (["models", "pull", "linear"], 3), (["info", "x"], 1)],
)
def test_exit_codes_of_a_real_process(work, program, arguments, code):
    command, environment = program
    result = subprocess.run(
        [*command, *arguments], env=environment, capture_output=True, check=False, timeout=60
    )
    assert result.returncode == code
    assert b"Traceback" not in result.stderr
