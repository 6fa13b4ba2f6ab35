"""Every container, prefix and number format of a checkpoint gives the same network."""

from __future__ import annotations

import pytest
import torch

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
KINDS = ["safetensors", "zip", "legacy"]
HALVES = ["encoder", "decoder"]


def assert_same(found, state, dtype=torch.bfloat16):
    """All tensors of ``state``, rounded to ``dtype`` and brought to float32; no other."""
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.to(dtype).float()), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_container_in_every_number_format(save, load, state, kind, dtype):
    path = save({n: t.to(DTYPES[dtype]) for n, t in state.items()}, kind=kind)
    assert_same(load(path), state, DTYPES[dtype])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.png", "noend"])
def test_the_suffix_does_not_matter(save, load, state, name, kind):
    assert_same(load(save(state, name, kind)), state)


@pytest.mark.parametrize("kind", ["safetensors", "zip"])
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "vae.", "module._orig_mod.", "vae.module._orig_mod.vae."]
)
def test_wrappers_prefixes_are_taken_off(save, load, state, prefix, kind):
    assert_same(load(save({prefix + n: t for n, t in state.items()}, kind=kind)), state)


def compiled_by_halves(name):
    """As the reference's trainer saves it: each half compiled, inside a wrapper for several GPUs."""
    half, _, rest = name.partition(".")
    return f"module.{half}._orig_mod.{rest}"


PLACES = {
    "compiled by halves": compiled_by_halves,
    "a wrapper before the last word": lambda name: "._orig_mod.".join(name.rsplit(".", 1)),
    "sharded blocks": lambda name: name.replace(".block.", ".block._fsdp_wrapped_module."),
    "recomputed blocks": lambda name: name.replace(".mid.", ".mid._checkpoint_wrapped_module."),
    "everywhere": lambda name: "vae." + name.replace(".", ".module._orig_mod."),
}


@pytest.mark.parametrize("place", PLACES)
def test_wrappers_words_are_taken_out_anywhere(save, load, state, place):
    renamed = {PLACES[place](name): tensor for name, tensor in state.items()}
    assert not renamed.keys() & state.keys() or place.startswith(("sharded", "recomputed"))
    assert renamed.keys() != state.keys()
    assert_same(load(save(renamed, kind="zip")), state)


def test_every_loader_reads_what_the_references_trainer_saves(save, state, tiny_path):
    from auravae_cli.adapters.comfyui import LoadModel
    from auravae_cli.forecast.run_setting import _architecture
    from auravae_cli.model.codec import load_codec
    from auravae_cli.model.latent_space import locate, read_space

    path = str(save({compiled_by_halves(name): tensor for name, tensor in state.items()}))
    z = torch.zeros(1, 16, 2, 2)
    expected = load_codec(str(tiny_path), device="cpu").decode(z)
    assert torch.equal(load_codec(path, device="cpu").decode(z), expected)
    (vae,) = LoadModel().load(path, device="cpu", dtype="float32")
    assert torch.equal(vae.codec.decode(z), expected)
    assert read_space(path).irreps == read_space(str(tiny_path)).irreps
    assert _architecture(locate(path), ("encoder",)) == vae.codec.autoencoder.architecture


@pytest.mark.parametrize(
    "keys", [["state_dict"], ["model"], ["ema"], ["state_dict", "model"]], ids="/".join
)
def test_nested_tables_are_found(save, load, state, keys):
    content = {"module." + n: t for n, t in state.items()}
    for key in reversed(keys):
        content = {"epoch": 3, key: content, "optimizer": {"lr": 0.1}}
    assert_same(load(save(content, kind="zip")), state)


@pytest.mark.parametrize("kind", KINDS)
def test_the_tensors_of_other_parts_are_left_alone(save, load, state, kind):
    others = {"loss.weight": torch.ones(2), "discriminator.encoder.conv.bias": torch.ones(1)}
    assert_same(load(save(state | others, kind=kind)), state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("only", [False, True], ids=["from both", "from that half"])
def test_one_half_alone(save, load, state, half, kind, only):
    own = {n: t for n, t in state.items() if n.startswith(half)}
    assert_same(load(save(own if only else state, kind=kind), (half,)), own)


@pytest.mark.parametrize("half", HALVES)
def test_one_half_does_not_mind_faults_of_the_other(save, load, state, half):
    other = next(h for h in HALVES if h != half)
    state[f"{other}.conv_in.weight"] = torch.zeros(5)
    own = {n: t for n, t in state.items() if n.startswith(half)}
    assert_same(load(save(state), (half,)), own)


def test_loaded_weights_take_no_gradients(load, tiny_path):
    assert not any(tensor.requires_grad for tensor in load(tiny_path).values())
