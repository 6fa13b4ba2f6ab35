"""flip: the group's laws on files, shards and folders, without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from auravae_cli import H, read_latents, stack
from auravae_cli.latents.dtypes import STORED_DTYPES

OPTIONS = {"h": ["-H"], "v": ["-V"], "hv": ["--horizontal", "--vertical"]}


@pytest.mark.parametrize("store", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("g", OPTIONS)
def test_the_decoded_flip_is_the_flipped_picture(auravae, work, samples, pixels, store, g):
    auravae("encode", samples / "coffee.jpg", "-o", "z.safetensors", "--latent-dtype", store)
    assert auravae("flip", "z.safetensors", *OPTIONS[g]).code == 0
    assert auravae("decode", "z.safetensors", f"z.{g}.safetensors").code == 0
    axes = [axis for axis, letter in ((0, "v"), (1, "h")) if letter in g]
    plain, flipped = pixels("z.decoded.png"), pixels(f"z.{g}.decoded.png")
    assert np.array_equal(flipped, np.flip(plain, axes))
    assert not np.array_equal(flipped, plain)


@pytest.mark.parametrize("store", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("g", OPTIONS)
def test_two_equal_flips_give_the_first_file(auravae, work, picture, store, g):
    picture("a.png")  # 21 x 30: padding on all four sides, unequal
    auravae("encode", "a.png", "--latent-dtype", store)
    auravae("flip", "a.safetensors", *OPTIONS[g])
    auravae("flip", f"a.{g}.safetensors", *OPTIONS[g])
    assert Path(f"a.{g}.{g}.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
    assert Path(f"a.{g}.safetensors").read_bytes() != Path("a.safetensors").read_bytes()


def test_h_then_v_is_hv(auravae, latent):
    auravae("flip", latent, "-H")
    auravae("flip", "z.h.safetensors", "-V")
    auravae("flip", latent, "-HV")
    assert Path("z.h.v.safetensors").read_bytes() == Path("z.hv.safetensors").read_bytes()


def test_padding_and_orientation_follow(auravae, work, picture):
    picture("a.png", 21, 29)
    auravae("encode", "a.png")
    auravae("flip", "a.safetensors", "-H")
    before, after = (auravae("info", f"a{tag}.safetensors", "--json").row for tag in ("", ".h"))
    assert before["padding"] == {"left": 1, "right": 2, "top": 1, "bottom": 2}
    assert after["padding"] == {"left": 2, "right": 1, "top": 1, "bottom": 2}
    assert (before["orientation"], after["orientation"]) == ("e", "h")
    different = {key for key in before if before[key] != after[key]}
    assert different == {"file", "padding", "orientation", "mean_per_channel"} | (
        different & {"minimum", "maximum"}
    )


def test_no_direction_is_wrong_usage(auravae, latent):
    result = auravae("flip", latent)
    assert result.code == 2
    assert "--horizontal" in result.message and "--vertical" in result.message


@pytest.mark.parametrize("store", ["float16", "bfloat16", "float32"])
def test_shards(auravae, latent, store):
    z = read_latents(latent)
    dtype = STORED_DTYPES[store]
    z = replace(z, dtype=dtype, values=dtype.from_float32(z.dtype.to_float32(z.values)))
    rows = [z, z.act(H), replace(z, values=z.values[..., ::-1, :].copy())]
    Path("shard.safetensors").write_bytes(stack(rows).to_bytes())
    result = auravae("flip", "shard.safetensors", "-V", "--json")
    assert result.code == 0
    assert result.row["details"]["latents"] == 3
    flipped = read_latents(Path("shard.v.safetensors"))
    for row, source in enumerate(rows):
        Path("one.safetensors").write_bytes(source.to_bytes())
        auravae("flip", "one.safetensors", "-V", "--overwrite")
        alone = read_latents(Path("one.v.safetensors"))
        assert flipped.values[row].tobytes() == alone.values.tobytes()
        assert flipped.records[row] == alone.records[0]
    auravae("flip", "shard.v.safetensors", "-V", "-o", "back.safetensors")
    assert Path("back.safetensors").read_bytes() == Path("shard.safetensors").read_bytes()


def test_a_shard_larger_than_a_block(auravae, latent):
    z = read_latents(latent)
    rows = [replace(z, values=(z.values * (1 + k / 500)).astype(np.float16)) for k in range(250)]
    shard = stack(rows)
    assert shard.values.nbytes > 2 << 20
    Path("shard.safetensors").write_bytes(shard.to_bytes())
    assert auravae("flip", "shard.safetensors", "-H").code == 0
    assert Path("shard.h.safetensors").read_bytes() == shard.act(H).to_bytes()


def test_an_empty_shard(auravae, latent):
    shard = stack([read_latents(latent)])
    empty = replace(shard, values=shard.values[:0], records=())
    Path("none.safetensors").write_bytes(empty.to_bytes())
    assert auravae("flip", "none.safetensors", "-H").code == 0
    assert Path("none.h.safetensors").read_bytes() == empty.to_bytes()


def test_folders_are_mirrored(auravae, latent, work, tree):
    for name in ("in/a", "in/deep/er/b"):
        path = Path(f"{name}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(latent.read_bytes())
    Path("in/note.txt").write_text("no latent")
    assert auravae("flip", "in", "-H", "-o", "out").code == 0
    expected = read_latents(latent).act(H).to_bytes()
    assert tree(work / "out") == {
        "a.safetensors": expected,
        "deep/er/b.safetensors": expected,
    }


def test_values_that_are_not_finite_keep_their_bits(auravae, latent):
    z = read_latents(latent)
    words = np.array(z.values).view(np.uint16)
    words[12:, 0, 0] = 0x7E01, 0xFC00, 0x7C00, 0xFE55  # NaN with payloads, infinities
    odd = replace(z, values=words.view(np.float16))
    Path("odd.safetensors").write_bytes(odd.to_bytes())
    assert auravae("flip", "odd.safetensors", "-H").code == 0
    flipped = read_latents(Path("odd.h.safetensors")).values.view(np.uint16)
    assert [hex(word) for word in flipped[12:, 0, -1]] == ["0xfe01", "0x7c00", "0x7c00", "0xfe55"]


def test_in_place_with_overwrite(auravae, latent):
    before = latent.read_bytes()
    assert auravae("flip", latent, "-H", "-o", latent).code == 1
    assert latent.read_bytes() == before
    assert auravae("flip", latent, "-H", "-o", latent, "--overwrite").code == 0
    assert latent.read_bytes() != before
    assert auravae("flip", latent, "-H", "-o", latent, "--overwrite").code == 0
    assert latent.read_bytes() == before
