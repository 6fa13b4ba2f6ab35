"""Files of the wrong kind: one sentence with the command to use, and one exit code."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.model.hub_server import LocalServer

IMAGE = "a PNG picture: `auravae encode` makes a latent of it"
LATENT = "a latent of auravae: `auravae decode` makes a picture of it"
IN_STORE = "a file of a store: name the store's folder instead"
COMFYUI = "a latent of ComfyUI: `auravae import --from comfyui` makes latents of it"


@pytest.fixture
def files(auravae, work, picture):
    """A picture, its latent, one of ComfyUI's, and a store."""
    picture("a.png")
    assert auravae("encode", "a.png", "-m", "linear").code == 0
    assert auravae("encode", "a.png", "-o", "st", "-m", "linear", "--layout", "shards").code == 0
    assert auravae("export", "a.safetensors", "--to", "comfyui", "-o", "out").code == 0
    Path("out/a.latent").rename("a.latent")


def test_each_command_names_the_one_to_use(auravae, files):
    (inside,) = Path("st").glob("*.safetensors")
    rows = (
        *((command, "a.png", IMAGE) for command in ("info", "decode", "flip -H", "verify")),
        *((command, "a.latent", COMFYUI) for command in ("info", "decode", "encode -o x", "eval")),
        *((command, "a.safetensors", LATENT) for command in ("encode -o x", "verify", "eval")),
        ("verify", str(inside), IN_STORE),
        ("encode -o new --layout shards", str(inside), IN_STORE),
        ("import --from npy -o x", "a.png", IMAGE),
        ("train -o x", "a.png", "a.png: a PNG picture: expected a file in TOML"),
        ("train --status", "a.png", "a.png: no run of `auravae train`: log.jsonl cannot be read: "),
        ("verify", "missing", "missing: cannot be read: No such file"),
        ("encode", "a.safetensors", LATENT),
        ("encode --overwrite", "a.safetensors", LATENT),
        (
            "roundtrip",
            str(inside),
            "it lies in the store st: name that, and a place for the result",
        ),
        ("roundtrip -o x", str(inside), LATENT),
        ("info", "st/store.json", "a file of a store: name the store's folder instead"),
    )
    for command, name, said in rows:
        result = auravae(*command.split(), name)
        assert result.code == 1 and said in result.message, (command, name, result.message)
    assert auravae("verify", "a.latent").text == "a.latent: 1 fault\n"  # and counts nothing


def test_a_folder_without_inputs_says_what_is_expected(auravae, work):
    Path("empty").mkdir()
    for command, kind in (("encode", "pictures"), ("decode", "latents"), ("flip -H", "latents")):
        result = auravae(*command.split(), "empty")
        assert result.code == 2
        assert f"there is none in what was named; expected {kind}, folders" in result.message


def test_folders_without_inputs_tell_what_they_hold(auravae, files):
    Path("folder").mkdir()
    Path("a.png").rename("folder/a.png")
    store = "st is a store of latents: `auravae decode STORE -o FOLDER` makes pictures of it"
    for command in (
        "encode",
        "encode -o x --layout shards",
        "roundtrip",
        "eval",
        "import --from npy -o x",
    ):
        result = auravae(*command.split(), "st")
        assert result.code == 2 and store in result.message, (command, result.message)
    for command in ("decode", "flip -H", "info", "export --to npy -o x"):
        result = auravae(*command.split(), "folder")
        assert result.code == 2 and f"folder/a.png is {IMAGE}" in result.message, command


def test_nothing_but_its_own_files_goes_into_a_store(auravae, files):
    """Neither beside a shard, nor where -o names the store or a folder in it."""
    (inside,) = Path("st").glob("*.safetensors")
    before = sorted(Path("st").rglob("*"))
    commands = (
        *(f"decode {inside}", f"flip -H {inside}", "decode st", "encode a.png -o st/b.safetensors"),
        *(
            "flip -H a.safetensors -o st/new",
            "roundtrip a.png -o st/",
            "decode a.safetensors -o st/b.png",
        ),
        *("export a.safetensors --to npy -o st/npy", "import --from comfyui a.latent -o st/x"),
    )
    for command in commands:
        result = auravae(*command.split())
        assert result.code in (1, 2), command
        assert "st is a store" in result.message or "the store st" in result.message, command
    assert sorted(Path("st").rglob("*")) == before
    assert auravae("decode", inside, "-o", "out").code == 0


def test_what_is_no_model(auravae, files):
    names = "one of aura, linear, small, small-1, or the path of a checkpoint"
    for name, said in (
        ("a.png", "a PNG picture: expected the weights of a model"),
        ("a.safetensors", "a latent of auravae: expected the weights of a model"),
        ("a.latent", "a latent of ComfyUI: expected the weights of a model"),
        ("st", f"st: a folder: expected {names}"),
    ):
        result = auravae("encode", "a.png", "-o", "x", "-m", name)
        assert result.code == 3 and said in result.message, name


def test_a_missing_input_has_one_exit_code(auravae, work):
    commands = (
        *("info", "decode", "flip -H", "verify", "encode", "roundtrip", "show", "eval"),
        *("export --to npy -o x", "import --from npy -o x", "encode -o st --layout shards"),
    )
    for command in commands:
        result = auravae(*command.split(), "missing.png")
        assert result.code == 1, command
        assert "missing.png" in result.message
    result = auravae("encode", "--files-from", "nolist.txt")
    assert (result.code, "nolist.txt cannot be read: No such file" in result.message) == (1, True)


def test_a_file_of_a_web_server_that_lists_nothing(auravae, files):
    pytest.importorskip("aiohttp")
    content = Path("a.png").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.send_header("Content-Length", str(len(content) if self.path == "/a.png" else 0))
            self.end_headers()

        def do_GET(self):
            self.do_HEAD()
            if self.path == "/a.png":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    with LocalServer(Handler) as server:
        result = auravae("encode", f"{server.endpoint}/a.png", "-o", "far")
        assert (result.code, result.text) == (0, "files-00000: 1 latent\n")
        missing = auravae("encode", f"{server.endpoint}/b.png", "-o", "none")
        assert missing.code == 1 and "b.png: cannot be read: No such file" in missing.message
    away = auravae("encode", f"{server.endpoint}/a.png", "-o", "away")
    assert away.code == 1 and "a.png: cannot be reached: " in away.message


@pytest.mark.parametrize("command", ["roundtrip", "show", "info", "flip -H -o x"])
def test_a_url_is_no_file(auravae, work, command):
    result = auravae(*command.split(), "nowhere://host/a.png")
    assert result.code in (1, 2) and "nowhere://host/a.png" in result.message


def test_a_url_is_no_path_of_this_machine(auravae, work):
    """A latent's URL is told as one, and no option makes folders named ``https:``."""
    for file in ("https://host.invalid/a.safetensors", "https://host.invalid/a.JPG"):
        for command in ("info", "decode", "flip -H", "show", "export --to npy -o x"):
            result = auravae(*command.split(), file)
            assert result.code == 2 and f"{file}: a URL: only stores and tars" in result.message
    place = "https://host.invalid/x"
    for command in (
        f"train {place} -o run",
        f"train small -o {place}",
        *(f"eval a.png {option} {place}" for option in ("-o", "--html", "--csv", "--certificate")),
        f"eval --compare {place} b",
    ):
        result = auravae(*command.split())
        assert result.code == 2 and f"{place}: a URL: expected a file" in result.message, command
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--resize abc", "expected a whole number from 1 to 65536, such as 512"),
        ("--resize -5", "expected a whole number from 1 to 65536, such as 512"),
        ("--batch-size x", "expected a whole number of at least 1, such as 8"),
        ("--crop 1,2", "'1,2': expected X,Y,W,H, such as 0,0,512,512"),
        ("--center-crop 0x3", "expected WxH or a side, such as 512x384 or 512"),
        ("--buckets x", "expected SIDE or SIDE:STEP, such as 512 or 512:64"),
        ("--latent-dtype fp16", "'--latent-dtype': 'fp16' is not one of"),
        ("--memory lots", "expected a size such as 4G or 500M"),
        ("--buckets 8", "'8': a step of 64 does not fit: expected a multiple of 8"),
        ("--buckets-of foo:8", "expected TRAINER:SIDE[,OPTION=N], such as kohya:1024"),
        ("--background blurple", "'blurple': expected a colour by name or as #rrggbb"),
    ],
)
def test_a_number_that_cannot_be_read(auravae, work, options, said):
    result = auravae("encode", "a.png", *options.split())
    assert result.code == 2 and said in result.message


def test_a_bound_is_told_without_a_needless_point(auravae, work):
    result = auravae("decode", "a.safetensors", "--noise", "x")
    assert "expected a number of at least 0, such as 0.1" in result.message


def test_settings_of_a_store_are_told_as_options(auravae, files):
    asked = ["--layout", "shards", "-m", "linear", "--buckets", "64", "--latent-dtype", "float32"]
    result = auravae("encode", "a.png", "-o", "st", *asked)
    assert result.code == 1
    assert (
        "made with --latent-dtype float16, asked for --buckets 64:64, --latent-dtype float32"
        in (result.message)
    )
    assert json.loads(Path("st/store.json").read_text())["stored_dtype"] == "float16"
