"""models: the list, and fetching official weights."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from auravae_cli.models import known_models

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


@pytest.mark.skipif(not TINY.exists(), reason="no tiny checkpoint here")
def test_pull_once_then_encode_and_decode_offline(work, program, picture, pixels):
    pytest.importorskip("huggingface_hub")
    from tests.model.hub_server import HubServer

    command, environment = program
    picture("a.png", 30, 41)
    config = known_models()["aura"]

    def run(*arguments, **extra):
        return subprocess.run(
            [*command, *arguments],
            env=environment | extra,
            capture_output=True,
            check=False,
            timeout=60,
        )

    with HubServer(config.hub_repo, config.hub_file, TINY.read_bytes()) as server:
        online = server.environment(work / "home")
        before = run("encode", "a.png", "--model", "aura", **online)
        assert before.returncode == 3 and b"auravae models pull aura" in before.stderr
        assert server.requests == []  # encode never goes to the network
        pulled = run("models", "pull", "aura", "--json", **online)
        assert pulled.returncode == 0, pulled.stderr
        facts = json.loads(pulled.stdout)
        assert facts["sha256"] == hashlib.sha256(TINY.read_bytes()).hexdigest()
    for arguments in (["encode", "a.png", "--model", "aura"], ["decode", "a.safetensors"]):
        offline = run(*arguments, **online)
        assert offline.returncode == 0, offline.stderr
    assert pixels("a.decoded.png").shape == (30, 41, 3)
