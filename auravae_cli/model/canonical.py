"""Exact equivariance of any function, by one run of the mirror image that comes first.

::

    x --g--> the first of its four mirror images --f--> y --g--> result

The four mirror images of x and of any mirror image of x are the same four, so the function sees the
same numbers, and the result for h x is h of the result for x, to the bit (except for the sign of a zero), at any
precision and on any device, if equal inputs give equal results.

A picture that equals mirror images of itself has no single g: turning y back by each gives as many
results. Their mean is taken, which those flips leave as it is; it costs additions alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from auravae_cli.model.symmetrized import orbit_mean
from auravae_cli.symmetry.arrays import library_of
from auravae_cli.symmetry.group import GROUP, E, GroupElement

NONE, MEAN, CANONICAL = SYMMETRIES = ("none", "mean", "canonical")
Act = Callable[[GroupElement, Any], Any]


def run_canonically(
    function: Callable[[Any], Any], batch: Any, act: Act, act_on_result: Act
) -> Any:
    """``function(batch)``, each item by way of its first mirror image.

    Args:
        function: of arrays or tensors [B, ...]; its results are of the same kind.
        act: the group on items; ``act_on_result`` on results.
    """
    items, turned = [], []
    for item in batch:
        g, stabilizer = first_image(item, act)
        items.append(_plus_zero(act(g, item)))
        turned.append((g, stabilizer))
    if not items:
        return function(batch)
    stack = library_of(items[0]).stack
    results = function(stack(items))
    return stack(
        [
            act_on_result(g, _mean(result, stabilizer, act_on_result))
            for result, (g, stabilizer) in zip(results, turned, strict=True)
        ]
    )


def first_image(item: Any, act: Act) -> tuple[GroupElement, list[GroupElement]]:
    """Return the element that maps an item to the first of its mirror images, and the flips that fix it.

    The first is the one with the least number at the first place where two of them differ.
    """
    images = {g: act(g, item) for g in GROUP}
    best = E
    for g in GROUP[1:]:
        if _compare(images[g], images[best]) < 0:
            best = g
    return best, [g for g in GROUP if _compare(images[g], images[E]) == 0]


def _compare(a: Any, b: Any) -> int:
    """Return -1 if ``a`` comes before ``b``, 1 if it comes after, 0 if all numbers are equal."""
    a, b = a.reshape(-1), b.reshape(-1)
    differs = a != b
    if not differs.any():
        return 0
    place = differs.argmax() if isinstance(a, np.ndarray) else differs.nonzero()[0]
    return -1 if a[place] < b[place] else 1


def _mean(result: Any, stabilizer: list[GroupElement], act: Act) -> Any:
    """The mean of what ``stabilizer``, a subgroup, makes of a result: the same to the bit for each of
    those, whose terms are these in another order within sums of two."""
    if len(stabilizer) == len(GROUP):
        return orbit_mean(lambda g: act(g, result))
    if len(stabilizer) == 2:
        return (result + act(stabilizer[1], result)) / 2
    return result


def _plus_zero(item: Any) -> Any:
    """The same with no negative zeros: images that compare as equal are the same bits."""
    return item + 0.0
