"""The learning curve, from logs as runs and their interruptions leave them."""

import json

import pytest

from auravae_cli.errors import ConfigError
from auravae_cli.train.curve import read_curve


def opening(step, *stages):
    return {"opening": {"step": step, "num_training": 5, "stages": stages}}


def steps(first, last, seconds):
    """Records of every tenth step."""
    return [{"step": step, "seconds": seconds} for step in range(first, last, 10)]


def validation(step, psnr):
    return {"validation": {"step": step, "psnr": psnr, "ssim": 0.5}}


@pytest.fixture
def curve(tmp_path):
    def read(*rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "log.jsonl").write_text(text)
        return [(p.validation.step, p.hours * 3600, p.pixels) for p in read_curve(tmp_path)]

    return read


def test_hours_and_pixels_until_each_validation(curve):
    found = curve(
        opening(0, (100, 16, 2), (100, 32, 3)),
        *steps(0, 100, 1.0),
        validation(100, 20.0),
        *steps(100, 200, 3.0),
        validation(200, 21.0),
    )
    assert [(step, pixels) for step, _, pixels in found] == [(100, 51200), (200, 51200 + 307200)]
    assert [seconds for _, seconds, _ in found] == pytest.approx([91, 91 + 300])


def test_a_new_recipe_counts_its_own_pixels_from_where_it_began(curve):
    found = curve(
        opening(0, (400, 16, 2)),
        validation(100, 20.0),
        opening(150, (150, 64, 8), (50, 16, 1)),
        validation(200, 21.0),
    )
    assert [pixels for _, _, pixels in found] == [51200, 150 * 512 + 50 * 256]


def test_what_was_lost_by_a_kill_is_counted_once(curve):
    found = curve(
        opening(0, (400, 16, 1)),
        *steps(0, 100, 1.0),
        validation(100, 20.0),
        *steps(100, 200, 1.0),
        validation(200, 30.0),
        opening(100, (400, 16, 1)),
        *steps(100, 200, 1.0),
        validation(200, 21.0),
    )
    assert [(step, pixels) for step, _, pixels in found] == [(100, 25600), (200, 51200)]
    assert found[1][1] == pytest.approx(91 + 100 + 91)


def test_an_opening_of_an_older_version_has_no_stages(curve):
    found = curve({"opening": {"step": 0}}, opening(50, (100, 16, 1)), validation(100, 20.0))
    assert found == [(100, 0, 25600)]


def test_no_run_and_no_log_of_one(curve, tmp_path):
    with pytest.raises(ConfigError, match="no run of `auravae train`"):
        read_curve(tmp_path / "absent")
    with pytest.raises(ConfigError, match="no log of a run of this version"):
        curve(opening(0, (100, 16)), validation(1, 1.0))
