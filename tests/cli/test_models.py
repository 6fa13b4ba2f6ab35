"""models: the list, and fetching official weights."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path

import pytest

from auravae_cli.latents import safetensors_file
from auravae_cli.model.spec.config import Architecture, conventional_irreps
from auravae_cli.model.spec.registry import known_models

TINY = Path(__file__).parents[1] / "golden" / "tiny_weights_bf16.safetensors"


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """A hub's cache that is empty."""
    for name in ("HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "hub"


def test_the_list_for_machines(auravae, no_hub):
    rows = {row["name"]: row for row in auravae("models", "list", "--json").rows}
    assert set(rows) == set(known_models()) >= {"aura", "linear", "small"}
    assert [name for name, row in rows.items() if row["default"]] == ["linear"]  # the tests' own
    for name in ("linear", "small"):
        assert Path(rows[name]["weights"]).is_file()
        assert rows[name]["quality"]["psnr"] > 26
    assert rows["aura"]["quality"] is None
    assert rows["aura"]["weights"] is None
    assert all(row["summary"] for row in rows.values())


@pytest.mark.parametrize("terminals", ["", "stdout stderr"])
def test_the_list_for_people(auravae, no_hub, terminals):
    result = auravae("models", "list", terminals=terminals)
    assert (result.code, result.err) == (0, "")
    for word in ("aura", "linear", "small", "default", "not on this machine"):
        assert word in result.text
    plain = re.sub(r"\x1b\[[0-9;]*m", "", result.text)
    assert max(map(len, plain.splitlines())) <= 80


def test_the_network_is_the_default(auravae, no_hub, monkeypatch):
    monkeypatch.delenv("AURAVAE_MODEL")
    rows = auravae("models", "list", "--json").rows
    assert [row["name"] for row in rows if row["default"]] == ["small"]


def test_a_cached_checkpoint_is_listed(auravae, no_hub):
    config = known_models()["aura"]
    folder = no_hub / f"models--{config.hub_repo.replace('/', '--')}" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / config.hub_file).write_bytes(b"")
    rows = {row["name"]: row for row in auravae("models", "list", "--json").rows}
    assert rows["aura"]["weights"] == str(folder / config.hub_file)


@pytest.mark.parametrize("name", ["linear", "small"])
def test_pulling_what_is_on_no_hub_is_exit_3(auravae, name):
    result = auravae("models", "pull", name)
    assert result.code == 3
    assert name in result.err and "not on a hub" in result.err
    assert result.out == b""


def test_pulling_an_unknown_model_is_wrong_usage(auravae):
    result = auravae("models", "pull", "no-such-model")
    assert result.code == 2
    assert "aura, linear, small" in result.message


def test_a_model_that_was_not_fetched_names_the_command(auravae, work, no_hub, picture):
    picture("a.png")
    result = auravae("encode", "a.png", "--model", "aura")
    assert result.code == 3
    assert "auravae models pull aura" in result.err


@pytest.mark.parametrize("arguments", [["models"], ["models", "pull"], ["models", "nonsense"]])
def test_wrong_usage(auravae, arguments):
    assert auravae(*arguments).code == 2


# The program, with a model "aura" of the tiny checkpoint's sizes.
AS_AURA = """
import sys
from pathlib import Path
from auravae_cli.model.spec import registry
registry.configs_path = lambda: Path("configs")
from auravae_cli.cli.app import main
main()
"""
CONFIG = """
name = "aura"
summary = "for this test"
kind = "network"
hub_repo = "fal/AuraEquiVAE"
hub_file = "vae.pt"
sha256 = [%s]
[architecture]
ch = %d
ch_mult = %s
num_res_blocks = %d
latent_channels = %d
[space]
channels = %d
downsampling_factor = %d
irreps = "%s"
"""


@pytest.fixture
def pull(work, program):
    """Pull a checkpoint as aura, and run the program with it: ``run, pulled = pull(path, sha256)``."""
    pytest.importorskip("huggingface_hub")
    from tests.model.hub_server import HubServer

    (interpreter, *official), environment = program

    def do(path, known=None):
        script = official if known is None else ["-c", AS_AURA]
        config = known_models()["aura"]
        repo, file = config.hub_repo, config.hub_file
        if known is not None:
            file = "vae.pt"
            Path("configs/model").mkdir(parents=True)
            Path("configs/model/aura.toml").write_text(config_of(TINY, known))
        with HubServer(repo, file, path.read_bytes()) as server:
            variables = environment | server.environment(work / "home")

            def run(*arguments):
                return subprocess.run(
                    [interpreter, *script, *arguments],
                    env=variables,
                    capture_output=True,
                    text=True,
                    check=False,
                    timeout=60,
                )

            before = run("models", "list", "--json").stdout.splitlines()[0]
            assert json.loads(before)["weights"] is None
            assert len(server.requests) == 0
            return run, run("models", "pull", "aura", "--json")

    return do


def config_of(path, known):
    tensors, _ = safetensors_file.parse(path.read_bytes())
    sizes = Architecture.from_shapes({name: t.values.shape for name, t in tensors.items()})
    digests = ", ".join(f'"{digest}"' for digest in known)
    space = sizes.latent_channels, sizes.downsampling_factor
    irreps = conventional_irreps(sizes.latent_channels)
    blocks = sizes.num_res_blocks, sizes.latent_channels
    return CONFIG % (digests, sizes.ch, list(sizes.ch_mult), *blocks, *space, irreps)


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(not TINY.exists(), reason="no tiny checkpoint here")
@pytest.mark.parametrize("is_known", [True, False])
def test_pull_once_then_encode_and_decode_offline(pull, picture, pixels, is_known):
    picture("a.png", 30, 41)
    run, pulled = pull(TINY, ["0" * 64, digest_of(TINY)] if is_known else [])
    assert pulled.returncode == 0, pulled.stderr
    facts = json.loads(pulled.stdout)
    assert facts["sha256"] == digest_of(TINY)
    assert facts["checked"] == ("sha256" if is_known else "names and shapes")
    if not is_known:
        assert "knows no sha256 of the official file" in run("models", "pull", "aura").stderr
        return
    for arguments in (["encode", "a.png", "--model", "aura"], ["decode", "a.safetensors"]):
        offline = run(*arguments)
        assert offline.returncode == 0, offline.stderr
    assert pixels("a.decoded.png").shape == (30, 41, 3)


@pytest.mark.skipif(not TINY.exists(), reason="no tiny checkpoint here")
def test_a_toy_network_is_not_aura(pull, picture):
    picture("a.png")
    run, pulled = pull(TINY)
    for refused in (pulled, run("encode", "a.png", "--model", "aura")):
        assert refused.returncode == 3
        assert "not the weights of model 'aura'" in refused.stderr
        assert "expected Architecture(ch=256, ch_mult=(1, 2, 4, 4)" in refused.stderr
        assert refused.stdout == ""


@pytest.mark.skipif(not TINY.exists(), reason="no tiny checkpoint here")
def test_a_file_of_another_sha256_is_not_aura(pull, picture):
    picture("a.png")
    run, pulled = pull(TINY, ["0" * 64])
    dry = run("encode", "a.png", "--model", "aura", "--dry-run")
    for refused in (pulled, run("encode", "a.png", "--model", "aura"), dry):
        assert refused.returncode == 3
        assert f"its sha256 is {digest_of(TINY)}, expected {'0' * 64}" in refused.stderr
