"""decode: formats, depth, noise, and which latents are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from auravae_cli import H, Irreps, load_codec, read_latents, stack
from auravae_cli.images.read import read_image
from tests.cli.datasets import picture, write_tar

FOREIGN = "f" * 64


def write(path, latents):
    Path(path).write_bytes(latents.to_bytes())


def foreign(latent):
    z = read_latents(latent)
    return replace(z, space=replace(z.space, weights_sha256=FOREIGN))


@pytest.mark.parametrize(
    ("suffix", "kind", "loss"),
    [
        ("png", "PNG", 0),
        ("tiff", "TIFF", 0),
        ("jpg", "JPEG", 4),
        ("webp", "WEBP", 4),
    ],
)
def test_formats(auravae, latent, suffix, kind, loss):
    pixels = load_codec("linear").decode_latent(read_latents(latent)).astype(int)
    assert auravae("decode", latent, "--format", suffix).code == 0
    with Image.open(f"z.decoded.{suffix}") as image:
        assert image.format == kind
        assert np.abs(np.asarray(image) - pixels).mean() <= loss
    assert auravae("decode", latent, "-o", f"named.{suffix}").code == 0
    assert Path(f"named.{suffix}").read_bytes() == Path(f"z.decoded.{suffix}").read_bytes()


@pytest.mark.parametrize("name", ["hubble_16bit_rgb.png", "retina_16bit.png"])
def test_16_bits_keep_more_than_8(auravae, work, samples, name):
    source = read_image((samples / name).read_bytes()).pixels
    assert source.dtype == np.uint16
    auravae("encode", samples / name, "-o", "z.safetensors", "--latent-dtype", "float32")
    assert auravae("decode", "z.safetensors", "--bits", "16", "-o", "deep.png").code == 0
    assert auravae("decode", "z.safetensors", "-o", "flat.png").code == 0
    deep, flat = (read_image(Path(f"{n}.png").read_bytes()).pixels for n in ("deep", "flat"))
    assert (deep.dtype, flat.dtype) == (np.uint16, np.uint8)
    assert deep.shape == source.shape
    assert np.array_equal(np.rint(deep / 257).astype(np.uint8), flat)
    assert len(np.unique(deep)) > 2 * 256


def test_16_bits_need_png(auravae, latent, tree, work):
    result = auravae("decode", latent, "--bits", "16", "-o", "x.jpg")
    assert result.code == 1
    assert "16 bits" in result.err and ".png" in result.err
    assert list(tree(work)) == ["z.safetensors"]


@pytest.mark.parametrize(
    "option",
    [
        ("--bits", "12"),
        ("--format", "bmp"),
        ("--quality", "0"),
        ("--quality", "101"),
        ("--noise", "-1"),
        ("--noise", "nan"),
        ("--seed", "-1"),
    ],
)
def test_malformed_options_are_wrong_usage(auravae, latent, option):
    result = auravae("decode", latent, *option)
    assert result.code == 2
    assert option[0] in result.message


def test_quality_changes_the_size(auravae, latent):
    low, high = (
        auravae("decode", latent, "-o", "-", "--format", "jpg", "--quality", q).out
        for q in (20, 95)
    )
    assert 0 < len(low) < len(high) / 2


def test_noise_is_reproducible_and_seeded(auravae, latent):
    def decoded(*options):
        return auravae("decode", latent, "-o", "-", *options).out

    first, plain = decoded("--noise", "0.2", "--seed", "1"), decoded()
    assert first == decoded("--noise", "0.2", "--seed", "1")
    others = {first, plain, decoded("--noise", "0.2", "--seed", "2"), decoded("--noise", "0.1")}
    assert len(others) == 4


def test_a_latent_of_other_weights_is_refused_in_one_sentence(auravae, latent, work, tree):
    write("foreign.safetensors", foreign(latent))
    result = auravae("decode", "foreign.safetensors", latent)
    assert result.code == 1
    (line,) = [line for line in result.err.splitlines() if line.startswith("failed: ")]
    own = read_latents(latent).space.weights_sha256
    assert FOREIGN[:12] in line and own[:12] in line and "--any-model" in line
    assert sorted(tree(work)) == ["foreign.safetensors", "z.decoded.png", "z.safetensors"]


def test_any_model_decodes_it_all_the_same(auravae, latent, pixels):
    write("foreign.safetensors", foreign(latent))
    assert auravae("decode", "foreign.safetensors", "--any-model").code == 0
    auravae("decode", latent)
    assert np.array_equal(pixels("foreign.decoded.png"), pixels("z.decoded.png"))


def test_any_model_still_needs_the_channels(auravae, latent):
    z = read_latents(latent)
    narrow = replace(z, values=z.values[:4], space=replace(z.space, irreps=Irreps.parse("4xee")))
    write("narrow.safetensors", narrow)
    result = auravae("decode", "narrow.safetensors", "--any-model")
    assert result.code == 1
    assert "4 channels" in result.err and "16" in result.err


@pytest.mark.parametrize("options", [(), ("--any-model",)])
def test_another_downsampling_factor_is_refused(auravae, latent, options):
    z = read_latents(latent)
    size = (4 * z.values.shape[1], 4 * z.values.shape[2])
    lying = replace(
        z,
        space=replace(z.space, downsampling_factor=4),
        records=(replace(z.records[0], image_size=size),),
    )
    write("lying.safetensors", lying)
    result = auravae("decode", "lying.safetensors", *options)
    assert result.code == 1
    assert "downsampling factor 4" in result.err
    assert not Path("lying.decoded.png").exists()


def test_an_unknown_model_is_named(auravae, latent):
    z = read_latents(latent)
    write("u.safetensors", replace(z, space=replace(z.space, model="other")))
    result = auravae("decode", "u.safetensors")
    assert result.code == 1
    assert "'other'" in result.err and "--model" in result.err


def test_a_latent_whose_model_is_not_here_fails_alone(auravae, latent):
    z = read_latents(latent)
    write("s.safetensors", replace(z, space=replace(z.space, model="aura")))
    result = auravae("decode", "s.safetensors", latent)
    assert result.code == 1
    assert "failed: s.safetensors" in result.err and "'aura'" in result.err
    assert Path("z.decoded.png").exists()


def test_a_model_asked_for_but_not_here_is_exit_3(auravae, latent):
    result = auravae("decode", latent, "--model", "aura")
    assert result.code == 3
    assert "aura" in result.err


def test_values_that_are_not_finite_fail_their_latent_alone(auravae, latent):
    z = read_latents(latent)
    values = np.array(z.values)
    values[0, 0, 0], values[3, 1, 2] = np.nan, np.inf
    write("bad.safetensors", replace(z, values=values))
    result = auravae("decode", latent, "bad.safetensors", "--batch-size", "2")
    assert result.code == 1
    assert "failed: bad.safetensors: 2 of" in result.err
    assert Path("z.decoded.png").exists() and not Path("bad.decoded.png").exists()


@pytest.fixture
def shard(auravae, latent) -> Path:
    """A shard of three latents: two with sources of their own, one flipped and without a name."""
    z = read_latents(latent)
    records = [
        replace(z.records[0], source="a/one.jpg"),
        replace(z.records[0], source="../two.x.jpg"),
        replace(z.records[0], source=None),
    ]
    rows = [replace(z, records=(record,)) for record in records]
    rows[2] = rows[2].act(H)
    write("shard.safetensors", stack(rows))
    return Path("shard.safetensors")


def test_a_shard_gives_a_picture_for_each_row(auravae, shard, latent, pixels):
    result = auravae("decode", shard, "-o", "out", "--json")
    assert result.code == 0
    assert [row["source"] for row in result.rows] == [f"shard.safetensors[{i}]" for i in range(3)]
    auravae("decode", latent, "-o", "single.png")
    expected = pixels("single.png")
    np.testing.assert_array_equal(pixels("out/a/one.png"), expected)
    np.testing.assert_array_equal(pixels("out/two.x.png"), expected)
    np.testing.assert_array_equal(pixels("out/000002.png"), expected[:, ::-1])
    assert {row["status"] for row in auravae("decode", shard, "-o", "out", "--json").rows} == {
        "skipped"
    }


def test_rows_of_a_shard_lie_in_a_folder_beside_it(auravae, shard):
    assert auravae("decode", shard, "--format", "webp").code == 0
    assert Path("shard.decoded/a/one.webp").is_file()


def test_rows_with_one_name_collide(auravae, shard):
    z = read_latents(shard)
    write("shard.safetensors", stack([z.row(0), z.row(0)]))
    result = auravae("decode", shard, "-o", "out")
    assert result.code == 1
    assert result.err.count("would be the result of 2 inputs") == 2


def test_a_row_without_a_source_has_the_name_of_its_key(auravae, shard):
    """Of rows without sources, as imports make them, all first rows of files once collided."""
    z = read_latents(shard)
    keys = ["a/x.1", "a/x.2", "../up", None]
    rows = [
        replace(z.row(0), records=(replace(z.records[0], source=None, key=key),)) for key in keys
    ]
    write("shard.safetensors", stack(rows))
    assert auravae("decode", shard, "-o", "out").code == 0
    found = sorted(p.relative_to("out").as_posix() for p in Path("out").rglob("*.png"))
    assert found == ["000003.png", "a/x.1.png", "a/x.2.png", "up.png"]


def test_a_shard_in_a_stream_and_for_one_file_is_refused(auravae, shard):
    result = auravae("decode", "-", "-o", "out.png", stdin=shard.read_bytes())
    assert result.code == 1
    assert "shard" in result.err
    assert auravae("decode", shard, "-o", "out.png").code == 2
    assert not Path("out.png").exists()


def test_the_source_picture_is_never_overwritten(auravae, work, picture):
    before = picture("photo.png").read_bytes()
    auravae("encode", "photo.png")
    for options in ((), ("--overwrite",)):
        for output in ("photo.png", "."):
            result = auravae("decode", "photo.safetensors", "-o", output, *options)
            assert result.code == 1
            assert "photo.png" in result.err
    assert Path("photo.png").read_bytes() == before


# Stores


@pytest.fixture
def store(auravae, work):
    """Make a store of two tars, whose pictures have the names that are given."""

    def make(first=("0.png", "1.png"), second=("2.png", "3.png")):
        for name, members in (("ta", first), ("tb", second)):
            write_tar(work / f"{name}.tar", {m: picture(n) for n, m in enumerate(members)})
        assert auravae("encode", "ta.tar", "tb.tar", "-o", "store").code == 0
        return Path("store")

    return make


def decoded():
    return sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*.png"))


def test_a_store_gives_the_rows_of_its_finished_shards_and_names_the_others(auravae, store):
    """A shard whose manifest is not there is not done, whatever else lies there."""
    root = store()
    (root / "tb.manifest.json").unlink()
    result = auravae("decode", root, "-o", "out", "--json")
    assert result.code == 1
    name = "store/ta.2x3.safetensors"
    assert [row["source"] for row in result.rows] == [f"{name}[0]", f"{name}[1]", "store/tb"]
    assert "not finished" in result.rows[-1]["reason"]
    assert decoded() == ["0.png", "1.png"]
    again = auravae("decode", f"{root}/", "-o", "out", "--json")
    assert [row["status"] for row in again.rows] == ["skipped", "skipped", "failed"]
    dry = auravae("decode", root, "-o", "out", "--dry-run", "--overwrite")
    assert (dry.code, "not finished" in dry.message) == (1, True)


def test_shards_with_equal_names_get_folders(auravae, store):
    """All of them, so that no name depends on which others there are in its shard."""
    root = store(("0.png", "1.png"), ("0.png", "2.png"))
    assert auravae("decode", root, "-o", "out").code == 0
    assert decoded() == ["ta/0.png", "ta/1.png", "tb/0.png", "tb/2.png"]


def test_what_a_store_lacks_is_named_and_the_rest_decoded(auravae, store, latent):
    root = store()
    (root / "ta.2x3.safetensors").unlink()
    result = auravae("decode", root, latent, "-o", "out")
    assert result.code == 1
    assert "failed: store/ta.2x3.safetensors: missing, though its manifest" in result.message
    assert decoded() == ["2.png", "3.png", "z.png"]
    (root / "tb.2x3.safetensors").write_bytes(b"damaged")
    (root / "ta.manifest.json").write_bytes(b"{}")
    result = auravae("decode", root, "-o", "out")
    assert result.code == 1
    assert "failed: store/ta: " in result.message and "damaged manifest" in result.message
    assert "failed: store/tb.2x3.safetensors: " in result.message
    (root / "store.json").write_bytes(b"{}")
    result = auravae("decode", root, latent, "-o", "more")
    assert "failed: store: " in result.message and "no store that this auravae reads" in result.err
    assert (result.code, Path("more/z.png").is_file()) == (1, True)


def test_a_store_in_a_list(auravae, store):
    store()
    result = auravae("decode", "--files-from", "-", "-o", "out", stdin=b"store\n")
    assert (result.code, decoded()) == (0, ["0.png", "1.png", "2.png", "3.png"])


def test_a_remote_store(auravae, store, pixels):
    import fsspec

    files = fsspec.filesystem("memory")
    files.put(str(store()), "memory://decoded/store", recursive=True)
    try:
        result = auravae("decode", "memory://decoded/store/", "-o", "out", "--json")
        assert result.code == 0
        assert result.rows[0]["source"] == "memory://decoded/store/ta.2x3.safetensors[0]"
        beside = auravae("decode", "memory://decoded/store")
        assert (beside.code, "--output" in beside.message) == (2, True)
        nothing = auravae("decode", "memory://decoded/other", "-o", "out")
        assert (nothing.code, "not a store" in nothing.err) == (1, True)
    finally:
        files.rm("decoded", recursive=True)
    assert auravae("decode", "store", "-o", "local").code == 0
    for name in decoded():
        assert np.array_equal(pixels(f"local/{name}"), pixels(f"out/{name}"))
    unknown = auravae("decode", "nothing://x/y", "-o", "out")
    assert (unknown.code, "no way to reach nothing://" in unknown.err) == (1, True)
