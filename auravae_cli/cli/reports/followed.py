"""A call with steps and a line that moves, for commands that print the result at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from auravae_cli.cli.terminal.live import Live
from auravae_cli.machine.progress import Phase


@dataclass
class Followed:
    """Follows a call that has steps: ``with Followed() as progress: call(..., progress=progress)``.

    ``hear`` gets each step.
    """

    hear: Callable[[Any], None] = lambda step: None
    hidden: bool = False
    live: Live = field(default_factory=Live)

    def __enter__(self) -> Followed:
        self.live.hidden = self.hidden
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__()

    def __call__(self, step: Any, done: int, total: int) -> None:
        """Hear that a call begins, or of one more step."""
        if step is not None:
            self.hear(step)
        self.live.items, self.live.of = done, total

    def begin(self, phase: Phase) -> None:
        """Hear what begins."""
        self.live.begin(phase.text, phase.seconds)
