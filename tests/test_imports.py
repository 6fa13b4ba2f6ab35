"""What does not run a network imports no torch, nor a client of HTTP, and so answers at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from auravae_cli.model.cpu import native

REPOSITORY = Path(__file__).parents[1]
PHOTO = REPOSITORY / "samples" / "coffee_alpha.png"

RUN_PROGRAM = """
import sys
sys.argv[0] = "auravae"
from auravae_cli.cli.app import main
try:
    main()
except SystemExit as end:
    code = end.code or 0
"""
WATCHED = {
    "no terminal": "",
    "terminal": "import sys; sys.stdout.isatty = sys.stderr.isatty = lambda: True\n",
}
REPORT = """
heavy = {name.partition(".")[0] for name in sys.modules} & {"torch", "numpy", "rich", "PIL", "http"}
print("\\nended", code, *sorted(heavy), file=sys.__stderr__)  # on a line below what a bar left
"""


def modules_after(code: str, *arguments: object, cwd: Path) -> tuple[int, set[str], str]:
    """The exit code, the large packages that are imported in the end, and standard output."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    result = subprocess.run(
        [sys.executable, "-c", f"import sys; code = 0\n{code}{REPORT}", *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    ended, exit_code, *heavy = result.stderr.splitlines()[-1].split()
    assert ended == "ended"
    return int(exit_code), set(heavy), result.stdout


def test_the_package_imports_neither_torch_nor_numpy(tmp_path):
    assert modules_after("import auravae_cli\n", cwd=tmp_path)[1] == set()


def test_the_check_would_notice(tmp_path):
    assert modules_after("import torch\n", cwd=tmp_path)[1] >= {"torch"}
    assert modules_after("import auravae_cli.model.network.layers\n", cwd=tmp_path)[1] >= {"torch"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["encode", "--help"],
        ["decode", "--help"],
        ["flip", "--help"],
        ["roundtrip", "--help"],
        ["verify", "--help"],
        ["eval", "--help"],
        ["show", "--help"],
        ["doctor", "--help"],
        ["export", "--help"],
        ["import", "--help"],
        ["models", "list"],
        ["models", "list", "--json"],
    ],
    ids=" ".join,
)
def test_commands_without_files(tmp_path, arguments):
    code, heavy, out = modules_after(RUN_PROGRAM, *arguments, cwd=tmp_path)
    assert code == 0
    assert out
    assert "torch" not in heavy


@pytest.fixture(scope="module")
def latent(tmp_path_factory) -> Path:
    """A latent file."""
    path = tmp_path_factory.mktemp("latent") / "z.safetensors"
    code, heavy, _ = modules_after(
        RUN_PROGRAM, "encode", PHOTO, "-m", "linear", "-o", path, cwd=path.parent
    )
    assert code == 0
    assert "torch" not in heavy
    return path


@pytest.mark.parametrize("watched", WATCHED)
@pytest.mark.parametrize(
    "command",
    [
        ["info", "LATENT"],
        ["info", "LATENT", "--json"],
        ["flip", "LATENT", "LATENT2", "-H", "-o", "out"],
        ["decode", "LATENT", "LATENT2", "-o", "out"],
        ["encode", PHOTO, PHOTO.with_name("camera_grey.png"), "-m", "linear", "-o", "out"],
        ["roundtrip", PHOTO, "--flip", "all", "-m", "linear", "-o", "out.png"],
        ["show", "LATENT", "--width", "20"],
        ["show", PHOTO, "-o", "out.png"],
        ["show", "LATENT", "--channels", "-o", "out.png"],
        ["eval", PHOTO, "-m", "linear", "-o", "out"],
        ["eval", PHOTO, "-m", "linear", "--html", "out.html"],
        ["doctor", "-m", "linear"],
        ["encode", PHOTO, PHOTO.with_name("missing.png"), "-m", "linear", "-o", "out"],
    ],
    ids=lambda command: " ".join(str(part) for part in command if not isinstance(part, Path)),
)
def test_commands_on_files(tmp_path, latent, command, watched):
    other = tmp_path / "z2.safetensors"
    other.write_bytes(latent.read_bytes())
    names = {"LATENT": latent, "LATENT2": other}
    arguments = [names.get(part, part) for part in command]
    program = WATCHED[watched] + RUN_PROGRAM
    code, heavy, out = modules_after(program, *arguments, cwd=tmp_path)
    assert code == (PHOTO.with_name("missing.png") in command)
    assert "torch" not in heavy
    if watched != "terminal":
        assert out


def test_flip_and_info_do_not_need_pillow(tmp_path, latent):
    for arguments in (["flip", latent, "-H", "-o", "h.safetensors"], ["info", latent]):
        code, heavy, _ = modules_after(RUN_PROGRAM, *arguments, cwd=tmp_path)
        assert code == 0
        assert "PIL" not in heavy


@pytest.mark.parametrize("name", ["kohya", "comfyui", "lightningdit", "webdataset"])
def test_latents_are_exchanged_without_torch(tmp_path, make_store, name):
    """But for the file of statistics, which only torch writes."""
    export = ["export", make_store(), "--to", name, "-o", "out"]
    back = ["import", "out", "--from", name, "-o", "back"]
    for arguments in (export, back):
        code, heavy, _ = modules_after(RUN_PROGRAM, *arguments, cwd=tmp_path)
        assert code == 0
        assert ("torch" in heavy) == (arguments is export and name == "lightningdit")


def test_stores_are_flipped_without_torch(tmp_path, make_store):
    arguments = ["flip", make_store(), "-H", "-o", "out"]
    code, heavy, _ = modules_after(RUN_PROGRAM, *arguments, cwd=tmp_path)
    assert (code, heavy) == (0, {"numpy"})


@pytest.mark.parametrize("command", ["verify", "info"])
@pytest.mark.parametrize("options", [[], ["--quick"], ["--json"]], ids=" ".join)
def test_stores_are_read_without_torch(make_store, command, options):
    store = make_store()
    code, heavy, out = modules_after(RUN_PROGRAM, command, store, *options, cwd=store)
    assert (code, heavy) == (0, {"numpy"})
    assert out


@pytest.mark.skipif(native.kernels() is None, reason="no C compiler here")
def test_networks_run_on_a_cpu_without_torch(tmp_path):
    arguments = ["roundtrip", PHOTO, "-m", "small", "--device", "cpu", "--resize", "64"]
    code, heavy, out = modules_after(RUN_PROGRAM, *arguments, "-o", "out.png", cwd=tmp_path)
    assert (code, "torch" in heavy) == (0, False)
    assert "PSNR" in out


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None\n"


def test_what_needs_no_torch_works_without_it(tmp_path):
    """In one process: an installation without PyTorch (auravae-light) runs networks on a CPU, and the rest."""
    program = WITHOUT_TORCH + (
        "import contextlib, io, sys\n"
        "from auravae_cli.cli.app import main\n"
        "for line in sys.argv.pop(1).splitlines():\n"
        "    sys.argv[1:] = line.split()\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        try: main()\n"
        "        except SystemExit as end: code = end.code or 0\n"
        "    print(code, line)\n"
    )
    Image.new("RGB", (40, 32), "teal").save(tmp_path / "a.jpg")
    script = "\n".join(LIGHT + HEAVY)
    found = subprocess.run(
        [sys.executable, "-c", program, script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    has_kernels = native.kernels() is not None
    assert found.stdout.splitlines() == [
        f"{0 if has_kernels or 'small' not in line else 3} {line}" for line in LIGHT
    ] + [f"3 {line}" for line in HEAVY]
    assert found.stderr.count("error: this needs PyTorch, which is not installed") >= len(HEAVY)


LIGHT = (
    "encode a.jpg -m linear",
    "flip a.safetensors -H",
    "info a.safetensors",
    "show a.safetensors --width 20",
    "decode a.h.safetensors",
    "encode a.jpg -m linear -o store --layout shards",
    "verify store",
    "flip store -H -o mirrored",
    "export store --to kohya -o cache",
    "import cache --from kohya --assume-model linear -o back",
    "roundtrip a.jpg -m linear -o trip.png",
    "encode a.jpg -m small --device cpu -o other",
    "decode other/a.safetensors --device cpu -o other",
    "roundtrip a.jpg -m small --device cpu -o trip2.png",
    "eval a.jpg -m small --device cpu --quick -o eval",
)
HEAVY = ("encode a.jpg -m small --dtype float16 -o third",)
