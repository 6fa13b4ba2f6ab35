"""doctor: every check can fail, says what to do, and is in the exit code."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from auravae_cli.diagnostics import doctor as module
from auravae_cli.machine.socket_audit import watch_sockets
from auravae_cli.model.codec import Codec
from auravae_cli.model.linear import LinearAutoencoder

NAMES = [
    *("python", "torch", "model", "device", "weights", "tensors"),
    *("golden", "flips", "nan", "offline", "memory"),
]


def checks(result):
    return {row["name"]: row for row in result.rows}


def failed(result):
    return [name for name, check in checks(result).items() if check["status"] == "failed"]


def test_a_sound_installation(auravae, work):
    result = auravae("doctor", "--json")
    assert (result.code, result.err) == (0, "")
    assert list(checks(result)) == NAMES
    assert {check["status"] for check in checks(result).values()} == {"ok"}
    facts = checks(result)["tensors"]["facts"]
    assert facts == {"tensors": 3, "parameters": 832, "dtypes": ["float32"]}
    assert "exact" in checks(result)["flips"]["finding"]


@pytest.mark.parametrize("terminals", ["", "stdout stderr"])
def test_the_checklist(auravae, work, terminals):
    result = auravae("doctor", terminals=terminals)
    assert result.code == 0
    assert all(name in result.text for name in NAMES)
    assert "all is well" in result.text
    assert auravae("doctor", "-q").out == b""


def test_the_network(auravae, work):
    result = auravae("doctor", "-m", "small", "--json", "--device", "cpu", "--dtype", "float32")
    assert (result.code, failed(result)) == (0, [])
    found = checks(result)
    assert found["tensors"]["facts"]["parameters"] == 20_556_755
    assert found["golden"]["facts"]["latent_error"] < 1e-4
    assert found["flips"]["facts"]["encoder_error"] == 0
    assert found["flips"]["facts"]["exact_by_construction"]
    assert found["memory"]["facts"]["needs"] > 1 << 30


def test_bfloat16_has_a_tolerance_of_its_own(auravae, work):
    result = auravae("doctor", "-m", "small", "--json", "--device", "cpu", "--dtype", "bfloat16")
    assert failed(result) == []
    assert 1e-3 < checks(result)["golden"]["facts"]["latent_error"] < 0.1


def test_a_checkpoint_of_yours(auravae, work, repository):
    path = repository / "tests" / "golden" / "tiny_weights_bf16.safetensors"
    result = auravae("doctor", "-m", path, "--json", "--device", "cpu")
    assert (result.code, failed(result)) == (0, [])
    found = checks(result)
    assert "no golden numbers" in found["golden"]["finding"]
    assert "learned" in found["flips"]["finding"]
    shutil.copy(path, "small.safetensors")  # a name is no proof
    assert failed(auravae("doctor", "-m", "small.safetensors", "--json", "--device", "cpu")) == []


@pytest.mark.parametrize("options", [["-m", "nonsense"], ["-m", "small", "--device", "nonsense"]])
def test_a_model_that_cannot_be_loaded_is_exit_3(auravae, work, options):
    result = auravae("doctor", *options, "--json")
    assert (result.code, failed(result)) == (3, ["model"])
    assert list(checks(result)) == NAMES
    assert checks(result)["golden"]["status"] == "skipped"
    assert "-> name another" in auravae("doctor", *options).text


def test_no_torch(auravae, work, monkeypatch):
    def absent(name):
        raise module.PackageNotFoundError(name)

    monkeypatch.setattr(module, "version", absent)
    result = auravae("doctor", "--json")
    assert (result.code, failed(result)) == (0, [])


def test_an_old_python(auravae, work, monkeypatch):
    monkeypatch.setattr(module, "OLDEST_PYTHON", (9, 0))
    assert failed(auravae("doctor", "--json")) == ["python"]


def linear_with(monkeypatch, tmp_path, change):
    """The embedded linear model with other weights in its place."""
    from auravae_cli.model.spec import registry

    folder = tmp_path / "weights"
    shutil.copytree(registry.WEIGHTS_PATH, folder)
    tensors = load_file(folder / "linear.safetensors")
    change(tensors)
    save_file(tensors, folder / "linear.safetensors", _metadata(folder / "linear.safetensors"))
    monkeypatch.setattr(registry, "WEIGHTS_PATH", folder)


def _metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return file.metadata()


def test_other_weights_than_released(auravae, work, monkeypatch, tmp_path):
    def scale(tensors):
        tensors["scale"] = tensors["scale"] * np.float32(1.5)

    linear_with(monkeypatch, tmp_path, scale)
    result = auravae("doctor", "--json")
    assert (result.code, failed(result)) == (1, ["weights", "golden"])
    assert "install" in checks(result)["weights"]["advice"]


def test_nan_among_the_weights(auravae, work, monkeypatch, tmp_path):
    def spoil(tensors):
        tensors["mean"] = np.full_like(tensors["mean"], np.nan)

    linear_with(monkeypatch, tmp_path, spoil)
    result = auravae("doctor", "--json")
    assert result.code == 1
    assert failed(result) == ["weights", "tensors", "golden", "flips", "nan"]
    assert "mean" in checks(result)["tensors"]["finding"]


def test_weights_that_are_not_as_equivariant_as_they_say(auravae, work, monkeypatch):
    original = LinearAutoencoder.decode

    def crooked(self, latents):
        images = original(self, latents)
        images[..., 0] += 0.5
        return images

    monkeypatch.setattr(LinearAutoencoder, "decode", crooked)
    found = failed(auravae("doctor", "--json"))
    assert "flips" in found and "golden" in found


def test_a_wrong_action(auravae, work, monkeypatch):
    from auravae_cli.latents.latent_file import LatentFile

    monkeypatch.setattr(LatentFile, "act", lambda self, g: self)
    result = auravae("doctor", "--json")
    assert "flips" in failed(result)
    assert "report" in checks(result)["flips"]["advice"]


def test_values_that_overflow(auravae, work, monkeypatch):
    original = Codec.decode

    def overflows(self, latents):
        images = original(self, latents)
        return images * np.where(np.abs(latents).max() >= 8, np.float32(np.inf), np.float32(1))

    monkeypatch.setattr(Codec, "decode", overflows)
    assert failed(auravae("doctor", "--json")) == ["nan"]


def test_a_socket_is_noticed(auravae, work, monkeypatch):
    original = Codec.encode_unit

    def phones_home(self, images):
        socket.socket().close()
        return original(self, images)

    monkeypatch.setattr(Codec, "encode_unit", phones_home)
    result = auravae("doctor", "--json")
    assert failed(result) == ["offline"]
    assert "socket.__new__" in checks(result)["offline"]["finding"]


def test_sockets_are_watched_for_the_time_of_the_block_alone():
    opened = []
    with watch_sockets(opened):
        pass
    socket.socket().close()
    assert opened == []
    with watch_sockets(opened), socket.socket() as client, pytest.raises(OSError):
        client.connect(("127.0.0.1", 1))
    assert [text.split()[0] for text in opened] == ["socket.__new__", "socket.connect"]


@pytest.mark.parametrize(("memory", "status"), [("400M", "warning"), ("1M", "failed")])
def test_too_little_memory(auravae, work, memory, status):
    found = checks(
        auravae("doctor", "-m", "small", "--device", "cpu", "--memory", memory, "--json")
    )
    assert found["memory"]["status"] == status
    assert found["memory"]["advice"]


def test_the_golden_file_is_damaged(auravae, work, monkeypatch):
    Path("golden.safetensors").write_bytes(b"nonsense")
    from auravae_cli.diagnostics import golden

    monkeypatch.setattr(
        module, "read_golden", lambda name: golden.read_golden(name, Path("golden.safetensors"))
    )
    result = auravae("doctor", "--json")
    assert result.code == 3 and "damaged" in checks(result)["model"]["finding"]
    assert json.dumps(result.rows)
