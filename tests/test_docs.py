"""Help texts, the README, configs and samples say what they should."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from auravae_cli import load_codec
from auravae_cli.cli.app import app
from auravae_cli.errors import LatentFileError
from auravae_cli.exchange.formats.base import Choices, Foreign
from auravae_cli.files.toml_config import read_config
from auravae_cli.model.spec.config import ModelConfig
from auravae_cli.model.spec.registry import WEIGHTS_PATH, known_models
from scripts.make_cli_docs import cli_reference
from tests.test_rooms import ROOMS

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
SAMPLES = REPOSITORY / "samples"
CONFIGS = sorted((REPOSITORY / "configs" / "model").iterdir())


def commands(group, prefix=()):
    """Every command and group below ``group``, with the words that call it."""
    for name, command in group.commands.items():
        yield (*prefix, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*prefix, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_these():
    names = {" ".join(words) for words in COMMANDS}
    assert names == {
        *("encode", "decode", "flip", "roundtrip", "info", "show", "verify", "export", "import"),
        *("train", "eval", "serve", "doctor", "bench"),
        *("models", "models list", "models pull"),
    }


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_has_help(words):
    command = COMMANDS[words]
    assert command.help and command.help.strip().partition("\n")[0].endswith((".", ":"))
    for parameter in command.params:
        assert parameter.help, f"{' '.join(words)} {parameter.name} has no help"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_is_in_the_readme(words):
    assert re.search(rf"\bauravae {' '.join(words)}\b", README)


def test_the_reference_of_the_command_line_is_up_to_date():
    page = (REPOSITORY / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == cli_reference(), "run: python scripts/make_cli_docs.py"
    for words, command in COMMANDS.items():
        if not hasattr(command, "commands"):
            assert f"## `auravae {' '.join(words)}`\n" in page


def test_the_readme_names_no_option_that_does_not_exist():
    known = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    ours = re.findall(r"^auravae .*|`--[a-z-]+|\(`[a-z]* ?--.*?`", README, re.MULTILINE)
    named = {option for text in ours for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)}
    assert len(named) >= 8
    assert named <= known | {"--help", "--version"}


def test_the_table_of_formats_says_what_the_registry_says():
    from auravae_cli.exchange.registry import FORMATS

    page = (REPOSITORY / "docs" / "exchange.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert list(rows) == list(FORMATS)
    for name, form in FORMATS.items():
        assert f"`{form.flipped}`" in rows[name] or not re.fullmatch(r"\w+", form.flipped), name
        assert bool(form.flipped) != ("| none |" in rows[name]), name
        assert bool(form.note) == ("lost" not in rows[name]), name


def test_the_readme_has_no_gaps():
    assert re.findall(r"@[A-Z_]+@", README) == []


def test_the_readme_lists_every_link_that_exists():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (REPOSITORY / link).exists(), link


@pytest.mark.parametrize("page", sorted((REPOSITORY / "docs").glob("*.md")), ids=lambda p: p.name)
def test_pages_name_options_and_links_that_exist(page):
    text = page.read_text(encoding="utf-8")
    options = {
        option
        for command in COMMANDS.values()
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    for line in re.findall(r"^auravae .*", text, re.MULTILINE):
        used = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line.partition("#")[0])
        assert set(used) <= options, line
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_config_loads(path):
    assert path.suffix == ".toml"
    config = read_config(path, ModelConfig)
    assert config.name == path.stem
    assert config.summary
    assert known_models()[config.name] == config
    if config.weights:
        assert (WEIGHTS_PATH / config.weights).is_file()


@pytest.mark.parametrize("name", ["small", "linear", "aura"])
def test_models_are_in_the_readme(name):
    assert f"| `{name}` |" in README


def test_samples_are_listed_and_small():
    table = (SAMPLES / "SOURCES.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(.+?)` \|.*\| (.+?) \|$", table, re.MULTILINE))
    files = {path.name: path for path in SAMPLES.iterdir() if path.name != "SOURCES.md"}
    assert set(listed) == set(files)
    for name, path in files.items():
        with Image.open(path) as image:
            assert listed[name].startswith(f"{image.width} x {image.height}"), name
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 1_000_000


@pytest.mark.parametrize("row", ["Author", "Licence"])
def test_samples_have_an_author_and_a_licence(row):
    lines = (SAMPLES / "SOURCES.md").read_text(encoding="utf-8").splitlines()
    header, _, *rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    (column,) = (i for i, title in enumerate(header) if title.startswith(row))
    assert rows
    assert all(cells[column].strip() for cells in rows)


def test_the_architecture_names_every_room_and_no_other():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.partition("| room |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", table, re.MULTILINE)
    rooms = [name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    package = REPOSITORY / "auravae_cli"
    folders = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if any(path.glob("*.py"))
    }
    assert set(rooms) == folders | {"errors", "version", "defaults", "flip_hook"}
    assert [room.replace("/", ".") for room in rooms] == [r for r in ROOMS if "__" not in r]


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_paths_in_pages_for_contributors_are_there(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8").partition("## A format in one file")[0]
    names = re.findall(r"`((?:auravae_cli|tests|scripts|benchmarks|configs)?[\w/]*/[\w/.]+)`", text)
    assert names
    for name in names:
        if "NAME" in name:
            continue
        places = [REPOSITORY / name, REPOSITORY / "auravae_cli" / name]
        assert any(place.exists() or place.with_suffix(".py").exists() for place in places), name


def test_the_format_of_the_architecture_page_works(tmp_path):
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    namespace: dict[str, object] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], namespace)
    form = namespace["FORMAT"]
    latent = load_codec("linear").encode_image(
        np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    )
    (exported,) = form.write(latent, ["a"], 0, Choices())
    content = b"".join(exported.pieces())
    (found,) = form.read(Foreign(content, str(tmp_path), exported.name))
    assert np.array_equal(found.values, latent.values.astype(np.float32))
    with pytest.raises(LatentFileError, match="no latent as text"):
        list(form.read(Foreign(b"1 2\nx", "", "a.txt")))
