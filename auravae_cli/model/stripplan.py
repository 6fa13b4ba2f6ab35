"""How a picture that does not fit the memory runs in strips: the plan that `streamed` follows.

Maps are kept while there is room; what is not kept is computed again, strip by strip, when it is
asked for. How much of the budget is for kept maps and how much for the strips under way is tried
out: the plan with the fewest operations is taken. The costs here mirror `rows`, class by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from auravae_cli.model.operations import (
    ATTENTION,
    BLOCK,
    CONV,
    DOWN,
    UP,
    Arithmetic,
    Layer,
    attention_flops,
    conv_flops,
    layer_flops,
)

STATISTICS_ROWS = 16  # per block, whatever the strips are: results do not depend on the memory
KEPT_SHARES = (0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.0)  # of a budget for kept maps, to be tried
WORKSPACE_SHARE = 0.5  # of what is left beside kept maps
SWEEPS = 2  # over all choices, as long as that gains anything
GOOD_ENOUGH = 1.03  # times the operations without strips: not worth looking further
NOT_KEPT = 0


@dataclass(frozen=True)
class StripPlan:
    """For every map in the order of the run, the rows of a strip; `NOT_KEPT` for one not kept.

    A norm's pass over its input for the statistics has rows of its own. ``most`` is the largest
    number of strips in a pass.
    """

    rows: tuple[int, ...]
    peak: int
    flops: int
    most: int


@dataclass(frozen=True)
class Cost:
    """Of some rows: the most bytes while they are made, those that stay, NNPACK's, operations."""

    peak: int
    result: int
    workspace: int
    flops: int


class Node:
    """A feature map [1, C, H, W] that is computed row by row; see `rows.Rows`."""

    def __init__(
        self, arithmetic: Arithmetic, shape: tuple[int, int, int], sources: tuple[Node, ...] = ()
    ) -> None:
        self.arithmetic, self.shape, self.sources = arithmetic, shape, sources
        self.channels, self.height, self.width = shape
        self._costs: dict[int, Cost] = {}

    @property
    def nbytes(self) -> int:
        """The bytes of the whole map."""
        return self.bytes_of(self.channels, self.height)

    def bytes_of(self, channels: int, rows: int) -> int:
        """The bytes of some rows of this width."""
        return channels * rows * self.width * self.arithmetic.itemsize

    def cost(self, rows: int) -> Cost:
        """Of ``rows`` rows at once, fewer where there are no more."""
        if rows not in self._costs:
            self._costs[rows] = self.compute_cost(rows)
        return self._costs[rows]

    def compute_cost(self, rows: int) -> Cost:
        """The same, not remembered."""
        raise NotImplementedError

    def conv(self, x: Cost, others: int, channels_in: int, channels_out: int, rows: int) -> Cost:
        """A 3x3 convolution of rows at hand, beside ``others`` bytes; its result alone stays."""
        arithmetic, output = self.arithmetic, self.bytes_of(channels_out, rows)
        if arithmetic.is_winograd(channels_in, channels_out, rows, self.width):
            extra, kept = 0, arithmetic.workspace(channels_in, channels_out, rows, self.width)
        else:
            extra = arithmetic.reordered(channels_in, channels_out, rows * self.width)
            kept = 0
        return Cost(
            max(x.peak, others + output + extra),
            output,
            max(x.workspace, kept),
            x.flops + conv_flops(3, channels_in, channels_out, rows * self.width),
        )


class KeptNode(Node):
    """In memory: rows are a view."""

    def compute_cost(self, rows: int) -> Cost:
        return Cost(0, 0, 0, 0)


class ConvolvedNode(Node):
    """A 3x3 convolution that keeps the size."""

    def __init__(self, source: Node, channels: int) -> None:
        super().__init__(source.arithmetic, (channels, source.height, source.width), (source,))

    def compute_cost(self, rows: int) -> Cost:
        (source,) = self.sources
        more = min(self.height, rows + 2)
        x = source.cost(more)
        # Of a view of a kept map, convolutions make a copy.
        copied = x.result or self.bytes_of(source.channels, more)
        return self.conv(x, copied, source.channels, self.channels, more)


class ActivatedNode(Node):
    """A group norm and SiLU."""

    def __init__(self, source: Node) -> None:
        super().__init__(source.arithmetic, source.shape, (source,))

    def compute_cost(self, rows: int) -> Cost:
        x = self.sources[0].cost(rows)
        result = self.bytes_of(self.channels, min(rows, self.height))
        return Cost(
            max(x.peak, x.result + normed(result, self.arithmetic)), result, x.workspace, x.flops
        )


class HiddenNode(Node):
    """The first half of a residual block."""

    def __init__(self, source: Node, channels: int) -> None:
        super().__init__(source.arithmetic, (channels, source.height, source.width), (source,))

    def compute_cost(self, rows: int) -> Cost:
        """With the same rows of the input, which stay as well."""
        (source,) = self.sources
        more = min(self.height, rows + 2)
        x = source.cost(more)
        active = self.bytes_of(source.channels, more)
        made = self.conv(x, x.result + active, source.channels, self.channels, more)
        peak = max(made.peak, x.result + normed(active, self.arithmetic))
        return Cost(peak, made.result, made.workspace, made.flops)


class ResidualNode(Node):
    """A residual block."""

    def __init__(self, source: Node, hidden: Node) -> None:
        super().__init__(source.arithmetic, hidden.shape, (source, hidden))

    def compute_cost(self, rows: int) -> Cost:
        source, hidden = self.sources
        more = min(self.height, rows + 2)
        h = hidden.cost(more)
        if isinstance(hidden, HiddenNode):
            x = source.cost(min(self.height, rows + 4))  # counted in h already, but for what stays
        else:
            x = source.cost(rows)
            h = Cost(max(x.peak, x.result + h.peak), h.result, x.workspace, x.flops)
        beside = x.result + h.result
        active = self.bytes_of(self.channels, more)
        made = self.conv(h, beside + active, self.channels, self.channels, more)
        peak = max(made.peak, beside + normed(active, self.arithmetic))
        flops = made.flops
        if source.channels != self.channels:
            pixels = min(rows, self.height) * self.width
            shortcut = self.bytes_of(self.channels, rows)
            shortcut += self.arithmetic.reordered(source.channels, self.channels, pixels)
            peak = max(peak, beside + made.result + shortcut)
            flops += conv_flops(1, source.channels, self.channels, pixels)
        return Cost(peak, made.result, made.workspace, flops)


class HalvedNode(Node):
    """The reference's step down."""

    def __init__(self, source: Node) -> None:
        shape = (source.channels, source.height // 2, source.width // 2)
        super().__init__(source.arithmetic, shape, (source,))

    def compute_cost(self, rows: int) -> Cost:
        (source,) = self.sources
        x = source.cost(2 * rows + 1)
        padded = source.bytes_of(self.channels, 2 * rows + 1)
        result = self.bytes_of(self.channels, rows)
        extra = self.arithmetic.reordered(self.channels, 0, (2 * rows + 1) * source.width)
        flops = x.flops + conv_flops(3, self.channels, self.channels, rows * self.width)
        peak = max(x.peak, x.result + padded + result + extra)
        return Cost(peak, result, x.workspace, flops)


class DoubledNode(Node):
    """The reference's step up."""

    def __init__(self, source: Node) -> None:
        shape = (source.channels, 2 * source.height, 2 * source.width)
        super().__init__(source.arithmetic, shape, (source,))

    def compute_cost(self, rows: int) -> Cost:
        (source,) = self.sources
        fewer = min(source.height, rows // 2 + 2)
        x = source.cost(fewer)
        larger = self.bytes_of(self.channels, 2 * fewer)
        made = self.conv(x, larger, self.channels, self.channels, 2 * fewer)
        return Cost(max(made.peak, x.result + larger), made.result, made.workspace, made.flops)


def normed(size: int, arithmetic: Arithmetic) -> int:
    """What a norm takes for a result of ``size`` bytes: it computes in float32."""
    return size if arithmetic.itemsize == 4 else size + 2 * size * 4 // arithmetic.itemsize


@dataclass
class Planner:
    """Walks the layers as `streamed.Streamer` does, and writes down what it is to do.

    ``choices`` says of every map that may be kept whether it is; without them it is where all that
    is kept then takes no more than ``kept`` bytes. Strips take what of ``budget`` is left beside,
    and NNPACK at most ``workspace_limit``, since it gives back nothing.
    """

    arithmetic: Arithmetic
    budget: int
    workspace_limit: int
    kept: int = 0
    choices: Sequence[bool] | None = None
    taken: list[bool] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    peak: int = 0
    most_kept: int = 0
    workspace: int = 0
    flops: int = 0
    most: int = 1

    def run(self, chain: Sequence[Layer], height: int, width: int) -> Planner:
        """Plan a picture; this planner."""
        first = chain[0]
        given = (first.channels_in, height // first.scale, width // first.scale)
        x: Node = KeptNode(self.arithmetic, given)
        for index, layer in enumerate(chain):
            x = self._layer(layer, x, _reserve(chain[index:], x))
        return self

    @property
    def plan(self) -> StripPlan:
        """What was written down."""
        return StripPlan(tuple(self.rows), self.peak, self.flops, self.most)

    def _layer(self, layer: Layer, x: Node, reserve: int) -> Node:
        if layer.kind == CONV:
            return ConvolvedNode(x, layer.channels_out)
        if layer.kind == BLOCK:
            x = self._affordable(x, reserve)
            self._statistics(x)
            hidden = self._affordable(HiddenNode(x, layer.channels_out), reserve)
            self._statistics(hidden, x)
            return self._affordable(ResidualNode(x, hidden), reserve)
        if layer.kind == ATTENTION:
            return self._attention(x)
        if layer.kind == DOWN:
            return self._affordable(HalvedNode(x), 0)
        if layer.kind == UP:
            return self._affordable(DoubledNode(x), 0)
        self._statistics(x)
        return self._keep(ConvolvedNode(ActivatedNode(x), layer.channels_out))

    def _affordable(self, x: Node, reserve: int) -> Node:
        if isinstance(x, KeptNode):
            return x
        if self.choices is not None:
            # Choices that follow from others come and go; what was not chosen is not kept.
            place = len(self.taken)
            is_kept = place < len(self.choices) and self.choices[place]
        else:
            is_kept = _live(x) + x.nbytes + reserve <= self.kept
        self.taken.append(is_kept)
        if is_kept:
            return self._keep(x)
        self.rows.append(NOT_KEPT)
        return x

    def _keep(self, x: Node) -> Node:
        self._pass(x, _live(x) + x.nbytes)
        return KeptNode(x.arithmetic, x.shape)

    def _statistics(self, x: Node, *also: Node) -> None:
        """A pass over ``x``, whose strips are whole blocks; one block is copied, twice at most."""
        block = 2 * 4 * x.channels * min(STATISTICS_ROWS, x.height) * x.width
        self._pass(x, _live(x, *also) + block, STATISTICS_ROWS)

    def _pass(self, x: Node, live: int, multiple: int = 1) -> None:
        """All of ``x``, in the largest strips that there is room for."""
        rows = self._largest(x, live, multiple)
        cost = x.cost(min(rows, x.height))
        self.workspace = max(self.workspace, cost.workspace)
        self.peak = max(self.peak, live + cost.peak + self.workspace)
        self.most_kept = max(self.most_kept, live)
        whole, rest = divmod(x.height, rows)
        self.flops += whole * cost.flops + (x.cost(rest).flops if rest else 0)
        self.rows.append(rows)
        self.most = max(self.most, whole + bool(rest))

    def _largest(self, x: Node, live: int, multiple: int) -> int:
        """The most rows that fit; bisection, since more rows never take less."""

        def fits(blocks: int) -> bool:
            cost = x.cost(min(blocks * multiple, x.height))
            workspace = max(self.workspace, cost.workspace)
            small = cost.workspace <= max(self.workspace, self.workspace_limit)
            return small and live + cost.peak + workspace <= self.budget

        low, high = 1, -(-x.height // multiple) if self.budget > live else 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low * multiple

    def _attention(self, x: Node) -> Node:
        source = x if isinstance(x, KeptNode) else self._keep(x)
        self._statistics(source)
        size, row = source.nbytes, source.nbytes // source.height
        # Keys, values and the result in whole; normed rows, a projection, and two copies under way.
        room = self.budget - 4 * size - self.workspace
        rows = max(1, min(source.height, room // (4 * row)))
        self.peak = max(self.peak, 4 * (size + rows * row) + self.workspace)
        self.most_kept = max(self.most_kept, 4 * size)
        cells = source.height * source.width
        self.flops += attention_flops(x.channels, cells, cells)
        self.flops += conv_flops(1, x.channels, 4 * x.channels, cells)
        self.rows.append(rows)
        return KeptNode(x.arithmetic, x.shape)


@dataclass(frozen=True)
class Search:
    """Looks for the plan with the fewest operations for one picture."""

    chain: Sequence[Layer]
    height: int
    width: int
    arithmetic: Arithmetic

    def cheapest(self, budget: int) -> StripPlan | None:
        """Of the plans within ``budget``, the best that was found; None where none fits.

        Starting from what is kept as long as there is room, each choice is tried the other way.
        """
        if budget <= 0:
            return None
        starts = [self._greedy(budget, share) for share in KEPT_SHARES]
        best = min(starts, key=lambda planner: _merit(planner, budget))
        enough = GOOD_ENOUGH * sum(layer_flops(x, self.height, self.width) for x in self.chain)
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
        """The smallest budget that a plan is found for without looking far, to a few percent."""
        high = self.height * self.width
        while not self._is_enough(high):
            high *= 2
        low = high // 2
        while high - low > high // 16:
            middle = (low + high) // 2
            low, high = (low, middle) if self._is_enough(middle) else (middle, high)
        return high

    def _is_enough(self, budget: int) -> bool:
        return any(self._greedy(budget, share).peak <= budget for share in KEPT_SHARES)

    def _greedy(self, budget: int, share: float) -> Planner:
        return self._run(budget, int(share * budget), None)

    def _with(self, taken: Sequence[bool], place: int, budget: int) -> Planner:
        """The plan with one choice made the other way."""
        choices = [*taken[:place], not taken[place], *taken[place + 1 :]]
        kept = self._run(0, 0, choices).most_kept
        return self._run(budget, kept, choices)

    def _run(self, budget: int, kept: int, choices: Sequence[bool] | None) -> Planner:
        limit = int(WORKSPACE_SHARE * (budget - kept))
        planner = Planner(self.arithmetic, budget, limit, kept, choices)
        return planner.run(self.chain, self.height, self.width)


def _merit(planner: Planner, budget: int) -> tuple[int, int, int]:
    """Less is better: first to fit at all, then operations."""
    over = max(0, planner.peak - budget)
    return over, planner.flops, planner.most


def _live(*nodes: Node) -> int:
    """The bytes of the kept maps that these are made from."""
    found: dict[int, Node] = {}
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.sources
    return sum(node.nbytes for node in found.values() if isinstance(node, KeptNode))


def _reserve(rest: Sequence[Layer], x: Node) -> int:
    """The bytes of the step down that ends this level: room for it comes before any map above it.

    The rest of the encoder is made from it. 0 where there is none.
    """
    down = next((layer for layer in rest if layer.kind not in (CONV, BLOCK)), None)
    if down is None or down.kind != DOWN:
        return 0
    return x.nbytes // x.channels * down.channels_out // 4
