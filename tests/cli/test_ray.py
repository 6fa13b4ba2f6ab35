"""Stores filled on a Ray cluster: the same bytes, whatever happens to its workers."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from auravae_cli.files.scratch import SCRATCH

pytestmark = [
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None or sys.platform != "linux",
        reason="needs Ray, and /proc",
    ),
]

REPOSITORY = Path(__file__).parents[2]
STORE = ("--layout", "shards", "--shard-size", "40", "-m", "linear")
CLUSTER = """
import sys, ray
own = {"include_dashboard": False, "object_store_memory": 128 << 20}
ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="error", **own)
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""
Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Of Ray and of the program: a home, for Ray's token, and a short path, for its sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield os.environ | {"HOME": folder, "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def address(environment) -> Iterator[str]:
    """Of a cluster with two workers, whose processes do not know of this checkout."""
    bare = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", CLUSTER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=bare, cwd="/", stdin=pipe, stdout=pipe, text=True) as ray:
        assert ray.stdin and ray.stdout
        yield ray.stdout.readline().strip()
        ray.stdin.close()
        assert ray.wait(30) == 0


@pytest.fixture(scope="module")
def start(environment) -> Callable[..., subprocess.Popen[str]]:
    """Start the program: ``start(folder, "encode", ...)``."""

    def run(folder: Path, *arguments: object) -> subprocess.Popen[str]:
        path = {"PYTHONPATH": str(REPOSITORY), "COLUMNS": "400", "RAY_AUTH_MODE": "token"}
        return subprocess.Popen(
            [sys.executable, "-m", "auravae_cli", *map(str, arguments)],
            env=environment | path,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


@pytest.fixture(scope="module")
def auravae(start) -> Callable[..., Ended]:
    """Run the program to its end."""

    def run(*arguments: object) -> Ended:
        return finish(start(*arguments))

    return run


@pytest.fixture(scope="module")
def data(tmp_path_factory, auravae) -> Path:
    """A folder with 160 pictures and their store by the local runner; and a damaged picture."""
    folder = tmp_path_factory.mktemp("data")
    photo = (REPOSITORY / "samples" / "coffee_alpha.png").read_bytes()
    (folder / "pictures").mkdir()
    for number in range(160):
        (folder / "pictures" / f"{number:03}.png").write_bytes(photo)
    (folder / "damaged.png").write_bytes(photo[:1000])
    assert auravae(folder, "encode", "pictures", "-o", "local", *STORE).returncode == 0
    return folder


def finish(process: subprocess.Popen[str]) -> Ended:
    """How a run ended."""
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def rows(result: Ended) -> list[dict[str, Any]]:
    """Standard output, which is JSON lines and nothing else."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_an_evaluation_is_shared(auravae, data, address):
    command = ("eval", "pictures/00*.png", "damaged.png", "-m", "linear", "--flips", "1", "--json")
    here = auravae(data, *command, "--sweeps", "0", "--lpips", "none")
    there = ("--runner", "ray", "--address", address, "-o", "results")
    shared = auravae(data, *command, "--sweeps", "0", "--lpips", "none", *there)
    assert (here.returncode, shared.returncode) == (1, 1)  # one is damaged
    for found in (here, shared):
        assert "failed: damaged.png" in found.stderr
    pictures = [
        [row | {"seconds": 0} for row in rows(x) if row["kind"] == "picture"]
        for x in (here, shared)
    ]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 10


def test_a_cluster_of_its_own(auravae, data, tree):
    result = auravae(data, "encode", "pictures", "-o", "own", *STORE, "--runner", "ray", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    assert {row["status"] for row in rows(result)} == {"done"}
    assert sum(row["rows"] for row in rows(result)) == 160
    assert tree(data / "own") == tree(data / "local")


def test_an_existing_cluster_and_a_second_run(auravae, data, address, tree):
    command = ("encode", "pictures", "-o", "there", *STORE, "--runner", "ray", "--address", address)
    first = auravae(data, *command, "--quiet")
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert tree(data / "there") == tree(data / "local")
    again = auravae(data, *command, "--json")
    assert {row["status"] for row in rows(again)} == {"skipped"}
    assert tree(data / "there") == tree(data / "local")


def test_a_worker_is_killed_within_a_shard(start, data, address, tree):
    store = data / "killed"
    command = ("encode", "pictures", "-o", store, *STORE, "--runner", "ray", "--address", address)
    process = start(data, *command, "--json")
    kill_a_worker_of(store)
    result = finish(process)
    assert (result.returncode, result.stderr) == (0, "")
    assert {row["status"] for row in rows(result)} == {"done"}
    assert tree(store) == tree(data / "local")


def test_damaged_pictures(auravae, data, address, tree):
    names = ("damaged.png", "pictures/00?.png", *STORE)
    ray = ("--runner", "ray", "--address", address)
    result = auravae(data, "encode", *names, "-o", "some", *ray)
    assert result.returncode == 1
    assert "1 failure: see" in result.stderr
    assert auravae(data, "encode", *names, "-o", "some-local").returncode == 1
    assert tree(data / "some") == tree(data / "some-local")
    assert "files-00000.failures.jsonl" in tree(data / "some")
    limited = auravae(data, "encode", *names, "-o", "few", *ray, "--max-failures", "0")
    assert limited.returncode == 1
    assert "error: 1 of 11 inputs failed, more than --max-failures allows" in limited.stderr


def test_errors_of_workers_are_told_as_themselves(auravae, data, address):
    (data / "broken.safetensors").write_bytes(b"none")
    names = ("pictures", "-o", "none", "--layout", "shards", "-m", "broken.safetensors")
    local = auravae(data, "encode", *names)
    there = auravae(data, "encode", *names, "--runner", "ray", "--address", address)
    assert there.returncode == local.returncode == 3
    assert there.stderr.split(": ", 2)[2] == local.stderr.split(": ", 2)[2]
    assert not (data / "none").exists()


def test_workers_keep_to_the_memory_asked_for(auravae, data, address):
    command = ("encode", "pictures/000.png", "-m", "small", "--memory", "1M", "--layout", "shards")
    result = auravae(
        data, *command, "-o", "little", "--runner", "ray", "--address", address, "--json"
    )
    assert result.returncode == 1
    assert "and 1 MiB may be used" in result.stdout + result.stderr + ledger(data / "little")


def ledger(store: Path) -> str:
    """What is written down of pictures that failed."""
    return "".join(path.read_text() for path in store.glob("*.failures.jsonl"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("-m", "nothing"), "no model 'nothing'"),
        (("-m", "linear", "--address", "127.0.0.1:1"), "no Ray cluster at 127.0.0.1:1"),
        (("-m", "linear", "--address", "nowhere"), "no Ray cluster at nowhere"),
    ],
)
def test_what_cannot_start(auravae, data, options, reason):
    ray = ("--layout", "shards", "--runner", "ray")
    result = auravae(data, "encode", "pictures", "-o", "none", *ray, *options)
    assert result.returncode == 3
    assert result.stderr.startswith(f"error: {reason}")
    assert not (data / "none").exists()


def test_without_ray(program, data, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')\n")
    command, environment = program
    path = {"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"}
    options = ("encode", "pictures", "-o", "none", *STORE, "--runner", "ray")
    result = subprocess.run(
        [*command, *options], env=environment | path, cwd=data, capture_output=True, check=False
    )
    assert result.returncode == 3
    assert result.stderr == b"error: --runner ray needs Ray: pip install ray\n"


def kill_a_worker_of(store: Path) -> None:
    """Kill one that is in the middle of a shard."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in Path("/proc").glob("[0-9]*"):
            pid = int(process.name)
            if is_at_work_on(store, process):
                os.kill(pid, signal.SIGSTOP)
                if is_at_work_on(store, process):
                    os.kill(pid, signal.SIGKILL)
                    return
                os.kill(pid, signal.SIGCONT)
        time.sleep(0.002)
    raise AssertionError("no worker was seen at work")


def is_at_work_on(store: Path, process: Path) -> bool:
    """Whether a process is a worker that holds a folder for unfinished files of the store."""
    try:
        if not (process / "cmdline").read_bytes().startswith(b"ray::ShardWorker"):
            return False
        opened = [str(link.readlink()) for link in (process / "fd").iterdir()]
    except OSError:  # it ended meanwhile, or is not ours
        return False
    return any(name.startswith(f"{store}/{SCRATCH}/") and name.endswith("/lock") for name in opened)
