"""Several processes train one network: each on its part of the batch, all to the same weights."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from auravae_cli.errors import DeviceError
from auravae_cli.train.processes import Processes, joined

ROOT = Path(__file__).parents[2]

PROGRAM = """
import hashlib, sys
import numpy as np
import torch
from auravae_cli.model.spec.config import Architecture, SpaceSpec
from auravae_cli.symmetry.group import Irreps
from auravae_cli.train.pictures import Pictures
from auravae_cli.train.loop import initial_state, train
from auravae_cli.train.processes import joined
from auravae_cli.train.recipe import LossWeights, Optimizer, Recipe, Stage

torch.set_num_threads(1)
recipe = Recipe(
    name="tiny",
    architecture=Architecture(32, (1, 2), 1, 8),
    space=SpaceSpec(8, 2, Irreps.parse("6xee+1xoe+1xeo")),
    stages=(Stage(2, 16, 2, LossWeights(gan=0.5)),),
    optimizer=Optimizer("muon", 1e-2, warmup_steps=0),
    precision="float32",
)
pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
pictures = Pictures((pixels,), (pixels,), ())
with joined("cpu") as processes:
    state = initial_state(recipe, torch.device("cpu"))
    losses = [r.losses["l1"] for r in train(state, recipe, pictures, torch.device("cpu"), processes)]
    digest = hashlib.sha256()
    for module in (state.autoencoder, state.ema, state.discriminator):
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    print(processes.rank, processes.world_size, digest.hexdigest(), losses[0])
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_two_processes_end_with_the_same_weights():
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        results = [process.communicate(timeout=300) for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], results
    (rank_a, size_a, weights_a, loss_a), (rank_b, size_b, weights_b, loss_b) = (
        out.split() for out, _ in results
    )
    assert (rank_a, rank_b, size_a, size_b) == ("0", "1", "2", "2")
    assert loss_a != loss_b  # each saw pictures of its own
    assert weights_a == weights_b


def test_one_process_joins_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu") as processes:
        assert processes == Processes(0, 1, 0)
        assert processes.is_first
        assert processes.device("cpu") == torch.device("cpu")
        module = torch.nn.Linear(1, 1)
        assert processes.wrap(module) is module


@pytest.mark.parametrize(
    ("name", "found", "expected"),
    [
        ("auto", "cuda", "cuda:1"),
        ("auto", "cpu", "cpu"),
        ("cuda", "cuda", "cuda:1"),
        ("cuda:0", "cuda:0", "cuda:0"),
    ],
)
def test_of_several_gpus_each_process_has_its_own(monkeypatch, name, found, expected):
    devices = {name: torch.device(found)}
    monkeypatch.setattr("auravae_cli.train.processes.find_device", devices.__getitem__)
    assert Processes(1, 2, 1).device(name) == torch.device(expected)


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(DeviceError, match=rf"'{name}' is not available.*--device cpu"):
        Processes().device(name)


def test_only_the_first_process_reports():
    assert [Processes(rank, 2).is_first for rank in range(2)] == [True, False]
