"""How far a run is, by its steps and their times."""

import pytest

from auravae_cli.train.recipe import Stage
from auravae_cli.train.status import pixels_until, status_of

STAGES = (Stage(10, 16, 2), Stage(5, 32, 3))


def test_pixels_of_stages():
    assert [pixels_until(step, STAGES) for step in (0, 1, 10, 11, 15, 99)] == [
        0,
        512,
        5120,
        8192,
        20480,
        20480,
    ]


def test_the_time_left_follows_the_speed_in_pixels():
    status = status_of(10, STAGES, [(8, 0.5), (9, 0.5)])
    assert status.pixels_per_second == pytest.approx(1024)
    assert status.seconds_left == pytest.approx(15360 / 1024)
    assert (status.num_steps, status.num_pixels) == (15, 20480)


def test_one_slow_step_does_not_decide():
    records = [(step, 1.0) for step in range(8)] + [(8, 900.0)]
    assert status_of(9, STAGES, records).pixels_per_second == pytest.approx(512)


def test_before_the_first_step_nothing_is_estimated():
    status = status_of(0, STAGES, [])
    assert (status.pixels_per_second, status.seconds_left) == (None, None)
