"""Random numbers as a pure function: the same for any worker, rank and order."""

from __future__ import annotations

_WORD = (1 << 64) - 1


def mix(state: int, number: int) -> int:
    """Return a pseudorandom 64-bit word from a state and a number (splitmix64's finalizer).

    >>> mix(0, 1) == mix(0, 1) != mix(0, 2)
    True
    """
    word = (state + (number + 1) * 0x9E3779B97F4A7C15) & _WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return word ^ (word >> 31)


def draw(count: int, *numbers: int) -> int:
    """Return one of 0 to ``count - 1``, uniformly, as a function of ``numbers`` only.

    >>> sum(draw(2, 0, 0, index) for index in range(1000)) in range(450, 550)
    True
    """
    state = 0
    for number in numbers:
        state = mix(state, number)
    return state * count >> 64
