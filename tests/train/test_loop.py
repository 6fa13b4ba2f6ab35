"""The loop: resumable bit for bit, exactly equivariant throughout, and downhill."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from auravae_cli.errors import ComputeError, ConfigError, WeightsError
from auravae_cli.model.checkpoints.ties import PIXELS
from auravae_cli.model.network.tied import load_whole_state, whole_state
from auravae_cli.model.spec.config import Architecture
from auravae_cli.symmetry.group import GROUP, HV, GroupElement, H, Irreps, V
from auravae_cli.train import checkpoint, loop, losses
from auravae_cli.train.checkpoint import continue_from, read_run, write_checkpoint
from auravae_cli.train.pictures import Pictures
from auravae_cli.train.recipe import Data, LossWeights, Noise, Optimizer
from auravae_cli.train.trainable import flip_each

CPU = torch.device("cpu")
GAN = LossWeights(gan=0.5)
SILENT = Noise(level=0.0)
VARIANTS = {
    "exact, muon": {"kind": "muon", "reencoded": 0.5},
    "exact, adamw, bfloat16": {"kind": "adamw", "precision": "bfloat16"},
    "learned, adamw, bfloat16": {"equivariance": "learned", "precision": "bfloat16"},
    "exact, muon, adversarial": {"kind": "muon", "losses": GAN},
}


@pytest.fixture
def restore(tmp_path):
    """A state read back from a checkpoint, into networks that started elsewhere."""

    def through(state, recipe):
        path = tmp_path / "checkpoint.pt"
        write_checkpoint(path, state, recipe)
        fresh = loop.initial_state(recipe, CPU)
        with torch.no_grad():
            for parameter in fresh.autoencoder.parameters():
                parameter.add_(1)
        read_run(path, fresh, recipe)
        return fresh

    return through


@torch.no_grad()
def deviation(autoencoder):
    """How far reconstructions are from equivariant, relative to their size."""
    images = torch.rand(1, 3, 8, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole, _ = autoencoder(images)
    return max(
        float((autoencoder(images.flip(g.axes))[0] - whole.flip(g.axes)).norm() / whole.norm())
        for g in (H, V, HV)
    )


# Going on from a checkpoint


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(
    make_recipe, advance, restore, content, differences, variant
):
    recipe = make_recipe(steps=4, **VARIANTS[variant])
    undisturbed, records = advance(recipe)
    half, first = advance(recipe, 2)
    resumed, rest = advance(recipe, state=restore(half, recipe))
    assert differences(content(resumed), content(undisturbed)) == []
    assert [record.step for record in records] == list(range(4))
    for found, expected in zip(first + rest, records, strict=True):
        assert replace(found, seconds=0) == replace(expected, seconds=0)


def test_the_check_would_notice(make_recipe, advance, content, differences):
    found = content(advance(make_recipe(), 1)[0])
    expected = content(advance(make_recipe(seed=1), 1)[0])
    assert len(differences(found, expected)) > 100


def test_a_checkpoint_of_another_recipe_lists_what_differs(make_recipe, tmp_path):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    state = loop.initial_state(recipe, CPU)
    write_checkpoint(path, state, recipe)
    other = make_recipe(seed=3, rate=0.5, losses=LossWeights(l1=7))
    with pytest.raises(ConfigError) as caught:
        read_run(path, state, other)
    title, *lines = str(caught.value).splitlines()
    assert title.startswith(f"{path}: made with another recipe")
    assert lines == [
        "  optimizer.learning_rate: 0.002 then, 0.5 now",
        "  seed: 0 then, 3 now",
        "  stages.0.losses.l1: 1.0 then, 7 now",
    ]


def test_a_new_recipe_goes_on_where_that_is_said(
    make_recipe, advance, content, differences, tmp_path
):
    old, path = make_recipe(kind="muon"), tmp_path / "checkpoint.pt"
    state, _ = advance(old, 2)
    write_checkpoint(path, state, old)
    settings = Optimizer("muon", 0.5, warmup_steps=2, adamw_rate=0.1, beta2=0.7, weight_decay=0.25)
    new = make_recipe(losses=GAN, optimizer=settings, steps=9)
    found = loop.initial_state(new, CPU)
    with pytest.raises(ConfigError, match="another recipe"):
        read_run(path, found, new)
    changes = read_run(path, found, new, is_new_recipe=True)
    assert "optimizer.adamw_rate: 1.0 then, 0.1 now" in changes
    assert "stages.0.steps: 4 then, 9 now" in changes
    assert found.step == 2
    kept = {n: v for n, v in content(found).items() if not n.startswith(".discriminator")}
    before = {n: v for n, v in content(state).items() if n in kept}
    assert all(
        any(option in name for option in ("betas", "weight_decay", "share_of_rate"))
        for name in differences({n: kept[n] for n in before}, before)
    )
    matrices, vectors = found.optimizers[0].param_groups
    assert (matrices["betas"], matrices["weight_decay"]) == ((0.9, 0.7), 0.25)
    assert vectors["share_of_rate"] == 0.1
    _, (record,) = advance(new, 1, found)
    assert (record.step, record.losses.keys() >= {"gan"}) == (2, True)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "muon"},
        {"equivariance": "learned"},
        {"architecture": Architecture(64, (1, 2), 1, 8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_recipe_changes_the_network_of_a_run(make_recipe, tmp_path, change):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    write_checkpoint(path, loop.initial_state(recipe, CPU), recipe)
    other = make_recipe(seed=1, **change)
    with pytest.raises(ConfigError, match="continues with its network") as caught:
        read_run(path, loop.initial_state(other, CPU), other, is_new_recipe=True)
    assert "seed" not in str(caught.value)


def test_a_checkpoint_from_before_a_field_has_its_default(make_recipe, tmp_path, monkeypatch):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    state = loop.initial_state(recipe, CPU)
    young = ("lpips_share", "optimizer.adamw_rate", "stages.0.losses.chroma")
    with monkeypatch.context() as patch:
        whole = checkpoint.facts
        patch.setattr(
            checkpoint, "facts", lambda r: {k: v for k, v in whole(r).items() if k not in young}
        )
        write_checkpoint(path, state, recipe)
    assert read_run(path, state, recipe) == ()
    changed = replace(recipe, lpips_share=0.5)
    assert read_run(path, state, changed, is_new_recipe=True) == ("lpips_share: 1.0 then, 0.5 now",)


def test_what_may_change_between_the_parts_of_a_run(make_recipe, tmp_path):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    state = loop.initial_state(recipe, CPU)
    write_checkpoint(path, state, recipe)
    data = replace(recipe.data, sources=("elsewhere",))
    read_run(path, state, replace(recipe, data=data, checkpoint_every=7, lpips_weights="x"))


def test_another_run_goes_on_with_weights_and_optimizers(
    make_recipe, advance, content, differences, tmp_path
):
    path = tmp_path / "checkpoint.pt"
    first, _ = advance(make_recipe(kind="muon"), 2)
    write_checkpoint(path, first, make_recipe(kind="muon"))
    longer = make_recipe(kind="muon", steps=9, rate=1e-3)
    second = loop.initial_state(longer, CPU)
    continue_from(path, second)
    assert second.step == 0
    assert set(differences(content(second), content(first))) <= {".step"}
    wider = make_recipe(kind="muon", architecture=Architecture(64, (1, 2), 1, 8))
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        continue_from(path, loop.initial_state(wider, CPU))


def test_a_network_goes_on_with_more_blocks(make_recipe, advance, tmp_path):
    path, images = tmp_path / "checkpoint.pt", torch.rand(1, 3, 16, 16)
    small = make_recipe(kind="muon")
    first, _ = advance(small, 2)
    write_checkpoint(path, first, small)
    sizes = Architecture(32, (1, 2), (1, 3), 8)
    larger = make_recipe(kind="muon", architecture=sizes, start=str(path))
    second = loop.initial_state(larger, CPU)
    continue_from(path, second)
    for name in ("autoencoder", "ema"):
        before, after = getattr(first, name), getattr(second, name)
        assert len(after.state_dict()) > len(before.state_dict())
        # Added blocks change nothing.
        torch.testing.assert_close(after(images)[0], before(images)[0])
    start = {name: p.clone() for name, p in second.autoencoder.named_parameters()}
    advance(larger, 2, second)
    assert [n for n, p in second.autoencoder.named_parameters() if p.equal(start[n])] == []
    with pytest.raises(WeightsError, match="damaged checkpoint"):  # blocks are not taken away
        write_checkpoint(path, second, larger)
        continue_from(path, loop.initial_state(small, CPU))


@pytest.mark.parametrize("broken", [None, [], {1: 2}])
def test_a_damaged_checkpoint_is_no_start(make_recipe, tmp_path, broken):
    path, recipe = tmp_path / "checkpoint.pt", make_recipe()
    write_checkpoint(path, loop.initial_state(recipe, CPU), recipe)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "autoencoder": broken}, path)
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        continue_from(path, loop.initial_state(recipe, CPU))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_parts_of_latents_are_decoded_on_a_share_of_the_steps(make_recipe, advance, precision):
    recipe = make_recipe(steps=12, crop=32, latent_crops=0.5, precision=precision)
    draw = [loop._draws(recipe, step, 0, torch.zeros(2, 3, 32, 32))[2] for step in range(12)]
    windows = [window for window in draw if window is not None]
    assert 0 < len(windows) < 12
    assert {(window.height, window.width) for window in windows} == {(8, 8)}
    assert all(0 <= window.top <= 8 and 0 <= window.left <= 8 for window in windows)
    _, records = advance(recipe, 4)
    assert all(math.isfinite(record.psnr) for record in records)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pictures_are_encoded_and_decoded_first_on_a_share_of_the_steps(
    make_recipe, advance, monkeypatch, share
):
    seen, update = [], loop._update

    def spied(state, model, recipe, images, *others):
        seen.append(images)
        return update(state, model, recipe, images, *others)

    monkeypatch.setattr(loop, "_update", spied)
    recipe = make_recipe(steps=12, kind="muon")
    advance(recipe)
    originals, seen = seen, []
    advance(replace(recipe, reencoded=share))
    changed = [not torch.equal(a, b) for a, b in zip(originals, seen, strict=True)]
    assert {0.0: [0], 0.5: range(2, 11), 1.0: [12]}[share].count(sum(changed)) == 1
    levels = (torch.cat(seen) + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3 and levels.min() > -1e-3


def test_a_damaged_checkpoint_is_refused(make_recipe, tmp_path):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    state = loop.initial_state(recipe, CPU)
    write_checkpoint(path, state, recipe)
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"\0" * 64):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match="damaged checkpoint"):
            read_run(path, state, recipe)


@pytest.mark.parametrize("part", ["recipe", "step", "ema", "optimizers"])
def test_a_checkpoint_that_lacks_a_part_is_refused(make_recipe, tmp_path, part):
    recipe, path = make_recipe(), tmp_path / "checkpoint.pt"
    state = loop.initial_state(recipe, CPU)
    write_checkpoint(path, state, recipe)
    content = torch.load(path, weights_only=True)
    del content[part]
    torch.save(content, path)
    with pytest.raises(WeightsError, match="damaged checkpoint"):
        read_run(path, state, recipe)


# Learning


@pytest.fixture(scope="module")
def one_picture():
    """One small picture that every crop is the whole of."""
    rows, columns = np.mgrid[:16, :16]
    pixels = np.stack([rows * 16, columns * 16, 255 * (rows > columns)], -1).astype(np.uint8)
    return Pictures((pixels,), (pixels,), ())


def test_the_loss_falls_and_the_network_stays_exactly_equivariant(
    make_recipe, advance, one_picture
):
    data = Data(drawn=0.0, reduced=0.0)
    recipe = make_recipe(steps=30, batch=1, kind="muon", data=data, noise=SILENT)
    state, records = advance(recipe, on=one_picture)
    assert records[-1].psnr > records[0].psnr + 3
    assert records[-1].losses["l1"] < 0.7 * records[0].losses["l1"]
    assert max(deviation(state.autoencoder), deviation(state.ema)) < 1e-5


def test_a_learned_network_is_not_exactly_equivariant(make_recipe, advance):
    state, _ = advance(make_recipe(equivariance="learned"), 1)
    assert deviation(state.autoencoder) > 1e-2


def test_records_say_what_a_step_did(make_recipe, advance):
    recipe = make_recipe(steps=3, losses=LossWeights(mse=0, high_frequency=0, gan=0.1))
    for step, record in enumerate(advance(recipe)[1]):
        assert record.step == step
        assert record.losses.keys() == {"mse", "l1", "anchor", "gan"}
        assert record.psnr == pytest.approx(10 * math.log10(4 / record.losses["mse"]))
        assert record.gradient_norm > 0
        assert record.seconds > 0


def test_the_averaged_weights_move_fast_at_first(make_recipe, advance):
    recipe = make_recipe()
    before = [p.clone() for p in loop.initial_state(recipe, CPU).ema.parameters()]
    state, _ = advance(recipe, 1)
    pairs = zip(before, state.autoencoder.parameters(), state.ema.parameters(), strict=True)
    for old, trained, averaged in pairs:
        torch.testing.assert_close(averaged, 0.1 * old + 0.9 * trained)


# Flips and noise


def test_each_sample_is_flipped_by_its_own_element():
    irreps = Irreps.parse("1xee+1xoe+1xeo+1xoo")
    batch = torch.randn(4, 4, 3, 5)
    flips = torch.tensor([[g.horizontal for g in GROUP], [g.vertical for g in GROUP]])
    found = flip_each(batch, flips, irreps)
    for sample, flipped, g in zip(batch, found, GROUP, strict=True):
        signs = torch.tensor(irreps.signs(g)).view(-1, 1, 1)
        assert torch.equal(flipped, sample.flip(g.axes) * signs)
    assert torch.equal(flip_each(found, flips, irreps), batch)


@torch.no_grad()
def test_flipping_a_latent_flips_the_reconstruction_of_an_exact_network(make_recipe):
    autoencoder = loop.initial_state(make_recipe(), CPU).autoencoder
    images = torch.rand(4, 3, 8, 8) * 2 - 1
    flips = torch.tensor([[g.horizontal for g in GROUP], [g.vertical for g in GROUP]])
    expected = flip_each(autoencoder(images)[0], flips, PIXELS)
    torch.testing.assert_close(autoencoder(images, None, flips)[0], expected)
    assert not torch.allclose(autoencoder(images)[0], expected, atol=1e-2)


def test_learned_training_flips_latent_and_target_alike(make_recipe, advance):
    """With weights that are exactly equivariant, it therefore costs nothing."""
    exact, learned = (
        make_recipe(equivariance=kind, batch=8, noise=SILENT) for kind in ("exact", "learned")
    )
    state = loop.initial_state(learned, CPU)
    load_whole_state(state.autoencoder, whole_state(loop.initial_state(exact, CPU).autoencoder))
    images = torch.zeros(8, 3, 16, 16)
    assert loop._draws(learned, 0, 0, images)[1].float().mean() not in (0, 1)
    _, (found,) = advance(learned, 1, state)
    _, (expected,) = advance(exact, 1)
    assert found.losses == pytest.approx(expected.losses, rel=1e-4)


def test_latents_of_one_colour_become_uniform(make_recipe, advance):
    weights = LossWeights(anchor=0.0, uniform=100.0)
    recipe = make_recipe(
        steps=30, losses=weights, data=Data(drawn=0.0, flat=1.0), noise=SILENT, kind="muon"
    )
    _, records = advance(recipe)
    first, last = ([r.losses["uniform"] for r in part] for part in (records[:5], records[-5:]))
    assert 0 < sum(last) < 0.5 * sum(first)


def test_flips_are_drawn_for_learned_networks_alone(make_recipe):
    images = torch.zeros(400, 3, 16, 16)
    assert loop._draws(make_recipe(), 0, 0, images)[1] is None
    flips = loop._draws(make_recipe(equivariance="learned"), 0, 0, images)[1]
    elements = [GroupElement(*map(bool, pair)) for pair in flips.T.tolist()]
    assert all(70 < elements.count(g) < 130 for g in GROUP)


def test_noise_is_multiplied_on_a_share_of_the_samples(make_recipe):
    recipe = make_recipe(noise=Noise(level=0.2, share=0.7))
    factors, *_ = loop._draws(recipe, 5, 0, torch.zeros(400, 3, 16, 24))
    assert factors.shape == (400, 8, 8, 12)
    is_clean = (factors == 1).all(3).all(2).all(1)
    assert 0.3 - 0.08 < is_clean.float().mean() < 0.3 + 0.08
    noisy = factors[~is_clean]
    assert (noisy != 1).float().mean() > 0.99
    assert float(noisy.mean()) == pytest.approx(1, abs=0.005)
    assert float(noisy.std()) == pytest.approx(0.2, abs=0.005)


def test_draws_depend_on_seed_step_and_process_alone(make_recipe):
    images = torch.zeros(4, 3, 16, 16)
    first = loop._draws(make_recipe(), 5, 0, images)[0]
    torch.rand(3)
    assert torch.equal(first, loop._draws(make_recipe(), 5, 0, images)[0])
    others = [(make_recipe(), 6, 0), (make_recipe(), 5, 1), (make_recipe(seed=1), 5, 0)]
    for recipe, step, rank in others:
        assert not torch.equal(first, loop._draws(recipe, step, rank, images)[0])


@pytest.mark.parametrize("noise", [Noise(level=0.0), Noise(share=0.0)])
def test_no_noise_costs_nothing(make_recipe, noise):
    assert loop._draws(make_recipe(noise=noise), 0, 0, torch.zeros(2, 3, 16, 16)) == (
        None,
        None,
        None,
    )


# The discriminator


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_generator_is_judged_by_the_discriminator_just_trained(make_recipe, precision):
    recipe = make_recipe(losses=GAN, precision=precision, discriminator_learning_rate=1e-2)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        real_loss = losses.generator_loss
        patch.setattr(losses, "generator_loss", lambda *a: seen.append(a) or real_loss(*a))
        with torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
            state = loop.initial_state(recipe, CPU)
            fake, real = torch.rand(2, 2, 3, 16, 16).unbind()
            loop._adversarial_loss(state, recipe, fake, real, loop.Processes())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, precision == "bfloat16"):
        expected = (state.discriminator(real), state.discriminator(fake))
    ((judged_real, judged_fake),) = seen
    torch.testing.assert_close(judged_real.detach(), expected[0])
    torch.testing.assert_close(judged_fake.detach(), expected[1])


def test_the_discriminator_is_trained_only_where_it_is_a_loss(make_recipe, advance):
    assert loop.initial_state(make_recipe(), CPU).discriminator is None
    recipe = make_recipe(losses=GAN)
    before = loop.initial_state(recipe, CPU).discriminator.state_dict()
    after = advance(recipe, 1)[0].discriminator.state_dict()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 5


# Gradients that are not finite


@pytest.fixture
def spoilt(make_recipe, advance, content, monkeypatch):
    """The content before and after a step whose gradient is NaN."""
    recipe = make_recipe(optimizer=Optimizer(warmup_steps=0))
    state, _ = advance(recipe, 1)
    before = content(state)
    real_sum = losses.weighted_sum
    monkeypatch.setattr(losses, "weighted_sum", lambda *a: real_sum(*a) * math.nan)
    _, (record,) = advance(recipe, 1, state)
    assert not math.isfinite(record.gradient_norm)
    assert state.step == 2
    after = content(state)
    assert after.pop(".step") == before.pop(".step") + 1
    return before, after


def test_a_step_with_a_bad_gradient_changes_no_weight_and_no_momentum(spoilt, differences):
    changed = differences(*spoilt)
    assert [name for name in changed if not name.startswith(".ema.") and name[-3:] != ".lr"] == []


def test_a_step_with_a_bad_gradient_does_not_move_the_average(spoilt, differences):
    assert [name for name in differences(*spoilt) if name.startswith(".ema.")] == []


@pytest.mark.parametrize("value", [1e30, math.nan])
def test_a_network_that_overflows_is_a_skipped_step(make_recipe, advance, value):
    recipe = make_recipe(equivariance="learned")
    state = loop.initial_state(recipe, CPU)
    torch.nn.init.constant_(state.autoencoder.decoder.conv_out.bias, value)
    _, (record,) = advance(recipe, 1, state)
    assert not math.isfinite(record.gradient_norm)


@pytest.fixture
def gradients(monkeypatch):
    """Steps without any computation, whose gradients have these norms."""

    def patch(norms):
        stream = iter(norms)
        monkeypatch.setattr(loop, "_update", lambda *_: ({"mse": 1.0}, next(stream)))

    return patch


def test_many_bad_gradients_in_a_row_end_the_run(make_recipe, advance, gradients):
    recipe = make_recipe(steps=60)
    state = loop.initial_state(recipe, CPU)
    gradients([1.0, math.nan, 1.0] + [math.inf] * 40)
    with pytest.raises(ComputeError, match="step 23: the gradient has not been finite for 21"):
        advance(recipe, state=state)
    assert state.step == 23


def test_some_bad_gradients_in_a_row_do_not(make_recipe, advance, gradients):
    gradients(([math.nan] * 20 + [1.0]) * 2)
    assert len(advance(make_recipe(steps=42))[1]) == 42
