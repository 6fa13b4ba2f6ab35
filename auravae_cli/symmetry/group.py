"""The Klein four-group V4 = Z2 x Z2 = {e, h, v, hv} and its representations.

``h`` mirrors left-right (reverses the width axis), ``v`` top-bottom (reverses the height axis).
The group is abelian and every element is its own inverse. Its four irreducible representations
are one-dimensional, so each is a character: a sign for every element. They are spelt by their
parity under h, then under v (``e`` even, ``o`` odd): ``ee``, ``oe``, ``eo``, ``oo``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache

PARITIES = ("ee", "oe", "eo", "oo")


@dataclass(frozen=True)
class GroupElement:
    """An element of V4: whether it mirrors left-right, and whether it mirrors top-bottom.

    >>> H @ V
    GroupElement.parse('hv')
    >>> ~HV == HV
    True
    """

    horizontal: bool = False
    vertical: bool = False

    def __matmul__(self, other: GroupElement) -> GroupElement:
        """Return the composition: first ``other``, then ``self``."""
        return GroupElement(self.horizontal != other.horizontal, self.vertical != other.vertical)

    def __invert__(self) -> GroupElement:
        """Return the inverse, which is the element itself."""
        return self

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes reversed on arrays that end in (height, width).

        >>> HV.axes
        (-2, -1)
        """
        return (-2,) * self.vertical + (-1,) * self.horizontal

    def __str__(self) -> str:
        return "h" * self.horizontal + "v" * self.vertical or "e"

    def __repr__(self) -> str:
        return f"GroupElement.parse({str(self)!r})"

    @classmethod
    def of(cls, g: GroupElement | str) -> GroupElement:
        """Return an element, or that of a name. Raises ValueError for any other name.

        >>> GroupElement.of("h") == GroupElement.of(H) == H
        True
        """
        return g if isinstance(g, GroupElement) else cls.parse(g)

    @classmethod
    def parse(cls, name: str) -> GroupElement:
        """Return the element called ``e``, ``h``, ``v`` or ``hv``. Raises ValueError for any other name."""
        for element in GROUP:
            if str(element) == name:
                return element
        raise ValueError(f"{name!r} is no element of the group: expected e, h, v or hv")


E = GroupElement()
H = GroupElement(horizontal=True)
V = GroupElement(vertical=True)
HV = GroupElement(horizontal=True, vertical=True)
GROUP = (E, H, V, HV)


def character(parity: str, g: GroupElement) -> int:
    """Return the sign, +1 or -1, by which ``g`` acts in the irrep called ``parity``.

    >>> [character("oe", g) for g in GROUP]
    [1, -1, 1, -1]
    """
    odd_h, odd_v = parity[0] == "o", parity[1] == "o"
    return -1 if (odd_h and g.horizontal) != (odd_v and g.vertical) else 1


@dataclass(frozen=True)
class Irreps:
    """A direct sum of irreps, in channel order: how V4 acts on the channels (the fibre).

    ``terms`` holds (multiplicity, parity) pairs.

    >>> Irreps.parse("12xee+2xoe+2xeo").dim
    16
    >>> Irreps.parse("12xee+2xoe+2xeo").odd_channels(H)
    (12, 13)
    """

    terms: tuple[tuple[int, str], ...]

    def __repr__(self) -> str:
        return f"Irreps.parse('{self}')"

    @classmethod
    def parse(cls, text: str) -> Irreps:
        """Parse for example ``12xee+2xoe+2xeo``. Raises ValueError if a term is malformed."""
        return _parse(text)

    @classmethod
    def _read(cls, text: str) -> Irreps:
        terms = []
        for term in text.split("+"):
            match = re.fullmatch(r"([1-9][0-9]{0,5})x(ee|oe|eo|oo)", term)
            if match is None:
                raise ValueError(
                    f"{term!r} in {text!r} is no irrep: expected a form such as 12xee or 2xoe"
                )
            terms.append((int(match[1]), match[2]))
        return cls(tuple(terms))

    @cached_property
    def dim(self) -> int:
        """The number of channels."""
        return sum(multiplicity for multiplicity, _ in self.terms)

    @cached_property
    def parities(self) -> tuple[str, ...]:
        """The parity of every channel, in channel order."""
        return tuple(parity for multiplicity, parity in self.terms for _ in range(multiplicity))

    def signs(self, g: GroupElement) -> tuple[int, ...]:
        """Return the sign by which ``g`` multiplies each channel."""
        return self._signs[g]

    @cached_property
    def _signs(self) -> dict[GroupElement, tuple[int, ...]]:
        return {g: tuple(character(parity, g) for parity in self.parities) for g in GROUP}

    def odd_channels(self, g: GroupElement) -> tuple[int, ...]:
        """Return the channels that ``g`` negates."""
        return tuple(channel for channel, sign in enumerate(self.signs(g)) if sign < 0)

    @cached_property
    def even_channels(self) -> tuple[int, ...]:
        """The channels that no element negates."""
        return tuple(channel for channel, parity in enumerate(self.parities) if parity == "ee")

    def __str__(self) -> str:
        return "+".join(f"{multiplicity}x{parity}" for multiplicity, parity in self.terms)


@lru_cache(64)
def _parse(text: str) -> Irreps:
    """Parse a representation, cached: every latent states it, and nearly all state the same."""
    return Irreps._read(text)
