"""How a network runs in strips of rows within a budget: the plan that `strip_runner` follows.

Maps are kept while there is room; others are recomputed, strip by strip, on demand. A search decides
which maps to keep: it takes the plan with the fewest operations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from auravae_cli.model.planning.layer_costs import (
    ATTENTION,
    BLOCK,
    CONV,
    DOWN,
    TILE_ROWS,
    UP,
    Arithmetic,
    Layer,
    attention_flops,
    conv_flops,
    layer_flops,
)
from auravae_cli.model.planning.strip_costs import (
    ActivatedNode,
    ConvolvedNode,
    DoubledNode,
    HalvedNode,
    KeptNode,
    Node,
    ResidualNode,
)

NO_LIMIT = 1 << 62  # bytes
BLOCK_ROWS = TILE_ROWS  # of a norm's statistics: results depend neither on memory nor on threads
CACHED_BYTES = 5 << 19  # of a strip, so that the next step finds it in a cache
PAYING_ROWS = 12  # times channels over width: with fewer, weights are transformed too often
MOST_NUMBERS = 1 << 29  # in a strip, with its sources: far below the limit of 32-bit indices
DEEP = 3  # rows of halo from which thin strips cost more than a cache gains
LIVE_STRIPS = 8  # of a strip's size, while it is made or its queries look up, approximately
FEW_CELLS, MANY_CELLS = 256, 768  # queries together; many keep attention's kernel busiest
STRIPS_ROOM = 1 << 26  # bytes for strips in progress; more gains nothing
KEPT_SHARES = (0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0)  # of a budget for kept maps, to try
WORKSPACE_SHARE = 0.5  # of what remains beside kept maps
SWEEPS = 2  # over all choices, as long as that gains anything
FAR_OFF = 1.25  # times the budget: no choice brings a plan back from there
GOOD_ENOUGH = (
    1.03  # times the operations of a run that keeps everything: not worth searching further
)


@dataclass(frozen=True)
class Pass:
    """One pass over a map: the number of strips, and how many are computed at a time."""

    strips: int
    threads: int


@dataclass(frozen=True)
class StripPlan:
    """For every map that may be kept, its pass, or None if it is not kept; and the norms' own passes.

    In the order of the run. ``room`` is the memory of kept maps and of that held ready for the next
    ones; ``tiles`` is the largest number of strips of a map that is computed more than once.
    """

    passes: tuple[Pass | None, ...]
    room: int
    peak: int
    flops: int
    tiles: int


def attended_rows(height: int, width: int) -> int:
    """Return the rows of a map whose queries look up together; depends only on its size, for equal bytes."""
    cells = MANY_CELLS if height * width >= 4 * MANY_CELLS else FEW_CELLS
    return min(height, -(-cells // width))


def cuts(height: int, strips: int) -> list[int]:
    """Return where to divide a map into strips of whole blocks of similar size."""
    blocks = -(-height // BLOCK_ROWS)
    return [*(round(i * blocks / strips) * BLOCK_ROWS for i in range(strips)), height]


@dataclass
class Planner:
    """Walks the layers like `strip_runner.Streamer`, and records what it is to do.

    ``choices`` decides for every map that may be kept whether it is; without them, a map is kept if all
    kept maps then take at most ``room`` bytes. Strips take what remains of ``budget``, and kernels at
    most ``workspace_limit``, since they never release memory.
    """

    arithmetic: Arithmetic
    budget: int = NO_LIMIT
    room: int = NO_LIMIT
    workspace_limit: int = NO_LIMIT
    choices: Sequence[bool] | None = None
    taken: list[bool] = field(default_factory=list)
    passes: list[Pass | None] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)
    peak: int = 0
    most_kept: int = 0
    workspace: int = 0
    flops: int = 0
    tiles: int = 1

    def run(self, chain: Sequence[Layer], batch: int, height: int, width: int) -> Planner:
        """Plan pictures of one size; return this planner."""
        first = chain[0]
        given = (batch, first.channels_in, height // first.scale, width // first.scale)
        x: Node = KeptNode(self.arithmetic, given, storage=0)  # counted elsewhere
        for index, layer in enumerate(chain):
            x = self._layer(layer, x, _reserve(chain[index:], x))
        return self

    @property
    def plan(self) -> StripPlan:
        """The recorded plan."""
        return StripPlan(tuple(self.passes), self.room, self.peak, self.flops, self.tiles)

    def _layer(self, layer: Layer, x: Node, reserve: int) -> Node:
        if layer.kind == CONV:
            return ConvolvedNode(x, layer.channels_out)
        if layer.kind == BLOCK:
            return self._block(layer, x, reserve)
        if layer.kind == ATTENTION:
            return self._attention(x)
        if layer.kind in (DOWN, UP):
            step = HalvedNode(x) if layer.kind == DOWN else DoubledNode(x)
            return self._affordable(step, spent=x)
        self._statistics(x)
        result = ConvolvedNode(ActivatedNode(x), layer.channels_out)
        self._pass(result, _live(x) + result.nbytes)
        return KeptNode(self.arithmetic, result.shape)

    def _block(self, layer: Layer, x: Node, reserve: int) -> Node:
        x = self._affordable(x, reserve)
        self._statistics(x)
        hidden = self._affordable(ConvolvedNode(ActivatedNode(x), layer.channels_out), reserve)
        self._statistics(hidden, x)
        result = ResidualNode(x, hidden)
        if not (isinstance(x, KeptNode) and isinstance(hidden, KeptNode)):
            return self._affordable(result, reserve)
        if x.channels == result.channels:  # written over its input
            self._pass(result, _live(x, hidden), is_measured=True)
            kept: Node = KeptNode(self.arithmetic, result.shape, x.storage, is_known=True)
        else:
            kept = self._affordable(result, reserve, spent=x)
        if isinstance(kept, KeptNode):
            self.spare.append(hidden.storage)
        return kept

    def _affordable(self, x: Node, reserve: int = 0, spent: Node | None = None) -> Node:
        if isinstance(x, KeptNode):
            return x
        live = _live(x)
        if self.choices is None:
            is_kept = live + x.nbytes + reserve <= self.room
        else:
            # Choices that follow from others come and go; a map without a choice is not kept.
            place = len(self.taken)
            is_kept = place < len(self.choices) and self.choices[place]
        self.taken.append(is_kept)
        if not is_kept:
            self.passes.append(None)
            return x
        storage = self._take(x.nbytes, live)
        self._pass(x, live + storage, is_measured=True)
        if isinstance(spent, KeptNode):
            self.spare.append(spent.storage)
        return KeptNode(self.arithmetic, x.shape, storage, is_known=True)

    def _take(self, size: int, live: int) -> int:
        """Mirror `Buffers.take`: return the bytes of the spare piece that is used, or of a new one."""
        fitting = [spare for spare in self.spare if size <= spare <= 2 * size]
        if sum(self.spare) + (0 if fitting else size) > self.room - live:
            self.spare.clear()
            fitting = []
        if not fitting:
            return size
        self.spare.remove(min(fitting))
        return min(fitting)

    def _statistics(self, x: Node, *also: Node) -> None:
        """Pass over ``x`` for a norm, if its statistics are not known already."""
        if not (isinstance(x, KeptNode) and x.is_known):
            self._pass(x, _live(x, *also), is_measured=True, is_taken=True)

    def _pass(self, x: Node, live: int, is_measured: bool = False, is_taken: bool = False) -> None:
        """Pass over all of ``x``; ``is_measured``: with its statistics, ``is_taken``: for nothing else."""
        live += sum(self.spare)
        chosen, rows = self._strips(x, live, is_measured, is_taken)
        is_shared = chosen.threads == 1 or chosen.strips == 1
        peak, workspace = self._under_way(x, rows, chosen.threads, is_measured, is_taken)
        self.workspace = max(self.workspace, workspace)
        self.peak = max(self.peak, live + peak + self.workspace)
        self.most_kept = max(self.most_kept, live)
        heights = Counter(b - a for a, b in pairwise(cuts(x.height, chosen.strips)))
        self.flops += sum(n * x.fill(rows, is_shared).flops for rows, n in heights.items())
        self.passes.append(chosen)
        if x.halo > 1 and any(not isinstance(source, KeptNode) for source in x.sources):
            self.tiles = max(self.tiles, chosen.strips)

    def _under_way(
        self, x: Node, rows: int, threads: int, is_measured: bool, is_taken: bool
    ) -> tuple[int, int]:
        """Return the bytes of strips computed at a time, and of the kernels in all threads."""
        cost = x.fill(rows, threads == 1 or rows >= x.height)
        taken = 0 if isinstance(x, KeptNode) or not is_taken else x.of_rows(rows)
        measured = 0
        if is_measured and not self.arithmetic.native:  # a strip in float32, and its differences
            measured = 2 * 4 * x.of_rows(rows) // self.arithmetic.itemsize
        at_a_time = min(threads, -(-x.height // rows))
        workspace = self.arithmetic.threads * cost.workspace
        return at_a_time * (taken + max(cost.peak, measured)), workspace

    def _strips(self, x: Node, live: int, is_measured: bool, is_taken: bool) -> tuple[Pass, int]:
        """Return the strips that there is room for, and the rows of the largest."""
        threads = self.arithmetic.threads

        def fits(rows: int, threads: int) -> bool:
            rows = min(rows, x.height)
            peak, workspace = self._under_way(x, rows, threads, is_measured, is_taken)
            if workspace > max(self.workspace, self.workspace_limit):
                return False
            return live + peak + max(self.workspace, workspace) <= self.budget

        if not fits(BLOCK_ROWS, threads):
            threads = 1
        pays = PAYING_ROWS * x.channels // x.width if x.makes_weights else 0
        useful = max(BLOCK_ROWS, STRIPS_ROOM // (threads * LIVE_STRIPS * x.row_nbytes))
        if x.height < threads * pays and x.height <= useful and fits(x.height, 1):
            return Pass(
                1, 1
            ), x.height  # so that the convolutions divide their channels among threads
        best = min(useful, max(CACHED_BYTES // x.row_nbytes, pays, BLOCK_ROWS))
        if x.halo >= DEEP:
            best = max(best, -(-x.height // threads))
        numbers = max(x.row_nbytes // self.arithmetic.itemsize, x.batch * x.channels * x.width)
        best = min(best, MOST_NUMBERS // (2 * numbers))
        low, high = 1, max(1, -(-min(best, x.height) // BLOCK_ROWS))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle * BLOCK_ROWS, threads) else (low, middle - 1)
        blocks = -(-x.height // BLOCK_ROWS)
        rounds = -(-blocks // (low * threads))
        number = min(rounds * threads, blocks)
        rows = min(x.height, -(-blocks // number) * BLOCK_ROWS)
        return Pass(number, threads), rows

    def _attention(self, x: Node) -> Node:
        if not isinstance(x, KeptNode):
            self._pass(x, _live(x) + x.nbytes, is_measured=True)
            x = KeptNode(self.arithmetic, x.shape, is_known=True)
        self._statistics(x)
        size, threads = x.nbytes, self.arithmetic.threads
        if x.storage + sum(self.spare) + 3 * size > self.room:
            self.spare.clear()
        live = x.storage + sum(self.spare) + 3 * size
        rows = attended_rows(x.height, x.width)
        number, each = -(-x.height // rows), LIVE_STRIPS * x.of_rows(rows)
        room = min(self.budget - live - self.workspace, STRIPS_ROOM)
        threads = max(1, min(threads, room // each))
        under_way = min(threads, number) * each
        self.peak = max(self.peak, live + under_way + self.workspace)
        self.most_kept = max(self.most_kept, live)
        cells = x.height * x.width
        self.flops += x.batch * attention_flops(x.channels, cells, cells)
        self.flops += conv_flops(1, x.channels, 4 * x.channels, x.batch * cells)
        self.passes.append(Pass(number, threads))
        return KeptNode(self.arithmetic, x.shape)


@dataclass(frozen=True)
class Search:
    """Searches the plan with the fewest operations for pictures of one size."""

    chain: Sequence[Layer]
    batch: int
    height: int
    width: int
    arithmetic: Arithmetic

    def everything_kept(self) -> StripPlan:
        """Return the plan with ample memory."""
        planner = self._run(Planner(self.arithmetic))
        return replace(
            planner.plan, room=planner.most_kept
        )  # what other sizes leave must be released

    def cheapest(self, budget: int) -> StripPlan | None:
        """Return the best plan found within ``budget``; None if none fits.

        Starting from keeping maps as long as there is room, each choice is tried the other way.
        """
        if budget <= 0:
            return None
        starts = [self._greedy(budget, share) for share in KEPT_SHARES]
        best = min(starts, key=lambda planner: _merit(planner, budget))
        size = (self.height, self.width)
        if best.peak > FAR_OFF * budget:
            return None
        enough = GOOD_ENOUGH * self.batch * sum(layer_flops(x, *size) for x in self.chain)
        for _ in range(SWEEPS):
            before = best
            for place in range(len(best.taken)):
                if best.flops <= enough and best.peak <= budget:
                    return best.plan
                if place < len(best.taken):
                    other = self._with(best.taken, place, budget)
                    best = min(best, other, key=lambda planner: _merit(planner, budget))
            if best is before:
                break
        return best.plan if best.peak <= budget else None

    def least(self) -> int:
        """Return the smallest budget that a short search finds a plan for, to a few percent."""
        high = self.height * self.width
        while not self._is_enough(high):
            high *= 2
        low = high // 2
        while high - low > high // 16:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_enough(middle) else (middle, high)
        return high

    def thinnest(self) -> StripPlan:
        """Keep nothing that need not be kept, in the thinnest strips, one at a time."""
        return self._run(Planner(self.arithmetic, 0, 0, 0)).plan

    def _is_enough(self, budget: int) -> bool:
        return any(self._greedy(budget, share).peak <= budget for share in KEPT_SHARES)

    def _greedy(self, budget: int, share: float) -> Planner:
        room = int(share * budget)
        limit = int(WORKSPACE_SHARE * (budget - room))
        return self._run(Planner(self.arithmetic, budget, room, limit))

    def _with(self, taken: Sequence[bool], place: int, budget: int) -> Planner:
        """Return the plan with one choice reversed."""
        choices = [*taken[:place], not taken[place], *taken[place + 1 :]]
        room = self._run(Planner(self.arithmetic, 0, 0, 0, choices)).most_kept
        limit = int(WORKSPACE_SHARE * (budget - room))
        return self._run(Planner(self.arithmetic, budget, room, limit, choices))

    def _run(self, planner: Planner) -> Planner:
        return planner.run(self.chain, self.batch, self.height, self.width)


def _merit(planner: Planner, budget: int) -> tuple[int, int, int]:
    """Return a key, where less is better: first whether it fits, then operations."""
    return max(0, planner.peak - budget), planner.flops, planner.tiles


def _live(*nodes: Node) -> int:
    """Return the bytes of the kept maps that these are made from."""
    found: dict[int, Node] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.sources
    return sum(node.storage for node in found.values() if isinstance(node, KeptNode))


def _reserve(rest: Sequence[Layer], x: Node) -> int:
    """Return the bytes of the downsampling that ends this level: it has priority over any map above it.

    The rest of the encoder is made from it. 0 if there is none.
    """
    down = next((layer for layer in rest if layer.kind not in (CONV, BLOCK)), None)
    if down is None or down.kind != DOWN:
        return 0
    return x.nbytes // x.channels * down.channels_out // 4
