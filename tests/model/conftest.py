"""What the tests of the network share: the tiny reference checkpoint, in every container."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from auravae_cli.model.codec import load_codec
from auravae_cli.model.network.weights import load_networks
from tests.model.hub_server import HubServer

torch.set_num_threads(1)  # the tests run on two cores, side by side

GOLDEN = Path(__file__).parents[1] / "golden"
BOTH = ("encoder", "decoder")


@pytest.fixture(scope="session")
def golden():
    """The folder of reference numbers."""
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_path():
    """The tiny reference checkpoint: bfloat16, safetensors."""
    return GOLDEN / "tiny_weights_bf16.safetensors"


@pytest.fixture(scope="session")
def _tiny_state(tiny_path):
    return load_file(tiny_path)


@pytest.fixture
def state(_tiny_state):
    """Its tensors, in a dict that a test may change."""
    return dict(_tiny_state)


@pytest.fixture(scope="session")
def codec(tiny_path):
    """The codec of the tiny checkpoint, on the CPU in float32."""
    return load_codec(str(tiny_path), device="cpu")


@pytest.fixture
def save(tmp_path):
    """Write anything as a checkpoint: a dict of tensors as safetensors, or through torch.save."""

    def write(content, name="weights.safetensors", kind="safetensors"):
        path = tmp_path / name
        if kind == "safetensors":
            save_file(content, path)
        else:
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
        return path

    return write


@pytest.fixture
def load():
    """Load a checkpoint's halves on the CPU in float32; their tensors by full name."""

    def read(path, parts=BOTH):
        networks, _ = load_networks(path, parts, torch.device("cpu"), torch.float32)
        return {
            f"{part}.{name}": tensor
            for part, network in networks.items()
            for name, tensor in network.state_dict().items()
        }

    return read


@pytest.fixture
def hub(tiny_path):
    """A hub on this machine that serves the tiny weights under the official name."""
    with HubServer(
        "fal/AuraEquiVAE", "vae_epoch_3_step_49501_bf16.pt", tiny_path.read_bytes()
    ) as server:
        yield server
