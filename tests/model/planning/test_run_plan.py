"""Plans of runs: operations and memory by arithmetic, without torch."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from auravae_cli.forecast.run_setting import find_setting
from auravae_cli.model.cpu.native import NATIVE
from auravae_cli.model.loaded_network import load_network
from auravae_cli.model.planning import run_plan
from auravae_cli.model.planning.layer_costs import PARTS, Arithmetic, layers, nominal_flops
from auravae_cli.model.planning.run_plan import Plan, Unaffordable, plan_linear, plan_run
from auravae_cli.model.planning.strip_plan import BLOCK_ROWS, Search, cuts
from auravae_cli.model.spec.config import Architecture
from auravae_cli.model.spec.registry import find_weights

FULL = Architecture(256, (1, 2, 4, 4), 2, 16)
SMALL = Architecture(32, (3, 2, 4, 8), 1, 16)
MEBI = 1 << 20


@pytest.mark.parametrize(
    ("side", "decoder", "encoder"),
    [(256, 2.484, 1.086), (512, 9.986, 4.394), (1024, 40.77, 18.40), (4096, 916, 558)],
)
def test_operations_are_those_of_the_literature(side: int, decoder: float, encoder: float) -> None:
    """Counted by hand for the official network (2 for a multiplication and an addition)."""
    for part, expected in (("decoder", decoder), ("encoder", encoder)):
        found = nominal_flops(FULL, part, side, side) / 1e12
        assert found == pytest.approx(expected, rel=1e-3)


def plan(part: str, size: tuple[int, int, int], budget: int | None, **how: int | bool) -> Plan:
    found = plan_run(SMALL, part, size, Arithmetic(**how), budget)  # type: ignore[arg-type]
    assert isinstance(found, Plan)
    return found


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("native", [False, True])
def test_less_memory_costs_operations_and_is_kept_to(part: str, native: bool) -> None:
    budgets = (None, 250 * MEBI, 120 * MEBI)
    plans = [plan(part, (1, 512, 512), budget, native=native) for budget in budgets]
    assert plans[0].tiles == 1 and plans[1].memory <= 250 * MEBI
    assert plans[2].memory <= 120 * MEBI and plans[2].tiles > 1
    assert plans[0].flops < plans[2].flops and plans[1].flops <= plans[2].flops


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("native", [False, True])
def test_what_does_not_fit_says_what_would(part: str, threads: int, native: bool) -> None:
    size, arithmetic = (1, 64, 96), Arithmetic(threads=threads, native=native)
    found = plan_run(SMALL, part, size, arithmetic, 1 * MEBI)
    assert isinstance(found, Unaffordable)
    assert isinstance(plan_run(SMALL, part, size, arithmetic, 2 * found.least), Plan)
    assert isinstance(plan_run(SMALL, part, size, arithmetic, found.least // 3), Unaffordable)


def test_several_pictures_take_several_times_as_much() -> None:
    one, four = (plan("decoder", (number, 256, 256), None) for number in (1, 4))
    assert four.flops == 4 * one.flops
    assert 2 * one.memory < four.memory < 4.5 * one.memory


def test_a_plain_run_takes_more_than_one_in_strips() -> None:
    in_strips = plan("decoder", (1, 512, 512), None, itemsize=2, winograd=False)
    plain = plan("decoder", (1, 512, 512), None, itemsize=2, winograd=False, is_plain=True)
    assert plain.strips is None and plain.tiles == 1
    assert plain.memory > in_strips.memory
    assert plain.flops == nominal_flops(SMALL, "decoder", 512, 512)


@pytest.mark.parametrize("height", [1, 6, 7, 100, 1024])
@pytest.mark.parametrize("strips", [1, 2, 5])
def test_cuts_lie_between_blocks(height: int, strips: int) -> None:
    strips = min(strips, -(-height // BLOCK_ROWS))
    found = cuts(height, strips)
    assert found[0] == 0 and found[-1] == height and len(found) == strips + 1
    assert all(a < b for a, b in pairwise(found))
    assert all(cut % BLOCK_ROWS == 0 for cut in found[:-1])


@pytest.mark.parametrize("architecture", [SMALL, FULL])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_plan_in_the_smallest_budget_repeats_and_no_plan_is_free(
    architecture: Architecture, part: str
) -> None:
    search = Search(tuple(layers(architecture, part)), 1, 256, 256, Arithmetic())
    ample, thin = search.everything_kept(), search.thinnest()
    assert thin.flops > ample.flops and thin.tiles > ample.tiles == 1
    found = search.cheapest(search.least())
    assert found is not None and found.peak <= search.least()


def test_the_linear_model_is_planned_for_by_its_pixels() -> None:
    """It encodes in short strips; decoded pixels lie in memory whole."""
    for part in ("encoder", "decoder"):
        one, four = (plan_linear(part, 16, (1, side, side)) for side in (2048, 4096))
        assert four.flops == 4 * one.flops and one.tiles == 1
        assert (one.memory < four.memory) == (part == "decoder")


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_are_counted_as_they_are_kept(part: str, dtype: str) -> None:
    setting = find_setting("small", (part,), "cpu", dtype, None)
    if setting.where.engine != NATIVE:
        pytest.skip("no kernels for this processor")
    half: Any = load_network(find_weights("small")[0], (part,), setting.where)[0].parts[part]
    kept = sum(each.weights.nbytes for each in half._convolutions.values())
    assert setting.weights == pytest.approx(kept, rel=0.1)  # tiles fill up the last pairs


def test_weights_are_taken_from_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_plan, "free_memory", lambda: 1 << 30)
    free = find_setting("small", ("decoder",), "cpu", "float32", None)
    assert free.budget == int(((1 << 30) - free.weights) * run_plan.SHARE_OF_FREE)
    asked = find_setting("small", ("decoder",), "cpu", "float32", 1 << 29)
    assert asked.budget == 1 << 29  # for features
