"""train: a run from the command line, its messages, and going on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

RECIPE = """
name = "tiny"
precision = "float32"
checkpoint_every = 2
[architecture]
ch = 32
ch_mult = [1, 2]
num_res_blocks = 1
latent_channels = 8
[space]
channels = 8
downsampling_factor = 2
irreps = "6xee+1xoe+1xeo"
[data]
num_validation = 1
[[stages]]
steps = 3
crop_size = 16
batch_size = 1
"""


@pytest.fixture
def small_export(monkeypatch):
    """The latent's deviation measured on few small crops."""
    from auravae_cli.train import run

    monkeypatch.setattr(run, "PREVIEW_SIDE", 32)
    monkeypatch.setattr(run, "SCALE_COUNT", 2)


@pytest.fixture
def recipe(work, picture, small_export):
    """A tiny recipe in the current folder, beside a folder of pictures."""
    for number in range(3):
        picture(f"photos/{number}.png", 40, 48, 9 * number)
    path = work / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_a_run_leaves_a_model_that_encodes(auravae, recipe, tree, work):
    result = auravae("train", recipe, "-o", "run", "--data", "photos", "--device", "cpu")
    assert result.code == 0
    lines = result.text.splitlines()
    assert [line.split("held out")[0].strip() for line in lines] == ["step 2", "step 3"]
    assert all("PSNR" in line and "SSIM" in line for line in lines)
    assert "run/model.safetensors: tiny, 3 steps" in result.message
    assert set(tree(work / "run")) == {
        "checkpoint.pt",
        "log.jsonl",
        "preview.png",
        "model.safetensors",
    }
    encoded = auravae("encode", "photos/0.png", "--model", "run/model.safetensors", "--json")
    assert encoded.code == 0


def test_json_and_quiet(auravae, recipe):
    arguments = ("train", recipe, "-o", "run", "--data", "photos", "--device", "cpu")
    assert [set(row) for row in auravae(*arguments, "--json", "-q").rows] == [
        {"step", "psnr", "ssim", "tint"}
    ] * 2
    again = auravae(*arguments, "-q")  # it has ended: only its export is written again
    assert (again.code, again.text, again.err) == (0, "", "")


def test_an_interrupted_run_goes_on(auravae, recipe, tree, work, monkeypatch):
    from auravae_cli.train import run

    arguments = ("train", recipe, "--data", "photos", "--device", "cpu", "-o")
    assert auravae(*arguments, "whole").code == 0
    with monkeypatch.context() as patch:
        log = run._log
        patch.setattr(
            run, "_log", lambda *given: (log(*given), os.kill(os.getpid(), signal.SIGTERM))
        )
        stopped = auravae(*arguments, "run")
        assert stopped.code == 143 and "terminated: finished work is kept" in stopped.err
    assert set(tree(work / "run")) == {"checkpoint.pt", "log.jsonl"}
    result = auravae(*arguments, "run")
    assert result.code == 0
    assert [line[:6] for line in result.text.splitlines()] == ["step 2", "step 3"]
    whole, resumed = (tree(work / name)["model.safetensors"] for name in ("whole", "run"))
    assert whole == resumed


def test_a_signal_ends_the_start_and_the_export_at_once(recipe, program):
    """In a process of its own, since it ends without waiting for what computes."""
    command, environment = program
    script = (
        "import sys, threading, time\n"
        "from auravae_cli.cli.app import main\n"
        "from auravae_cli.train import run\n"
        "def hang(*_): print('hanging', flush=True); time.sleep(100)\n"
        "setattr(run, sys.argv.pop(1), hang)\n"
        "main()\n"
    )
    arguments = ["train", str(recipe), "--data", "photos", "--device", "cpu", "-o"]
    for place in ("start", "finish"):
        call = [command[0], "-c", script, place, *arguments, place]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(call, env=environment, **pipes) as process:
            while process.stdout.readline() != "hanging\n":
                pass
            process.send_signal(signal.SIGTERM)
            sent = time.monotonic()
            _, err = process.communicate(timeout=30)
        assert process.returncode == 143 and time.monotonic() - sent < 10
        assert err.endswith(
            "terminated: finished work is kept; the same command continues from there\n"
        )
    assert Path("finish/checkpoint.pt").exists()


def test_fewer_pictures_than_are_held_out_give_a_warning(auravae, recipe):
    text = Path(recipe).read_text().replace("num_validation = 1", "num_validation = 2")
    Path("held.toml").write_text(text)
    result = auravae("train", "held.toml", "-o", "run", "--data", "photos", "--device", "cpu")
    assert "warning: fewer pictures to train on than are held out" in result.err


def test_the_status_of_a_run(auravae, recipe, work):
    arguments = ("train", recipe, "-o", "run", "--data", "photos", "--device", "cpu", "-q")
    assert auravae(*arguments).code == 0
    with (work / "run" / "log.jsonl").open("a") as file:
        file.write('{"step": 2, "sec')  # as a kill leaves it
    lines = auravae("train", "run", "--status").text.splitlines()
    assert lines[0] == "step 3 of 3, 100.0%"
    assert lines[1].split() == ["pixels", "768", "of", "768"]
    assert [line.split()[-1] for line in lines if "held out" in line] == ["2", "3"]
    (row,) = auravae("train", "run", "--status", "--json").rows
    assert (row["step"], row["num_steps"], row["seconds_left"]) == (3, 3, 0)
    assert [held["step"] for held in row["validations"]] == [2, 3]


def test_the_status_of_what_is_no_run(auravae, recipe):
    result = auravae("train", "photos", "--status")
    assert result.code == 1
    assert "photos: no run of `auravae train`" in result.message


def test_another_recipe_in_the_same_folder(auravae, recipe):
    arguments = ("train", recipe, "-o", "run", "--data", "photos", "--device", "cpu")
    assert auravae(*arguments).code == 0
    recipe.write_text("seed = 7\n" + RECIPE.replace("steps = 3", "steps = 4"))
    result = auravae(*arguments)
    assert result.code == 1
    assert "run/checkpoint.pt: made with another recipe" in result.message
    assert "seed: 0 then, 7 now" in result.message
    assert "stages.0.steps: 3 then, 4 now" in result.message
    result = auravae(*arguments, "--new-recipe")
    assert result.code == 0
    assert "changed: stages.0.steps: 3 then, 4 now" in result.message
    assert "going on from step 3" in result.message
    assert "run/model.safetensors: tiny, 4 steps" in result.message


def test_a_damaged_checkpoint(auravae, recipe, work):
    (work / "run").mkdir()
    (work / "run" / "checkpoint.pt").write_text("<html>")
    result = auravae("train", recipe, "-o", "run", "--data", "photos", "--device", "cpu")
    assert result.code == 3
    assert "run/checkpoint.pt: damaged checkpoint" in result.message
    assert (work / "run" / "checkpoint.pt").read_text() == "<html>"


def test_a_bad_recipe_lists_its_faults(auravae, recipe, work):
    recipe.write_text("sead = 1\n" + RECIPE.replace("ch = 32", "ch = 48"))
    result = auravae("train", recipe, "-o", "run", "--data", "photos")
    assert result.code == 1
    assert "sead: unknown key" in result.message
    assert "every width must be a multiple of 32" in result.message
    assert not (work / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["absent.toml", "-o", "run"],
            1,
            "absent.toml: no such file: expected a recipe in TOML, or one of small",
        ),
        (["tiny.toml", "-o", "run"], 1, "no source"),
        (["tiny.toml", "-o", "run", "--data", "absent"], 1, "absent: expected a folder or a tar"),
        (["tiny.toml", "-o", "tiny.toml", "--data", "photos"], 1, "tiny.toml"),
        (["tiny.toml"], 2, "--output"),
        (["tiny.toml", "-o", "run", "--workers", "0"], 2, "--workers"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_run(auravae, recipe, arguments, code, message):
    result = auravae("train", *arguments)
    assert result.code == code
    assert message in result.message


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named_as_encode_names_it(auravae, recipe, work, device):
    result = auravae("train", recipe, "-o", "run", "--data", "photos", "--device", device)
    encode = auravae("encode", "photos", "-o", "out", "--model", "small", "--device", device)
    assert result.code == encode.code == 3
    assert result.message == encode.message
    assert result.message.startswith(f"error: device '{device}' is not available")
    assert not (work / "run").exists()


def test_weights_of_lpips_that_are_not_there(auravae, recipe):
    recipe.write_text(RECIPE + "losses = { lpips = 1.0 }\n")
    result = auravae("train", recipe, "-o", "run", "--data", "photos", "--lpips", "absent")
    assert result.code == 3
    assert "absent: cannot be read as LPIPS weights" in result.message
