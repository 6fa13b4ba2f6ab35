"""Model configs: the shipped ones load; a bad one lists all of its faults at once."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from auravae_cli.errors import ConfigError
from auravae_cli.files.toml_config import read_config
from auravae_cli.model.spec.config import (
    Architecture,
    ModelConfig,
    SpaceSpec,
    configs_path,
    conventional_irreps,
)
from auravae_cli.model.spec.registry import known_models

AURA = Architecture(ch=256, ch_mult=(1, 2, 4, 4), num_res_blocks=2, latent_channels=16)


def load(text: str, folder: Path) -> ModelConfig:
    path = folder / "model.toml"
    path.write_text(text)
    return read_config(path, ModelConfig)


def faults(text: str, folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(text, folder)
    title, *lines = str(caught.value).splitlines()
    assert title == f"{folder / 'model.toml'}:"
    return [line.strip() for line in lines]


def test_the_shipped_configs() -> None:
    files = sorted(path.name for path in (configs_path() / "model").iterdir())
    assert files == ["aura.toml", "linear.toml", "small-1.toml", "small.toml"]
    models = known_models()
    assert [(m.name, m.kind) for m in models.values()] == [
        ("aura", "network"),
        ("linear", "linear"),
        ("small", "network"),
        ("small-1", "network"),
    ]
    assert models["aura"].architecture == AURA
    assert models["aura"].hub_repo == "fal/AuraEquiVAE"
    assert models["linear"].architecture is None
    for model in models.values():
        assert model.space == SpaceSpec()
        assert model.space.irreps.dim == model.space.channels == 16
        if model.architecture:
            assert model.architecture.downsampling_factor == model.space.downsampling_factor
            assert model.architecture.latent_channels == model.space.channels


def test_a_whole_file(tmp_path: Path) -> None:
    config = load(
        """
        name = "tiny"
        summary = "for this test"
        kind = "network"
        [architecture]
        ch = 32
        ch_mult = [1, 2]
        num_res_blocks = 1
        latent_channels = 4
        [space]
        channels = 4
        downsampling_factor = 2
        irreps = "4xee"
        clamp = 3
        """,
        tmp_path,
    )
    assert config.architecture == Architecture(32, (1, 2), 1, 4)
    assert config.architecture.widths == (32, 64)
    assert config.space.clamp == 3.0
    assert asdict(config)["weights"] is None


def test_the_number_of_blocks_can_differ_between_levels() -> None:
    uneven = Architecture(64, (1, 2), (1, 3), 4)
    assert (uneven.blocks, uneven.num_res_blocks) == ((1, 3), (1, 3))
    assert Architecture(64, (1, 2), (2, 2), 4) == Architecture(64, (1, 2), 2, 4)


def test_every_fault_is_listed_at_once(tmp_path: Path) -> None:
    text = """
        name = 5
        sumary = "misspelt"
        kind = ["network"]
        [architecture]
        ch = "wide"
        ch_mult = [1, 2.5]
        num_res_blocks = true
        latent_channels = 16
        width = 3
        [space]
        channels = 16
        irreps = "16xzz"
        clamp = "eight"
        colour = "blue"
        """
    found = faults(text, tmp_path)
    assert sorted(found) == sorted(
        [
            "architecture.width: unknown key",
            "architecture.ch: expected int, found 'wide'",
            "architecture.ch_mult[1]: expected int, found 2.5",
            "architecture.num_res_blocks: expected int, found True",
            "space.colour: unknown key",
            "space.irreps: '16xzz' in '16xzz' is no irrep: expected a form such as 12xee or 2xoe",
            "space.clamp: expected float, found 'eight'",
            "sumary: unknown key",
            "name: expected str, found 5",
            "kind: expected str, found ['network']",
            "missing summary",
        ]
    )


HEAD = 'name = "x"\nsummary = "x"\nkind = "network"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (HEAD, "missing space"),
        (HEAD + "space = 5", "space: expected a table, found 5"),
        (HEAD + 'sha256 = ["0F"]\n[space]', "sha256: expected 64 hexadecimal digits, found '0F'"),
        (HEAD + "[space]\nirreps = 16", "space.irreps: expected str, found 16"),
        (HEAD + '[space]\nirreps = "15xee"', "15xee does not add up to 16 channels"),
        (
            HEAD + "[space]\n[architecture]\nch = 32",
            "architecture: missing ch_mult, num_res_blocks, latent_channels",
        ),
        (
            HEAD + "[space]\n[architecture]\nch = 48\nch_mult = [1, 2]\nnum_res_blocks = 1\n"
            "latent_channels = 16",
            "every width must be a multiple of 32 (norm groups): (48, 96)",
        ),
        (
            HEAD
            + "[space]\n[architecture]\nch = 64\nch_mult = [1, 2]\nnum_res_blocks = [1, 2, 2]\n"
            "latent_channels = 16",
            "architecture.num_res_blocks: expected one number, or 2 as in ch_mult, found 3",
        ),
        (
            HEAD
            + "[space]\n[architecture]\nch = 64\nch_mult = [1, 2]\nnum_res_blocks = [1, true]\n"
            "latent_channels = 16",
            "architecture.num_res_blocks[1]: expected int, found True",
        ),
    ],
)
def test_single_faults(text: str, fault: str, tmp_path: Path) -> None:
    (found,) = faults(text, tmp_path)
    assert fault in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = " + "[" * 99_999, "nested too deeply"),
        ("a = " + "{a = " * 99_999, "nested too deeply"),
        ("a = " + "1" * 5000, "digit"),
    ],
)
def test_toml_that_its_own_library_cannot_bear(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"cannot be read as TOML: .*{fault}"):
        read_config(path, ModelConfig)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[space]\nclamp = 0x" + "f" * 5000, "space.clamp: expected a finite number, found int of"),
        ("[space]\nclamp = inf", "space.clamp: expected a finite number, found inf"),
        ("[space]\nchannels = 0x" + "f" * 5000, "space.channels: expected a number of 64 bits"),
    ],
)
def test_numbers_beyond_all_measure(text: str, fault: str, tmp_path: Path) -> None:
    (found,) = faults(HEAD + text, tmp_path)
    assert found.startswith(fault)


def test_files_that_are_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load("name = ", tmp_path)
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        read_config(tmp_path / "absent.toml", ModelConfig)


@pytest.mark.parametrize(
    ("architecture", "fault"),
    [
        (Architecture(0, (1,), 1, 1), "must be positive"),
        (Architecture(64, (), 1, 1), "must be positive"),
        (Architecture(64, (1,), 0, 1), "must be positive"),
        (Architecture(16, (1, 4), 1, 1), "multiple of 32"),
        (Architecture(64, (1, 0), 1, 1), "multiple of 32"),
        (Architecture(32, (2, 3), 1, 1), "multiple of 64"),
    ],
)
def test_impossible_architectures(architecture: Architecture, fault: str) -> None:
    (found,) = architecture.faults
    assert fault in found
    assert AURA.faults == []


def shapes_of(a: Architecture, half: str) -> dict[str, tuple[int, ...]]:
    """The tensors of a checkpoint from which its sizes are read."""
    first, last = a.widths[0], a.widths[-1]
    levels, blocks = ("encoder.down", 0) if half == "encoder" else ("decoder.up", 1)
    shapes = {
        f"{levels}.{level}.block.{block}.conv1.weight": (width, width, 3, 3)
        for level, width in enumerate(a.widths)
        for block in range(a.blocks[level] + blocks)
    }
    if half == "encoder":
        shapes["encoder.conv_in.weight"] = (first, 3, 3, 3)
        shapes["encoder.conv_out.weight"] = (a.latent_channels, last, 3, 3)
    else:
        shapes["decoder.conv_in.weight"] = (last, a.latent_channels, 3, 3)
    return shapes


@pytest.mark.parametrize(
    "architecture",
    [AURA, Architecture(64, (1, 3), 1, 4), Architecture(64, (1, 2, 1), (1, 3, 2), 4)],
)
def test_sizes_are_read_off_a_checkpoint(architecture: Architecture) -> None:
    encoder, decoder = (shapes_of(architecture, half) for half in ("encoder", "decoder"))
    for shapes in (encoder, decoder, encoder | decoder):
        assert Architecture.from_shapes(shapes) == architecture


def test_foreign_checkpoints_have_no_architecture() -> None:
    whole = shapes_of(AURA, "encoder")
    assert Architecture.from_shapes({}) is None
    assert Architecture.from_shapes({"encoder.conv_in.weight": ()}) is None
    gap = {name: shape for name, shape in whole.items() if ".down.1." not in name}
    assert Architecture.from_shapes(gap) is None
    uneven = whole | {"encoder.down.1.block.0.conv1.weight": (500, 1, 3, 3)}
    assert (
        Architecture.from_shapes(uneven | {"encoder.down.1.block.1.conv1.weight": (500,)}) is None
    )


@pytest.mark.parametrize(
    ("channels", "irreps"),
    [(16, "12xee+2xoe+2xeo"), (5, "1xee+2xoe+2xeo"), (4, "4xee"), (1, "1xee")],
)
def test_the_conventional_representation(channels: int, irreps: str) -> None:
    assert str(conventional_irreps(channels)) == irreps
