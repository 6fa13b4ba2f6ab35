"""How fast latents are exported and imported, against copying them.

    python benchmarks/exchange.py [--latents 10000] [--rounds 5] [--formats kohya,musubi]

A store of latents of 16 x 32 x 32 in float16, four shards, is exported in each format, and imported
again as latent files and as a store. "of a copy": against a safe copy (temporary name, fsync, rename;
one file after the other) that reads the same files and writes as many as the task does, with the
latents' own bytes dealt out among them. "of its files": against safe copies of the other project's
files, whose bytes may be four times as many (float32, two orientations). "CPU": processor time of a
latent, which other programs disturb less. Interleaved, after a warm-up round; the source is in the page
cache. Start-up is not in it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from reading import SPACE, make_files

from auravae_cli import export_latents, import_files, import_store
from auravae_cli.exchange.registry import FORMATS
from auravae_cli.files.atomic import atomic_file


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--latents", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    written = ",".join(name for name, form in FORMATS.items() if form.write)
    parser.add_argument("--formats", default=written)
    parser.add_argument("--tasks", default="export,import to files,import to a store")
    parser.add_argument("--folder", help="Where to work. Default: the system's temporary folder.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        make_files(folder, arguments.latents)
        shutil.rmtree(folder / "files")
        print(f"{arguments.latents} latents of 16 x 32 x 32, float16, {arguments.rounds} rounds")
        print(
            f"{'':<30} {'median':>8} {'quartiles':>17} {'of a copy':>10} {'of its files':>11} {'CPU':>9}"
        )
        for form in arguments.formats.split(","):
            measure(folder, form, arguments, arguments.tasks.split(","))


def measure(folder: Path, form: str, arguments: argparse.Namespace, tasks: list[str]) -> None:
    """Measure one format: export, import to files, import to a store."""
    store, out = folder / "store", folder / "out"
    export(store, out, form)
    latents, exported = files_of(store, "*.safetensors"), files_of(out)
    to_files(out, folder / "back", form)
    to_store(out, folder / "again", form)
    # What each task reads, what it writes, and how many bytes the copy writes in as many files.
    work: dict[str, tuple[Callable[[Path], object], list[Path], list[Path], int]] = {
        "export": (partial(export, store, form=form), latents, exported, size_of(latents))
    }
    for task, name, make in (
        ("import to files", "back", to_files),
        ("import to a store", "again", to_store),
    ):
        written = files_of(folder / name)
        work[task] = (partial(make, out, form=form), exported, written, size_of(written))
    for task, (call, source, written, total) in ((task, work[task]) for task in tasks):
        contenders: dict[str, Callable[[Path], object]] = {
            "own": call,
            "copy": partial(copy_bytes, source, len(written), total),
            "files": partial(copy_files, exported),
        }
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        computed: list[float] = []
        target = folder / "target"
        for _ in range(arguments.rounds + 1):
            for contender, run in contenders.items():
                started, before = time.perf_counter(), time.process_time()
                run(target)
                seconds[contender].append(time.perf_counter() - started)
                if contender == "own":
                    computed.append(time.process_time() - before)
                shutil.rmtree(target)
        low, median, high = statistics.quantiles(seconds["own"][1:], n=4)
        copy, same = (statistics.median(seconds[c][1:]) / median for c in ("copy", "files"))
        print(
            f"{form + ', ' + task:<30} {median:7.2f}s "
            f"{low:6.2f} to {high:5.2f}s {copy:9.0%} {same:12.0%} "
            f"{1e6 * statistics.median(computed[1:]) / arguments.latents:6.0f} us",
            flush=True,
        )
    for name in ("out", "back", "again"):
        shutil.rmtree(folder / name)


def size_of(files: list[Path]) -> int:
    """The bytes of files."""
    return sum(file.stat().st_size for file in files)


def export(store: Path, out: Path, form: str) -> None:
    """What `auravae export` runs."""
    check(outcome.status for outcome in export_latents(store, out, form).outcomes)


def to_files(out: Path, back: Path, form: str) -> None:
    """What `auravae import --layout files` runs."""
    made = import_files(out, back, form, assume_model=SPACE.model).outcomes
    check(one.status for one in made if one.reason != "the flipped copy of another")


def to_store(out: Path, store: Path, form: str) -> None:
    """What `auravae import --layout shards` runs."""
    made = import_store(out, store, form, assume_model=SPACE.model).outcomes
    check(outcome.status for outcome in made)


def check(statuses: Iterable[str]) -> None:
    """Fail where anything was not done, which would be fast."""
    for status in statuses:
        if status != "done":
            raise SystemExit(f"something was {status}")


def files_of(folder: Path, pattern: str = "*") -> list[Path]:
    """The files below a folder."""
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


def copy_files(files: list[Path], to: Path) -> None:
    """Safe copies of files."""
    for number, file in enumerate(files):
        with file.open("rb") as reader, atomic_file(to / f"{number}") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def blocks_of(files: list[Path]) -> Iterator[memoryview]:
    """The bytes of files, a megabyte at a time."""
    for file in files:
        with file.open("rb", buffering=0) as reader:
            while block := reader.read(1 << 20):
                yield memoryview(block)


def copy_bytes(files: list[Path], count: int, total: int, to: Path) -> None:
    """Read files whole, and write ``total`` bytes of them as ``count`` safe files of one size."""
    blocks, size, left = blocks_of(files), -(-total // count), memoryview(b"")
    for number in range(count):
        with atomic_file(to / f"{number}") as writer:
            missing = size
            while missing and (left := left or next(blocks, left)):
                writer.write(left[:missing])
                left, missing = left[missing:], missing - min(missing, len(left))
    for _ in blocks:  # what is read has its cost, too
        pass


if __name__ == "__main__":
    main()
