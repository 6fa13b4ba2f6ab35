"""What counts as a result that lies beside its source."""

import pytest

from auravae_cli.operations.results import results
from auravae_cli.operations.suffixes import FLIP_TAGS, PICTURE_TAGS


@pytest.mark.parametrize(
    ("names", "tags", "found"),
    [
        (["a.png", "a.decoded.png", "a.roundtrip.webp"], PICTURE_TAGS, {1, 2}),
        (["a.decoded.png", "b.png"], PICTURE_TAGS, set()),
        (["a.safetensors", "a.decoded.png"], PICTURE_TAGS, {1}),
        (["a.jpg", "a.h.decoded.png"], PICTURE_TAGS, {1}),
        (["a.txt", "a.decoded.png"], PICTURE_TAGS, set()),
        (["s/a.png", "a.decoded.png", "s/a.sheet.png"], PICTURE_TAGS, {2}),
        (["a.safetensors", "a.h.safetensors", "a.hv.safetensors"], FLIP_TAGS, {1, 2}),
        (["a.h.safetensors", "b.safetensors"], FLIP_TAGS, set()),
        (["a.png", "a.decoded.png"], frozenset(), set()),
        (["a.decoded.png", "a.decoded.sheet.png"], PICTURE_TAGS, {1}),
    ],
)
def test_results_lie_beside_what_they_were_made_from(names, tags, found):
    assert results(names, tags) == {names[place] for place in found}
