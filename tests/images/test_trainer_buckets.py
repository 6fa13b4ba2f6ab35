"""Buckets are those of the trainers: the numbers were made by their own code, at the commits named there."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from auravae_cli.errors import InputImageError
from auravae_cli.images.prepare import Preparation
from auravae_cli.images.trainer_buckets import parse_buckets

# Each picture as (width, height), then (bucket, resized) as (width, height).
THEIRS: dict[str, dict[tuple[int, int], tuple[tuple[int, int], tuple[int, int]]]] = {
    "kohya:1024": {
        (601, 403): ((1024, 704), (1050, 704)),
        (1024, 683): ((1024, 704), (1055, 704)),
        (683, 1024): ((704, 1024), (704, 1055)),
        (3000, 2000): ((1024, 704), (1056, 704)),
        (1920, 1080): ((1024, 576), (1024, 576)),
        (4000, 900): ((1024, 256), (1138, 256)),
        (900, 4000): ((256, 1024), (256, 1138)),
        (512, 512): ((1024, 1024), (1024, 1024)),
        (1023, 769): ((1024, 768), (1024, 770)),
        (333, 777): ((448, 1024), (448, 1045)),
        (1248, 832): ((1024, 704), (1056, 704)),
    },
    "kohya:768x512,max_bucket_reso=1536,bucket_no_upscale": {
        (601, 403): ((576, 384), (601, 403)),
        (1024, 683): ((768, 512), (768, 512)),
        (683, 1024): ((512, 768), (512, 768)),
        (3000, 2000): ((768, 512), (768, 512)),
        (1920, 1080): ((768, 448), (796, 448)),
        (4000, 900): ((1088, 256), (1138, 256)),
        (900, 4000): ((256, 1088), (256, 1138)),
        (512, 512): ((512, 512), (512, 512)),
        (1023, 769): ((704, 512), (704, 529)),
        (333, 777): ((320, 768), (333, 777)),
        (1248, 832): ((768, 512), (768, 512)),
    },
    "kohya:512,bucket_reso_steps=32": {
        (601, 403): ((608, 416), (620, 416)),
        (1024, 683): ((608, 416), (624, 416)),
        (683, 1024): ((416, 608), (416, 624)),
        (3000, 2000): ((608, 416), (624, 416)),
        (1920, 1080): ((672, 384), (683, 384)),
        (4000, 900): ((1024, 256), (1138, 256)),
        (900, 4000): ((256, 1024), (256, 1138)),
        (512, 512): ((512, 512), (512, 512)),
        (1023, 769): ((576, 448), (596, 448)),
        (333, 777): ((320, 768), (329, 768)),
        (1248, 832): ((608, 416), (624, 416)),
    },
    "musubi:1024": {
        (601, 403): ((1248, 832), (1248, 837)),
        (1024, 683): ((1248, 832), (1248, 832)),
        (683, 1024): ((832, 1248), (832, 1248)),
        (3000, 2000): ((1248, 832), (1248, 832)),
        (1920, 1080): ((1360, 768), (1365, 768)),
        (4000, 900): ((2048, 512), (2276, 512)),
        (900, 4000): ((512, 2048), (512, 2276)),
        (512, 512): ((1024, 1024), (1024, 1024)),
        (1023, 769): ((1184, 880), (1184, 890)),
        (333, 777): ((672, 1552), (672, 1568)),
        (1248, 832): ((1248, 832), (1248, 832)),
    },
    "musubi:960x544,bucket_no_upscale": {
        (601, 403): ((592, 400), (597, 400)),
        (1024, 683): ((880, 592), (888, 592)),
        (683, 1024): ((592, 880), (592, 888)),
        (3000, 2000): ((880, 592), (888, 592)),
        (1920, 1080): ((960, 544), (967, 544)),
        (4000, 900): ((1472, 352), (1564, 352)),
        (900, 4000): ((352, 1472), (352, 1564)),
        (512, 512): ((512, 512), (512, 512)),
        (1023, 769): ((832, 624), (832, 625)),
        (333, 777): ((320, 768), (329, 768)),
        (1248, 832): ((880, 592), (888, 592)),
    },
    "ai-toolkit:1024": {
        (601, 403): ((608, 400), (608, 408)),
        (1024, 683): ((1024, 688), (1032, 688)),
        (683, 1024): ((688, 1024), (688, 1032)),
        (3000, 2000): ((1248, 832), (1248, 832)),
        (1920, 1080): ((1360, 768), (1366, 768)),
        (4000, 900): ((2160, 480), (2160, 487)),
        (900, 4000): ((480, 2160), (487, 2160)),
        (512, 512): ((512, 512), (512, 512)),
        (1023, 769): ((1024, 768), (1024, 770)),
        (333, 777): ((336, 768), (336, 784)),
        (1248, 832): ((1248, 832), (1248, 832)),
    },
    "ai-toolkit:512,divisibility=8": {
        (601, 403): ((608, 400), (608, 408)),
        (1024, 683): ((624, 416), (624, 417)),
        (683, 1024): ((416, 624), (417, 624)),
        (3000, 2000): ((624, 416), (624, 416)),
        (1920, 1080): ((680, 384), (683, 384)),
        (4000, 900): ((1080, 240), (1080, 244)),
        (900, 4000): ((240, 1080), (244, 1080)),
        (512, 512): ((512, 512), (512, 512)),
        (1023, 769): ((584, 448), (596, 448)),
        (333, 777): ((328, 784), (336, 784)),
        (1248, 832): ((624, 416), (624, 416)),
    },
}


@pytest.mark.parametrize("text", THEIRS)
def test_buckets_are_the_trainers(text):
    buckets = parse_buckets(text)
    for (width, height), (bucket, resized) in THEIRS[text].items():
        assert buckets.nearest(height, width)[::-1] == bucket
        assert buckets.resized(height, width)[::-1] == resized


@pytest.mark.parametrize("text", THEIRS)
def test_settings_are_the_same_after_json(text):
    found = Preparation(buckets=parse_buckets(text)).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["buckets"]["of"] == text.partition(":")[0]
    assert asdict(parse_buckets(text)).keys() == found["buckets"].keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kohya", "TRAINER:SIDE"),
        ("other:512", "kohya, musubi, ai-toolkit"),
        ("kohya:0", "TRAINER:SIDE"),
        ("kohya:512,step=8", "bucket_reso_steps=N"),
        ("kohya:512,bucket_no_upscale=1", "bucket_no_upscale"),
        ("kohya:512,bucket_reso_steps", "bucket_reso_steps=N"),
        ("kohya:512,bucket_reso_steps=0", "bucket_reso_steps=N"),
        ("kohya:512,bucket_reso_steps=60", "multiple of 8"),
        ("kohya:1536", "max_bucket_reso=N"),
        ("kohya:128", "min_bucket_reso"),
        ("musubi:24", "below 32"),
        ("ai-toolkit:512x768", "one number"),
        ("ai-toolkit:510,square_crop", "multiple of 8"),
    ],
)
def test_what_a_trainer_would_not_take_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_buckets(text)


@pytest.mark.parametrize("trainer", ["kohya", "musubi"])
def test_a_picture_smaller_than_a_step_fails_by_itself(trainer):
    buckets = parse_buckets(f"{trainer}:512,bucket_no_upscale")
    with pytest.raises(InputImageError, match="300 x 12"):
        buckets.nearest(12, 300)
