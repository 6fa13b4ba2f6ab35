"""Old names of options and variables: taken with a notice, and nowhere in the help."""

from __future__ import annotations

import os

import pytest

from auravae_cli.cli.shared.renamed import OPTIONS, with_new_names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["encode", "a.png", "--store", "float32"], ["encode", "a.png", "--latent-dtype", "float32"]),
        (["encode", "a", "--store=float32"], ["encode", "a", "--latent-dtype=float32"]),
        (["encode", "d", "--engine", "ray"], ["encode", "d", "--runner", "ray"]),
        (["decode", "--from", "list"], ["decode", "--files-from", "list"]),
        (["import", "d", "--from", "npz", "--store", "x"], ["import", "d", "--from", "npz", "--latent-dtype", "x"]),
        (["encode", "a.png", "--symmetrize"], ["encode", "a.png", "--symmetrize=mean"]),
        (["encode", "--symmetrize", "a.png"], ["encode", "--symmetrize=mean", "a.png"]),
        (["encode", "--symmetrize", "canonical"], ["encode", "--symmetrize", "canonical"]),
        (["encode", "--symmetrize=none"], ["encode", "--symmetrize=none"]),
        (["eval", "a.png", "--symmetrize"], ["eval", "a.png", "--symmetrize"]),
        (["encode", "--", "--store"], ["encode", "--", "--store"]),
        (["encode", "--storey", "a--store"], ["encode", "--storey", "a--store"]),
    ],
)  # fmt: skip
def test_names_of_before_are_those_of_today(old, new, capsys):
    assert with_new_names(old) == new
    assert capsys.readouterr().err.count("note: ") == len(set(old) - set(new))


def test_a_run_with_an_old_option(auravae, work, picture):
    picture("a.png")
    result = auravae("encode", "a.png", "--store", "float32", "-o", "z.safetensors")
    assert result.code == 0
    assert "note: --store is --latent-dtype now" in result.err
    (row,) = auravae("info", "z.safetensors", "--json").rows
    assert row["dtype"] == "float32"


def test_an_old_variable_still_counts(auravae, work, picture, monkeypatch):
    picture("a.png")
    monkeypatch.setenv("AURAVAE_KERNELS", "")  # so that it is put back
    monkeypatch.delenv("AURAVAE_KERNELS")
    monkeypatch.setenv("AURAVAE_ENGINE", "plain")
    result = auravae("info", "a.png")
    assert "note: AURAVAE_ENGINE is AURAVAE_KERNELS now" in result.err
    assert os.environ["AURAVAE_KERNELS"] == "plain"


@pytest.mark.parametrize("command", ["encode", "decode", "import", "eval"])
def test_the_help_names_none_of_them(auravae, command):
    words = auravae(command, "--help").text.split()
    old = set(OPTIONS) - ({"--from"} if command == "import" else set())
    assert not old & set(words)
