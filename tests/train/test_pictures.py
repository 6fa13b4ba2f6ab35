"""Training pictures: the same whatever their container, names and order; batches are pure."""

from __future__ import annotations

import shutil
import tarfile
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from auravae_cli.errors import ConfigError
from auravae_cli.train.pictures import batches, crop, make_batch, read_pictures
from auravae_cli.train.recipe import Data, Stage
from auravae_cli.train.synthetic import drawn


def read(*sources, **options):
    return read_pictures(Data(tuple(map(str, sources)), **{"num_validation": 2} | options))


def contents(pictures):
    return [picture.tobytes() for picture in pictures]


def assert_same(found, expected):
    assert contents(found.training) == contents(expected.training)
    assert contents(found.validation) == contents(expected.validation)


@pytest.fixture
def renamed(photos, tmp_path):
    """The photographs under other names, in another order, in folders."""
    for number, path in enumerate(sorted(photos.iterdir(), reverse=True)):
        target = tmp_path / "renamed" / str(number % 2) / f"{number}.PNG"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return tmp_path / "renamed"


@pytest.fixture
def tar(photos, tmp_path):
    """The photographs in a tar, with a caption each, as WebDataset has them."""
    path = tmp_path / "photos.tar"
    with tarfile.open(path, "w") as archive:
        for photo in sorted(photos.iterdir()):
            archive.add(photo, photo.name)
            archive.addfile(tarfile.TarInfo(f"{photo.stem}.txt"))
    return path


# Sources


def test_folders_and_tars_give_the_same(photos, tar):
    assert_same(read(tar), read(photos))
    assert read(tar).unreadable == ()


def test_held_out_pictures_do_not_depend_on_names_and_order(photos, renamed):
    assert_same(read(renamed), read(photos))


def test_a_picture_counts_once(photos, renamed, tar):
    assert_same(read(renamed, tar, photos), read(photos))


@pytest.mark.parametrize("held_out", [1, 3, 5])
def test_held_out_pictures_are_not_trained_on(photos, held_out):
    found = read(photos, num_validation=held_out)
    assert len(found.validation) == held_out
    every = contents(found.training + found.validation)
    assert len(every) == len(set(every)) == len(list(photos.iterdir()))


def test_more_pictures_leave_most_held_out_ones_where_they_were(photos, tmp_path):
    before = read(photos, num_validation=3)
    Image.new("RGB", (9, 9), "red").save(tmp_path / "red.png")
    after = read(photos, tmp_path, num_validation=3)
    assert len(set(contents(before.validation)) & set(contents(after.validation))) >= 2


def test_what_cannot_be_read_is_listed(photos, renamed, tmp_path):
    (renamed / "page.jpg").write_text("<html>")
    (renamed / "cut.png").write_bytes(next(photos.iterdir()).read_bytes()[:300])
    (renamed / "notes.txt").write_text("no picture")
    found = read(renamed)
    assert_same(found, read(photos))
    assert sorted(line.partition(": ")[0] for line in found.unreadable) == [
        str(renamed / "cut.png"),
        str(renamed / "page.jpg"),
    ]


def test_what_a_tar_holds_beside_pictures(photos, tar):
    with tarfile.open(tar, "a") as archive:
        folder = tarfile.TarInfo("folder.png")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        archive.addfile(tarfile.TarInfo("empty.png"))
    found = read(tar)
    assert_same(found, read(photos))
    (line,) = found.unreadable
    assert line.startswith(f"{tar}: empty.png: ")


def test_a_tar_that_was_cut_off_is_no_crash(tar):
    content = tar.read_bytes()
    tar.write_bytes(content[: len(content) // 2])
    try:
        assert read(tar).unreadable
    except ConfigError as error:
        assert str(tar) in str(error)


def test_too_few_pictures(photos, tmp_path):
    with pytest.raises(
        ConfigError, match=r"6 readable pictures .* more than the 6 that are held out"
    ):
        read(photos, num_validation=6)
    with pytest.raises(ConfigError, match="0 readable pictures"):
        read(tmp_path)
    with pytest.raises(ConfigError, match="no source"):
        read()


@pytest.mark.parametrize("name", ["absent", "notes.txt"])
def test_an_absent_source(photos, tmp_path, name):
    (tmp_path / "notes.txt").write_text("no tar")
    with pytest.raises(ConfigError, match=rf"data\.sources: .*{name}: expected a folder or a tar"):
        read(photos, tmp_path / name)


def test_large_and_deep_pictures_are_reduced(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (20, 60), np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.new("RGB", (40, 80), (1, 2, 3)).save(tmp_path / "tall.png")
    found = read(tmp_path, num_validation=1, max_side=60)
    shapes = {picture.shape for picture in found.training + found.validation}
    assert shapes == {(20, 60, 3), (60, 30, 3)}
    assert {p.dtype for p in found.training + found.validation} == {np.dtype(np.uint8)}


# Crops

PLAIN = Data(reduced=0.0)
SIDES = st.integers(1, 40)


def coordinates(height, width):
    """A picture whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, rows + columns], -1).astype(np.uint8)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(SIDES, SIDES, SIDES, st.floats(0, 1), st.floats(0.1, 1), st.integers(0, 99))
def test_a_crop_has_the_side_asked_for(height, width, side, reduced, min_scale, seed):
    data = Data(reduced=reduced, min_scale=min_scale)
    found = crop(coordinates(height, width), data, np.random.default_rng(seed), side)
    assert (found.shape, found.dtype) == ((side, side, 3), np.uint8)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 99))
def test_a_crop_that_is_not_reduced_is_a_window(height, width, seed):
    picture = coordinates(height, width)
    found = crop(picture, PLAIN, np.random.default_rng(seed), 8)
    top, left = (int(value) for value in found[0, 0, :2])
    assert np.array_equal(found, picture[top : top + 8, left : left + 8])


def test_crops_come_from_everywhere():
    generator = np.random.default_rng(0)
    corners = {tuple(crop(coordinates(10, 11), PLAIN, generator, 8)[0, 0, :2]) for _ in range(300)}
    assert corners == {(row, column) for row in range(3) for column in range(4)}


def test_a_reduced_crop_shows_more():
    data, generator = Data(reduced=1.0, min_scale=0.5), np.random.default_rng(0)
    widths = [
        int(found[0, -1, 1]) - int(found[0, 0, 1])
        for found in (crop(coordinates(64, 64), data, generator, 16) for _ in range(50))
    ]
    assert min(widths) >= 14
    assert max(widths) > 25


# Text and line art


def test_drawn_pictures_vary_and_have_strong_contrast():
    generator = np.random.default_rng(0)
    found = [drawn(generator, 48) for _ in range(60)]
    assert {(picture.shape, picture.dtype.name) for picture in found} == {((48, 48, 3), "uint8")}
    assert len(set(contents(found))) > 55
    contrasts = [int(np.ptp(picture.astype(int).mean(2))) for picture in found]
    assert sum(contrast > 100 for contrast in contrasts) > 30


@pytest.mark.parametrize("side", [8, 16, 72])
def test_drawn_pictures_have_the_side_asked_for_and_depend_on_the_draw_alone(side):
    first, again = (drawn(np.random.default_rng(5), side) for _ in range(2))
    assert first.shape == (side, side, 3)
    assert np.array_equal(first, again)


@pytest.mark.parametrize(("share", "few", "many"), [(0.0, 0, 0), (0.5, 12, 28), (1.0, 40, 40)])
def test_a_share_of_the_samples_is_drawn(make_recipe, share, few, many):
    grey = (np.full((32, 32, 3), 77, np.uint8),)
    recipe = make_recipe(batch=40, data=Data(drawn=share))
    photographs = (make_batch(grey, recipe, 0) == 77).all((1, 2, 3))
    assert few <= (~photographs).sum() <= many


def test_a_share_of_the_samples_is_of_one_colour(make_recipe):
    noise = (np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8),)
    batch = make_batch(noise, make_recipe(batch=40, data=Data(drawn=0.0, flat=0.5)), 0)
    flat = (batch == batch[:, :, :1, :1]).all((1, 2, 3))
    assert 12 <= flat.sum() <= 28
    assert len({sample.tobytes() for sample in batch[flat]}) > 10


# Batches


def test_a_batch_depends_on_seed_step_and_process_alone(pictures, make_recipe):
    training, recipe = pictures.training, make_recipe(batch=4)
    found = make_batch(training, recipe, 3)
    assert (found.shape, found.dtype) == ((4, 3, 16, 16), np.uint8)
    assert found.flags.c_contiguous
    assert np.array_equal(found, make_batch(training, make_recipe(batch=4), 3))
    for other in (
        make_batch(training, recipe, 2),
        make_batch(training, recipe, 3, rank=1),
        make_batch(training, make_recipe(batch=4, seed=1), 3),
    ):
        assert not np.array_equal(found, other)


def test_processes_share_a_batch(pictures, make_recipe):
    recipe = make_recipe(batch=4)
    parts = [make_batch(pictures.training, recipe, 0, rank, 2) for rank in range(2)]
    assert [part.shape for part in parts] == [(2, 3, 16, 16)] * 2
    assert not np.array_equal(*parts)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("start", [0, 4, 8, 9])
def test_batches_come_in_order_from_start_to_end(pictures, make_recipe, start, workers):
    recipe = make_recipe(stages=(Stage(5, 16, 2), Stage(4, 24, 1)))
    found = list(batches(pictures.training, recipe, start, 0, 1, workers))
    expected = [make_batch(pictures.training, recipe, step) for step in range(start, 9)]
    assert [batch.shape for batch in found] == [batch.shape for batch in expected]
    assert contents(found) == contents(expected)


def test_a_long_run_need_not_be_read_to_the_end(pictures, make_recipe):
    stream = batches(pictures.training, make_recipe(steps=10**9), 0, 0, 1, 2)
    assert len(list(islice(stream, 3))) == 3
    stream.close()
