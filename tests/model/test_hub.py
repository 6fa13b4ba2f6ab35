"""Fetching official weights, against a hub on this machine; each fetch in a process of its own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

REPOSITORY = Path(__file__).parents[2]
FILE = "vae_epoch_3_step_49501_bf16.pt"
SCRIPT = """
import sys, time
time.sleep = lambda seconds: None  # the client waits between its retries
from auravae_cli.errors import WeightsError
from auravae_cli.model.spec.registry import find_weights, known_models, local_weights, pull
told = []
try:
    hear = lambda step, done, total: told.append((done, total))
    print(eval(sys.argv[1], globals(), {"config": known_models()["aura"], "hear": hear}))
    assert not told or told[-1][0] == told[-1][1] > 0, told
    assert bool(told) == ("hear" in sys.argv[1])
except WeightsError as error:
    print(error)
    sys.exit(3)
"""


@pytest.fixture
def ask(hub, tmp_path):
    """Evaluate an expression over ``config`` with the hub's client set to the local hub."""
    own = {n: v for n, v in os.environ.items() if not n.startswith(("HF_", "HUGGING", "XDG_"))}

    def run(expression, **environment):
        variables = own | hub.environment(tmp_path / "home") | environment  # None takes one away
        result = subprocess.run(
            [sys.executable, "-c", SCRIPT, expression],
            cwd=REPOSITORY,
            env={n: v for n, v in variables.items() if v is not None},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in result.stderr and "\r" not in result.stderr, result.stderr
        return result.returncode, result.stdout.strip()

    return run


def files_under(folder):
    """Every file with a byte in it that a fetch has left, but for locks and tags."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 1000]
    return {path.resolve() for path in files}


def downloads(hub):
    """The headers of every request for the file's content."""
    return [head for method, path, head in hub.requests if method == "GET" and path == hub.path]


def test_a_fetched_file_is_whole_and_found_without_a_network(hub, ask, tiny_path):
    code, printed = ask("pull(config, hear)")
    assert code == 0
    path = Path(printed)
    assert path.name == FILE
    assert path.read_bytes() == tiny_path.read_bytes()
    assert len(downloads(hub)) == 1

    assert ask("pull(config)") == (0, printed)
    assert len(downloads(hub)) == 1, "fetched once only"

    hub.close()
    asked = len(hub.requests)
    offline = {"HF_HUB_OFFLINE": "1"}
    assert ask("local_weights(config)", **offline) == (0, printed)
    assert ask("find_weights('aura')[0]", **offline) == (0, printed)
    assert ask("pull(config)", **offline) == (0, printed)
    assert ask("pull(config)") == (0, printed)  # the server is down, the cache is not
    assert len(hub.requests) == asked


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "XDG_CACHE_HOME"])
def test_a_cache_elsewhere_is_found_again(ask, tmp_path, variable):
    elsewhere = {variable: str(tmp_path / "elsewhere")}
    if variable == "XDG_CACHE_HOME":
        elsewhere["HF_HOME"] = None
    code, printed = ask("pull(config)", **elsewhere)
    assert code == 0 and printed.startswith(str(tmp_path / "elsewhere"))
    assert ask("local_weights(config)", **elsewhere) == (0, printed)


def test_nothing_is_found_before_it_was_fetched(hub, ask):
    assert ask("local_weights(config)") == (0, "None")
    code, message = ask("find_weights('aura')")
    assert code == 3 and "auravae models pull aura" in message
    assert hub.requests == []


@pytest.mark.parametrize("token", [None, "hf_example"])
def test_the_token_goes_along_as_a_bearer(hub, ask, token):
    assert ask("pull(config)", HF_TOKEN=token)[0] == 0
    sent = [headers.get("authorization") for _, path, headers in hub.requests if path == hub.path]
    assert set(sent) == {f"Bearer {token}" if token else None}


def assert_refused(answer):
    """The fetch ended in a WeightsError that says what, and what to do."""
    code, message = answer
    assert code == 3
    for part in (FILE, "fal/AuraEquiVAE", "check the connection", "--model PATH"):
        assert part in message
    assert "\n" not in message
    return message


def test_offline_and_not_cached(hub, ask):
    message = assert_refused(ask("pull(config)", HF_HUB_OFFLINE="1"))
    assert "HF_HUB_OFFLINE" in message
    assert hub.requests == []


def test_no_server(hub, ask, tmp_path):
    hub.close()
    assert_refused(ask("pull(config)"))
    assert files_under(tmp_path) == set()


def test_a_file_that_the_hub_does_not_have(hub, ask, tmp_path):
    hub.path = "/fal/AuraEquiVAE/resolve/main/another_file.pt"
    message = assert_refused(ask("pull(config)"))
    assert "404" in message
    assert ask("local_weights(config)") == (0, "None")
    assert files_under(tmp_path) == set()


def test_a_broken_connection_is_taken_up_where_it_broke(hub, ask):
    chunk = 10 << 20  # what the client writes at once
    hub.content = random.Random(0).randbytes(chunk + 500_000)
    hub.break_after, hub.breaks = chunk + 1000, 1
    code, printed = ask("pull(config)")
    assert code == 0
    assert Path(printed).read_bytes() == hub.content
    ranges = [headers.get("range") for headers in downloads(hub)]
    assert ranges == [None, f"bytes={chunk}-"]


def test_a_server_that_always_breaks_off_leaves_nothing_that_passes_for_whole(hub, ask, tmp_path):
    hub.break_after = 500_000
    assert_refused(ask("pull(config)"))
    assert len(downloads(hub)) > 1
    assert ask("local_weights(config)") == (0, "None")
    assert files_under(tmp_path) == set()


def test_a_model_without_a_hub(hub, ask):
    code, message = ask("pull(known_models()['linear'])")
    assert code == 3 and "is not on a hub" in message
    assert hub.requests == []
