"""The output of `auravae train`: a bar on stderr, validations on stdout."""

from __future__ import annotations

from collections import deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from auravae_cli.cli.shared.signals import Stop, stopping
from auravae_cli.cli.terminal.lines import say, tell, tell_json
from auravae_cli.cli.terminal.live import Live, Pace, duration
from auravae_cli.machine.progress import Phase
from auravae_cli.train.processes import is_first_process
from auravae_cli.train.recipe import Stage
from auravae_cli.train.run import Opening
from auravae_cli.train.session import Event, TrainingResult
from auravae_cli.train.status import RECENT, Status, Validation, read_status, status_of

VALIDATIONS_SHOWN = 10


@dataclass
class TrainingReporter:
    """Follows a training: ``with TrainingReporter(...) as report: train_model(..., progress=report)``.

    While there are steps to save, a signal ends the run after the present one, which has the checkpoint
    written; before and after, it acts at once. Of several processes, the first one reports.
    """

    as_json: bool
    quiet: bool
    live: Live = field(default_factory=lambda: Live("starting"))
    _stages: tuple[Stage, ...] = ()
    _records: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=RECENT))
    _signals: ExitStack = field(default_factory=ExitStack)
    _stop: Stop | None = None

    def __enter__(self) -> TrainingReporter:
        self.live.hidden = self.quiet or not is_first_process()
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.close()
        self.live.__exit__()

    def begin(self, phase: Phase) -> None:
        """Hear what begins, between the steps."""
        self.live.begin(phase.text, phase.seconds)
        self._signals.close()
        self._stop = None

    def __call__(self, event: Event | None, done: int, total: int) -> None:
        """Hear of the opening, a step or a validation. After a signal, raises what it raises."""
        if isinstance(event, Opening):
            self._open(event, total)
        elif isinstance(event, Validation):
            status = status_of(event.step, self._stages, tuple(self._records))
            _report(event, status, self.as_json, self.quiet)
        elif event is not None:
            self._records.append((event.step, event.seconds))
            self.live.begin(f"PSNR {event.psnr:5.2f} dB  rate {event.learning_rate:.1e}")
            self.live.items, self.live.pace.done = done, done - self.live.before
        if self._stop is not None and self._stop.is_set():
            self._stop.act()

    def finish(self, result: TrainingResult) -> None:
        """Tell where the model is."""
        if not self.live.hidden:
            say(f"{result.model}: {result.name}, {result.steps} steps")

    def _open(self, opening: Opening, total: int) -> None:
        if not self.live.hidden:
            _announce(opening)
        self._stages = tuple(Stage(*stage) for stage in opening.stages)
        self.live.before = self.live.items = opening.step
        self.live.of, self.live.pace = total, Pace(total - opening.step)
        self._stop = self._signals.enter_context(stopping())


def show_status(folder: Path, *, as_json: bool) -> None:
    """Print the progress of the run in ``folder``. Raises ConfigError."""
    status = read_status(folder)
    if as_json:
        tell_json(asdict(status))
        return
    tell(f"step {status.step} of {status.num_steps}, {status.step / status.num_steps:.1%}")
    tell(f"  pixels    {status.pixels:,} of {status.num_pixels:,}")
    if status.pixels_per_second and status.seconds_left is not None:
        tell(f"  speed     {status.pixels_per_second:,.0f} pixels a second")
        tell(f"  left      {duration(status.seconds_left)}")
    for held in status.validations[-VALIDATIONS_SHOWN:]:
        tell(f"  held out  PSNR {held.psnr:.2f} dB  SSIM {held.ssim:.4f}  at step {held.step}")


def _announce(opening: Opening) -> None:
    for fault in opening.unreadable:
        say(f"left out: {fault}")
    going_on = f", going on from step {opening.step}" if opening.step else ""
    for change in opening.changes:
        say(f"changed: {change}")
    say(f"{opening.num_training} pictures, {opening.num_validation} held out{going_on}")
    if opening.num_training < opening.num_validation:
        say(
            "warning: fewer pictures to train on than are held out; name more with --data, or lower "
            "data.num_validation in the recipe"
        )


def _report(validation: Validation, status: Status, as_json: bool, quiet: bool) -> None:
    if as_json:
        tell_json(asdict(validation))
    elif not quiet:
        numbers = f"PSNR {validation.psnr:.2f} dB  SSIM {validation.ssim:.4f}"
        left = f"  {duration(status.seconds_left)} left" if status.seconds_left else ""
        tell(f"step {validation.step}  held out: {numbers}{left}", flush=True)
