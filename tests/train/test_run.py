"""A run in a folder: its files, its export, and how it goes on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from auravae_cli.errors import ComputeError, ConfigError, OutputError, WeightsError
from auravae_cli.machine.progress import Phase
from auravae_cli.model.checkpoints.read import read_checkpoint as read_weights
from auravae_cli.model.codec import load_codec
from auravae_cli.model.network.tied import assign, load_whole_state, whole_state
from auravae_cli.model.spec.config import Architecture
from auravae_cli.symmetry.group import GROUP
from auravae_cli.train import loop, losses, run
from auravae_cli.train.checkpoint import read_run
from auravae_cli.train.loop import StepRecord, initial_state
from auravae_cli.train.pictures import make_batch, read_pictures
from auravae_cli.train.processes import Processes
from auravae_cli.train.recipe import Data, LossWeights, Stage
from auravae_cli.train.run import Opening, run_training
from auravae_cli.train.status import Validation
from auravae_cli.train.write_model import centre_colours, model_card, unit_deviation, write_weights

pytestmark = pytest.mark.xdist_group("train run")

CPU = torch.device("cpu")
SIDE, COUNT = 32, 4


@pytest.fixture(autouse=True, scope="module")
def small_export():
    """Previews and the measurement of the latent's deviation on few small crops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "PREVIEW_SIDE", SIDE)
        patch.setattr(run, "SCALE_COUNT", COUNT)
        yield


def events_of(recipe, folder):
    events = run_training(recipe, folder, CPU, Processes())
    return [event for event in events if not isinstance(event, Phase)]


def state_in(folder, recipe):
    state = initial_state(recipe, CPU)
    read_run(folder / "checkpoint.pt", state, recipe)
    return state


@pytest.fixture(scope="module")
def recipe(make_recipe):
    return make_recipe(steps=5, checkpoint_every=3, kind="muon", rate=1e-2)


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    """The folder of an undisturbed run, and its events."""
    folder = tmp_path_factory.mktemp("run") / "new" / "folder"
    return folder, events_of(recipe, folder)


@pytest.fixture(scope="module")
def codec(finished):
    return load_codec(str(finished[0] / "model.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def card(finished):
    with safe_open(finished[0] / "model.safetensors", framework="pt") as file:
        return json.loads(file.metadata()["auravae"])


@pytest.fixture(scope="module")
def scaling_images(recipe, pictures):
    """The crops that the latent's deviation was measured on."""
    stage, data = Stage(1, recipe.stages[-1].crop_size, COUNT), replace(recipe.data, drawn=0.0)
    crops = replace(recipe, stages=(stage,), data=data)
    return run.to_unit_batch(make_batch(pictures.training, crops, 0))


# What a run leaves


def test_events_and_files(finished):
    folder, events = finished
    kinds = [
        (type(event), event.step + isinstance(event, StepRecord)) for event in events
    ]  # a record's step counts from 0
    assert kinds == [
        (Opening, 0),
        *((StepRecord, step) for step in (1, 2, 3)),
        (Validation, 3),
        *((StepRecord, step) for step in (4, 5)),
        (Validation, 5),
    ]
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt",
        "log.jsonl",
        "preview.png",
        "model.safetensors",
    }


def test_the_log_has_steps_and_validations(finished):
    folder, events = finished
    opening, first, *validations = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    assert opening["opening"]["unreadable"] == []
    assert first["step"] == 0
    assert first["losses"] == events[1].losses
    assert [row["validation"]["step"] for row in validations] == [3, 5]
    assert validations[-1]["validation"]["psnr"] == events[-1].psnr


def test_the_preview_shows_the_held_out_pictures(finished):
    with Image.open(finished[0] / "preview.png") as image:
        assert image.width > 4 * SIDE
        assert len(image.getcolors(1 << 20)) > 100


def test_the_validation_is_that_of_the_averaged_network(finished, recipe, pictures):
    state = state_in(finished[0], recipe)
    centre_colours(state.ema, run._crops(recipe, pictures, state))
    errors, differences = [], []
    for picture in pictures.validation:
        top, left = ((side - SIDE) // 2 for side in picture.shape[:2])
        pixels = picture[top : top + SIDE, left : left + SIDE]
        with torch.no_grad():
            batch = run.to_unit_batch(pixels.transpose(2, 0, 1)[None].copy())
            found = state.ema(batch)[0][0].clamp(-1, 1).permute(1, 2, 0)
        difference = torch.round((found + 1) * 127.5) - torch.from_numpy(pixels.copy())
        differences.append(difference.mean((0, 1)))
        errors.append(20 * np.log10(255) - 10 * np.log10(float(difference.square().mean())))
    assert finished[1][-1].psnr == pytest.approx(np.mean(errors), abs=0.02)
    tint = float(torch.stack(differences).mean(0).abs().max())
    assert finished[1][-1].tint == pytest.approx(tint, abs=0.02)


# The export


def test_exported_latents_have_unit_deviation(codec, scaling_images):
    latents = codec.autoencoder.encode(scaling_images).transpose(0, 1).flatten(1)
    for channel, parity in zip(latents, codec.space.irreps.parities, strict=True):
        mean = channel.mean() if parity == "ee" else 0  # over a picture and its flips
        assert float((channel - mean).square().mean().sqrt()) == pytest.approx(1, abs=1e-2)


@torch.no_grad()
def test_the_export_reconstructs_like_the_averaged_network(codec, finished, recipe, scaling_images):
    ema = state_in(finished[0], recipe).ema
    centre_colours(ema, scaling_images)
    expected = ema.decoder(ema.encoder(scaling_images))
    found = codec.decode(codec.autoencoder.encode(scaling_images))
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()


def test_the_export_has_no_tint(codec, scaling_images):
    found = codec.decode(codec.autoencoder.encode(scaling_images)).clamp(-1, 1)
    tint = (found - scaling_images).mean((0, 2, 3)) * 127.5
    assert float(tint.abs().max()) < 0.1


@pytest.mark.parametrize("equivariance", ["exact", "learned"])
def test_centring_tells_what_it_took_away(make_recipe, equivariance):
    autoencoder = initial_state(make_recipe(equivariance=equivariance), CPU).autoencoder
    images = torch.rand(3, 3, 16, 16)
    centre_colours(autoencoder, images)
    before = autoencoder.decoder.conv_out.bias.detach().clone()
    assign(autoencoder.decoder.conv_out, "bias", before + torch.tensor([0.1, 0.0, -0.2]))
    found = centre_colours(autoencoder, images)
    assert found == pytest.approx((0.1, 0, -0.2), abs=0.02)
    torch.testing.assert_close(
        autoencoder.decoder.conv_out.bias.detach(), before, atol=0.01, rtol=0
    )


def test_the_export_is_exactly_equivariant(codec, scaling_images):
    latents = codec.encode(scaling_images)
    for g in GROUP:
        signs = torch.tensor(codec.space.irreps.signs(g)).view(-1, 1, 1)
        flipped = codec.encode(scaling_images.flip(g.axes))
        torch.testing.assert_close(flipped, latents.flip(g.axes) * signs, rtol=0, atol=1e-4)


def test_the_card_names_its_origin(card, finished, recipe, codec):
    _, events = finished
    assert (card["kind"], card["tied"], card["steps"]) == ("network", True, 5)
    assert card["recipe"]["name"] == "tiny"
    assert card["recipe"]["optimizer"]["kind"] == "muon"
    assert card["validation"] == {
        "step": 5,
        "psnr": events[-1].psnr,
        "ssim": events[-1].ssim,
        "tint": events[-1].tint,
    }
    assert (codec.space.irreps, codec.space.clamp) == (recipe.space.irreps, recipe.space.clamp)


def strings(value):
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def test_the_card_tells_no_paths(card, photos):
    assert card["recipe"]["data"]["sources"] == [photos.name]
    assert not any("/" in text for text in strings(card))


@pytest.mark.parametrize("field", ["start", "lpips_weights"])
def test_nor_does_it_where_weights_lay(recipe, field):
    card = model_card(replace(recipe, **{field: "/home/someone/w.safetensors"}), 1, {})
    assert card["recipe"][field] == "w.safetensors"


def test_a_learned_network_is_exported_too(make_recipe, tmp_path, pictures):
    recipe = make_recipe(equivariance="learned")
    state = initial_state(recipe, CPU)
    run.export(tmp_path / "w.safetensors", state, recipe, pictures, Validation(0, 1.0, 1.0))
    codec = load_codec(str(tmp_path / "w.safetensors"), device="cpu")
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    with torch.no_grad():
        expected = state.ema.decoder(state.ema.encoder(images))
    found = codec.decode(codec.autoencoder.encode(images))
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_a_dead_channel_is_exported_as_finite_weights(make_recipe, tmp_path, pictures):
    """A channel that never varies has no deviation to divide by."""
    recipe, path = make_recipe(equivariance="learned"), tmp_path / "w.safetensors"
    state = initial_state(recipe, CPU)
    with torch.no_grad():
        state.ema.encoder.conv_out.weight[0] = 0
    run.export(path, state, recipe, pictures, Validation(0, 1.0, 1.0))
    codec = load_codec(str(path), device="cpu")
    assert np.isfinite(codec.decode(codec.encode(np.zeros((1, 3, 8, 8), np.float32)))).all()


@torch.no_grad()
def test_unit_deviation_does_not_change_reconstructions(make_recipe):
    recipe = make_recipe()
    autoencoder = initial_state(recipe, CPU).autoencoder
    images = torch.rand(1, 3, 8, 8) * 2 - 1
    latents = autoencoder.encoder(images)
    before = autoencoder.decoder(latents)
    deviation = torch.linspace(0.3, 3, 8)
    load_whole_state(autoencoder, unit_deviation(whole_state(autoencoder), deviation))
    scaled = autoencoder.encoder(images)
    torch.testing.assert_close(scaled, latents / deviation.view(-1, 1, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(autoencoder.decoder(scaled), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_are_not_finite_as_stored_are_no_model(make_recipe, tmp_path, value):
    recipe, path = make_recipe(equivariance="learned"), tmp_path / "w.safetensors"
    weights = whole_state(initial_state(recipe, CPU).ema)
    weights["decoder.conv_in.bias"] = torch.full_like(weights["decoder.conv_in.bias"], value)
    with pytest.raises(ComputeError, match=r"w.safetensors is not written: decoder.conv_in.bias"):
        write_weights(path, weights, recipe, {})
    assert not path.exists()


def test_training_that_diverges_leaves_the_last_checkpoint_and_no_model(
    recipe, tmp_path, monkeypatch
):
    genuine = loop._average

    def average(state, decay):
        genuine(state, decay)
        if state.step == 3:
            next(state.ema.parameters()).fill_(torch.inf)

    monkeypatch.setattr(loop, "_average", torch.no_grad()(average))
    monkeypatch.setattr(run, "_validate", lambda folder, state, pictures: Validation(0, 1.0, 1.0))
    with pytest.raises(ComputeError, match="the weights are not finite: training has diverged"):
        events_of(replace(recipe, checkpoint_every=2), tmp_path / "run")
    assert not (tmp_path / "run/model.safetensors").exists()
    assert state_in(tmp_path / "run", replace(recipe, checkpoint_every=2)).step == 2


# Interruptions


def test_an_interrupted_run_goes_on_from_its_last_step(
    recipe, finished, tmp_path, content, differences
):
    folder = tmp_path / "run"
    events = run_training(recipe, folder, CPU, Processes())
    phases = [next(events).text for _ in range(2)]
    assert phases == ["reading the pictures", f"making the {recipe.start} start"]
    assert [next(events).step for _ in range(3)] == [0, 0, 1]
    events.close()
    assert state_in(folder, recipe).step == 2
    rest = events_of(recipe, folder)
    assert [event.step for event in rest if isinstance(event, StepRecord)] == [2, 3, 4]
    undisturbed, resumed = (state_in(place, recipe) for place in (finished[0], folder))
    assert differences(content(resumed), content(undisturbed)) == []
    whole, exported = (place / "model.safetensors" for place in (finished[0], folder))
    assert exported.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(
    ("where", "weights"),
    [((loop, "_average"), LossWeights()), ((losses, "generator_loss"), LossWeights(gan=0.5))],
    ids=["after the optimizers", "after the discriminator's step"],
)
def test_an_interrupt_in_the_middle_of_a_step_is_made_good(
    make_recipe, tmp_path, content, differences, monkeypatch, where, weights
):
    recipe = make_recipe(steps=2, losses=weights)
    events_of(recipe, tmp_path / "whole")
    original, calls = getattr(*where), []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(*where, interrupted)
    with pytest.raises(KeyboardInterrupt):
        events_of(recipe, tmp_path / "run")
    events_of(recipe, tmp_path / "run")
    whole, resumed = (state_in(tmp_path / name, recipe) for name in ("whole", "run"))
    assert differences(content(resumed), content(whole)) == []


def test_a_run_that_has_ended_only_exports_again(recipe, finished, tmp_path):
    path = finished[0] / "model.safetensors"
    before = path.read_bytes()
    path.unlink()
    opening, event = events_of(recipe, finished[0])
    assert opening.step == recipe.num_steps
    assert event == finished[1][-1]
    assert path.read_bytes() == before


# Starts


@pytest.mark.parametrize("others", [False, True], ids=["ours", "the reference's trainer's"])
def test_a_run_starts_from_the_weights_of_another(
    finished, make_recipe, pictures, tmp_path, others
):
    path = finished[0] / "model.safetensors"
    state = read_weights(path).state
    expected = {name: torch.from_numpy(array) for name, array in state.items()}
    if others:  # it compiles each half, inside a wrapper for several GPUs
        path = tmp_path / "others.safetensors"
        names = {name.replace("coder.", "coder._orig_mod.", 1): name for name in expected}
        save_file({f"module.{new}": expected[name] for new, name in names.items()}, path)
    recipe = make_recipe(start=str(path))
    state = initial_state(recipe, CPU)
    run.start(state, recipe, pictures)
    for module in (state.autoencoder, state.ema):
        found = whole_state(module)
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["checkpoint.pt", "before-the-decay.pt", "copy"])
def test_a_run_starts_from_the_checkpoint_of_another(
    finished, make_recipe, pictures, tmp_path, name
):
    copied = tmp_path / name
    copied.write_bytes((finished[0] / "checkpoint.pt").read_bytes())
    before = torch.load(copied, weights_only=True)
    recipe = make_recipe(kind="muon", start=str(copied))
    state = initial_state(recipe, CPU)
    run.start(state, recipe, pictures)
    for part in ("autoencoder", "ema"):
        torch.testing.assert_close(getattr(state, part).state_dict(), before[part], rtol=0, atol=0)
    assert state.optimizers[0].state_dict()["state"]  # goes on, too


@pytest.mark.parametrize("equivariance", ["exact", "learned"])
def test_a_start_from_weights_can_have_more_blocks(finished, make_recipe, pictures, equivariance):
    path = finished[0] / "model.safetensors"
    small, large = (
        make_recipe(
            start=str(path), equivariance=equivariance, architecture=Architecture(32, (1, 2), n, 8)
        )
        for n in (1, (1, 3))
    )
    states = [initial_state(recipe, CPU) for recipe in (small, large)]
    for state, recipe in zip(states, (small, large), strict=True):
        run.start(state, recipe, pictures)
    images = torch.rand(1, 3, 16, 16)
    before, after = (state.ema(images)[0] for state in states)
    torch.testing.assert_close(after, before)
    assert len(states[1].ema.state_dict()) > len(states[0].ema.state_dict())


@pytest.mark.parametrize("equivariance", ["exact", "learned"])
def test_weights_of_another_architecture_are_no_start(
    make_recipe, pictures, tmp_path, equivariance
):
    other = make_recipe(architecture=Architecture(32, (2, 2), 1, 8))
    path = tmp_path / "w.safetensors"
    weights = whole_state(initial_state(other, CPU).autoencoder)
    write_weights(path, weights, other, {})
    recipe = make_recipe(start=str(path), equivariance=equivariance)
    with pytest.raises(WeightsError, match=str(path)):
        run.start(initial_state(recipe, CPU), recipe, pictures)


def test_an_absent_start_is_no_start(make_recipe, pictures, tmp_path):
    recipe = make_recipe(start=str(tmp_path / "absent.safetensors"))
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        run.start(initial_state(recipe, CPU), recipe, pictures)


# What cannot be


def test_a_place_that_cannot_be_written(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        events_of(recipe, tmp_path / "file")


def test_a_batch_that_does_not_divide_among_the_processes(recipe, tmp_path):
    with pytest.raises(ConfigError, match=r"stages\[0\]\.batch_size: 2 .* 3 processes"):
        next(run_training(recipe, tmp_path, CPU, Processes(0, 3)))


def test_no_pictures_no_run(make_recipe, tmp_path):
    recipe = make_recipe(data=Data(sources=(str(tmp_path),)))
    with pytest.raises(ConfigError, match="0 readable pictures"):
        events_of(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_tiny_pictures_can_be_held_out(make_recipe, tmp_path):
    for number in range(3):
        Image.new("RGB", (7, 5 + number), (number, 9, 9)).save(tmp_path / f"{number}.png")
    recipe = make_recipe(steps=1, data=Data(sources=(str(tmp_path),), num_validation=2))
    assert read_pictures(recipe.data).validation
    assert np.isfinite(events_of(recipe, tmp_path / "run")[-1].psnr)
