"""What is no checkpoint of ours is refused with a message that says why."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from auravae_cli.errors import WeightsError
from auravae_cli.model.codec import load_codec

KINDS = ["safetensors", "zip", "legacy"]


@pytest.fixture
def refuse(load):
    """Load a file that must be refused; the message, on one line."""

    def read(path, parts=("encoder", "decoder")):
        with pytest.raises(WeightsError) as caught:
            load(path, parts)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return read


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_tensor_is_named(save, refuse, state, kind):
    del state["decoder.mid.attn_1.qkv.weight"]
    assert "1 missing, first decoder.mid.attn_1.qkv.weight" in refuse(save(state, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_unexpected_tensor_is_named(save, refuse, state, kind):
    state["encoder.quant_conv.bias"] = torch.zeros(3)
    assert "1 unexpected, first encoder.quant_conv.bias" in refuse(save(state, kind=kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_shape_is_named(save, refuse, state, kind):
    state["decoder.norm_out.bias"] = torch.zeros(7)
    message = refuse(save(state, kind=kind))
    assert "decoder.norm_out.bias has shape (7,), expected (32,)" in message


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_half_that_the_file_lacks(save, refuse, state, half):
    path = save({n: t for n, t in state.items() if not n.startswith(half)})
    assert f"{half}.conv_in.bias" in refuse(path)
    assert f"{half}.conv_in.weight" in refuse(path, (half,))


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
def test_another_models_checkpoint(save, refuse, kind):
    message = refuse(save({"encoder.layer.0.weight": torch.ones(2, 2)}, kind=kind))
    assert "no AuraEquiVAE checkpoint" in message
    assert "encoder.layer.0.weight" in message


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), "text", {"state_dict": 1}], ids=repr)
def test_a_pickle_without_a_table_of_tensors(save, refuse, content):
    assert re.search("expected a table|no AuraEquiVAE", refuse(save(content, kind="zip")))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: (t * 100).to(torch.int8),
        lambda t: t.to(torch.complex64),
        lambda t: t.to(torch.float32).to_sparse(),
        lambda t: t.to("meta"),
    ],
    ids=["int8", "complex", "sparse", "meta"],
)
def test_values_that_are_no_plain_floats(save, refuse, state, change):
    state["encoder.conv_out.weight"] = change(state["encoder.conv_out.weight"])
    assert "encoder.conv_out.weight" in refuse(save(state, kind="zip"))


def test_shapes_beyond_any_memory(save, refuse, state):
    for name, tensor in state.items():
        if name == "encoder.conv_in.weight" or (".down." in name and "conv1.weight" in name):
            state[name] = torch.zeros(1).expand((2**30, *tensor.shape[1:]))  # 4 bytes on disk
    assert "too large" in refuse(save(state, kind="zip"))


def test_a_table_that_holds_itself(save, refuse):
    table = {}
    table["model"] = table
    assert "no AuraEquiVAE checkpoint" in refuse(save(table, kind="zip"))


class Harmful:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_code_in_a_pickle_is_not_run(save, refuse, state, tmp_path, kind):
    trap = tmp_path / "trap"
    path = save({"state_dict": state, "extra": Harmful(trap)}, "harmful.pt", kind)
    message = refuse(path)
    assert "holds code" in message
    assert not trap.exists()
    torch.load(path, weights_only=False)["extra"].close()
    assert trap.exists(), "the trap itself does not work"


@pytest.mark.parametrize("left", [9, 100, 5000, 0.5, 0.99])
def test_cut_off_safetensors(tmp_path, tiny_path, refuse, left):
    data = tiny_path.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data[: int(left * len(data)) if left < 1 else left])
    assert "damaged or half-downloaded" in refuse(path)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("left", [5, 100, 5000, 0.5, 0.99])
def test_cut_off_pickles(tmp_path, save, state, refuse, left, kind):
    data = save(state, kind=kind).read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(data[: int(left * len(data)) if left < 1 else left])
    assert "cannot be loaded" in refuse(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b'{"error":"Invalid username or password."}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12\n",
        b"\x89PNG\r\n\x1a\n" + bytes(64),
        bytes(4096),
    ],
)
def test_what_is_no_checkpoint_at_all(tmp_path, refuse, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    assert "neither safetensors nor a torch checkpoint" in refuse(path)


def test_a_zip_of_something_else(tmp_path, refuse):
    path = tmp_path / "archive.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no tensors")
    assert "cannot be loaded" in refuse(path)


def test_a_folder_and_a_missing_file(tmp_path, refuse):
    assert "cannot be read" in refuse(tmp_path)
    assert "No such file" in refuse(tmp_path / "missing")


def test_an_unreadable_file(tmp_path, refuse, monkeypatch):
    def fail(self, *args):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "secret.pt"  # as root, no file is unreadable by its mode
    path.write_bytes(b"PK")
    monkeypatch.setattr(Path, "open", fail)
    assert "cannot be read: Permission denied" in refuse(path)


@pytest.mark.parametrize("model", [".", "no-such-file"])
def test_a_codec_of_no_file(model, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="expected one of aura, linear"):
        load_codec(model)


@pytest.mark.parametrize("metadata", ["[" * 50_000, "{", "[]", '{"kind": "linear"}'])
def test_a_codec_of_foreign_safetensors(tmp_path, metadata):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.ones(2)}, path, metadata={"auravae": metadata})
    with pytest.raises(
        WeightsError,
        match=r"no AuraEquiVAE checkpoint|no linear model|a latent of auravae: expected the weights",
    ):
        load_codec(str(path), device="cpu")
