"""Mutation fuzzing of what others may have written: is every fault told as one of ours?

    python benchmarks/fuzz.py [--cases 10000] [--seed 0] [--only manifest npz]

Sound files of every kind are damaged at random: bytes, fields of JSON, numbers and words of TOML,
members of archives, headers of arrays. All that reads such a file runs on each of them, the program's
commands among it, in a child process with limits of memory and time. Counted are errors that are
not ours, inputs that cost more than the limits, and files outside of the output folder.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from damage import damage
from PIL import Image

MEASURED = {
    "symmetry": "none",
    "compute_dtype": "float32",
    "device": "cpu",
    "stored_dtype": "float16",
}
SECONDS, MEMORY = 20, 2 << 30  # that a case may take; address space beside what was there before
CASES_AT_ONCE = 1000  # in one process
COMMANDS_EVERY = 16  # cases; a command takes longer than a reader


# --- what is fuzzed ---


@dataclass(frozen=True)
class Target:
    """A kind of file: which files of the sound inputs are damaged, and what reads them.

    ``read`` gets the folder of inputs, that of outputs, and the damaged file; ``commands`` are
    arguments of the program.
    """

    name: str
    pattern: str
    read: Callable[[Path, Path, Path], None]
    commands: tuple[tuple[str, ...], ...] = ()


def read_store(inputs: Path, output: Path, file: Path) -> None:
    """All that reads a store."""
    from auravae_cli import verify_store
    from auravae_cli.files.storage import LocalStorage
    from auravae_cli.store.certificate import read_certificate
    from auravae_cli.store.reader import LatentStore
    from auravae_cli.store.survey import survey

    storage = LocalStorage(inputs / "store")
    for work in (
        lambda: survey(storage),
        lambda: verify_store(inputs / "store"),
        lambda: read_certificate(storage),
        lambda: read_parts(LatentStore(inputs / "store")),
    ):
        ours(work)


def read_parts(store: Any) -> None:
    """Every value and every record of a store."""
    for number in range(len(store.parts)):
        store.values(number).sum()
        store.records(number)


def read_latent(inputs: Path, output: Path, file: Path) -> None:
    """All that reads a latent file."""
    from auravae_cli import HV, read_latents
    from auravae_cli.latents.latent_file import write_flipped
    from auravae_cli.operations.describe import describe

    def work() -> None:
        latents = read_latents(file)
        latents.to_bytes()
        describe(latents)
        write_flipped(output / "flipped.safetensors", latents, HV)
        latents.to_float32()

    ours(work)


def read_foreign(inputs: Path, output: Path, file: Path) -> None:
    """An import of the folder that the file lies in, as the format of that name."""
    from auravae_cli.exchange.adopt import LatentImporter
    from auravae_cli.exchange.import_files import Importer
    from auravae_cli.exchange.registry import FORMATS
    from auravae_cli.model.latent_space import read_space
    from auravae_cli.operations.inputs import Source

    root = next(path for path in file.parents if path.parent == inputs)
    form = FORMATS[root.name]
    adopt = LatentImporter(form.name, read_space("linear"))
    # An index beside these is damaged, too.
    indexed = {"edm2": "*.npy", "litdata": "*.bin", "diffusion-pipe": "*.bin"}
    indexed |= {"onetrainer": "[0-9]*.pt"}
    paths = sorted(root.rglob(indexed[form.name])) if form.name in indexed else [file]
    sources = [Source(path, path.relative_to(root)) for path in paths]
    ours(lambda: list(Importer(form, adopt, output).run(sources)))


def read_toml(inputs: Path, output: Path, file: Path) -> None:
    """A config as the kind that its folder says."""
    from auravae_cli.files.toml_config import read_config
    from auravae_cli.model.spec.config import ModelConfig
    from auravae_cli.train.recipe import Recipe

    kind: Any = ModelConfig if file.parent.name == "model" else Recipe
    ours(lambda: asdict_of(read_config(file, kind)))


def asdict_of(config: Any) -> None:
    """What a sound config is asked for."""
    if config.architecture is not None:
        assert config.architecture.widths and config.architecture.downsampling_factor
    if hasattr(config, "to_json"):
        config.to_json()


def read_results(inputs: Path, output: Path, file: Path) -> None:
    """The lines of an evaluation, and what is made of them."""
    from auravae_cli.evaluation.results import Results
    from auravae_cli.latents.sums import LatentSums
    from auravae_cli.model.latent_space import read_space
    from auravae_cli.store.certificate import make_certificate

    def work() -> None:
        for row in Results(file.parent)._rows.values():
            LatentSums.from_text(row["moments"]).statistics()
            if row["flips"]:
                rows = [{**row["flips"], "picture": row["picture"]}]
                make_certificate(read_space("linear"), rows, {}, MEASURED, "").to_bytes()

    ours(work)


def ours(work: Callable[[], object]) -> None:
    """Errors of ours are what a damaged file is to give."""
    from auravae_cli import AuraVaeError

    with suppress(AuraVaeError):
        work()


FOREIGN = ("ai-toolkit", "comfyui", "kohya", "lightningdit", "mar", "musubi", "webdataset")
OF_MANY = {"mds": "*.mds", "litdata": "*", "sana": "*.tar"}  # beside what only exports read
OF_MANY |= {"repa-e": "*.h5"} if find_spec("h5py") else {}
CACHES = ("onetrainer", "diffusion-pipe", "nemo")  # that are only imported
STORE = (
    ("info", "store"),
    ("verify", "store"),
    ("flip", "-H", "store", "-o", "out/flipped"),
    ("decode", "store", "-o", "out/pictures"),
    ("export", "store", "--to", "npz", "-o", "out/npz"),
    ("encode", "photos", "-o", "store", "--layout", "shards", "--json"),
)
LATENT = (
    ("info", "latents"),
    ("decode", "latents", "-o", "out/pictures"),
    ("flip", "-V", "latents", "-o", "out/flipped"),
    ("export", "latents", "--to", "kohya", "-o", "out/kohya"),
    ("show", "latents/a.safetensors"),
)
TARGETS = [
    Target("manifest", "store/*.manifest.json", read_store, STORE),
    Target("ledger", "store/*.failures.jsonl", read_store, STORE),
    Target("settings", "store/store.json", read_store, STORE),
    Target("certificate", "store/certificate.json", read_store, STORE),
    Target("record of a shard", "store/*.safetensors", read_store, STORE),
    Target("record of a latent", "latents/*.safetensors", read_latent, LATENT),
    Target("results", "results/results.jsonl", read_results),
    Target("model config", "configs/model/*.toml", read_toml),
    Target("recipe", "configs/train/*.toml", read_toml, (("train", "configs/train/tiny.toml"),)),
    *(Target(name, f"{name}/**/*.np[yz]", read_foreign) for name in ("npy", "npz", "edm2")),
    Target("edm2 labels", "edm2/dataset.json", read_foreign),
    Target("pt", "pt/**/*.pt", read_foreign),
    *(Target(name, f"{name}/**/*", read_foreign) for name in (*FOREIGN, "safetensors")),
    *(Target(name, f"{name}/{files}", read_foreign) for name, files in OF_MANY.items()),
    *(Target(name, f"{name}/**/*", read_foreign) for name in CACHES),
]


# --- one run ---


@dataclass
class Counts:
    """What became of the cases of a target; ``examples`` has the first of each fault."""

    cases: int = 0
    foreign: int = 0
    slow: int = 0
    memory: int = 0
    outside: int = 0
    examples: tuple[str, ...] = ()

    @property
    def faults(self) -> int:
        """All of them."""
        return self.foreign + self.slow + self.memory + self.outside


class Slow(BaseException):
    """A case that took too long."""


def make_inputs(folder: Path) -> None:
    """Sound files of every kind, made by the program itself."""
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir(parents=True)
    for name in "abc":
        pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{name}.png")
        (folder / "photos" / f"{name}.txt").write_text("a caption")
        (folder / "photos" / f"{name}.cls").write_text("3")
    (folder / "photos" / "bad.png").write_text("no picture")
    os.chdir(folder)
    command("encode", "photos", "-o", "store", "--layout", "shards", "--shard-size", "2")
    command("eval", "photos/a.png", "-o", "results", "--certify", "store", "--flips", "1")
    command("encode", "photos/a.png", "photos/b.png", "-o", "latents")
    shutil.copy(
        next((folder / "store").glob("*.safetensors")), folder / "latents" / "shard.safetensors"
    )
    for form in ("npy", "npz", "edm2", "pt", "safetensors", *FOREIGN, *OF_MANY):
        command("export", "store", "--to", form, "-o", form)
    make_caches(folder)
    configs = Path(__file__).parents[1] / "configs"
    shutil.copytree(configs, folder / "configs")
    shutil.copy(folder / "configs/train/small.toml", folder / "configs/train/tiny.toml")


def make_caches(folder: Path) -> None:
    """Caches as their trainers make them; see `auravae_cli.exchange.formats.caches`."""
    import torch

    one, pipe, nemo = (folder / name for name in ("onetrainer/image/a/b-0", *CACHES[1:]))
    for place in (one, pipe, nemo / "16x24"):
        place.mkdir(parents=True)
    places, content = list[tuple[int, int]](), b""
    for number in range(2):
        z, picture = torch.randn(16, 2, 3).clamp(-8, 8), f"/data/{number}.png"
        size = {"original_resolution": (30, 40)}
        torch.save({"latent_image": z.bfloat16(), **size}, one / f"{number}.pt")
        table = {"latent": z, "image_path": picture, "prompt": "a caption", **size}
        torch.save(table, nemo / f"16x24/{number}.pt")
        table = {"latents": z[:, None], "image_spec": (None, picture), "caption": ["a caption"]}
        torch.save(table, buffer := io.BytesIO())
        places.append((len(content), buffer.tell()))
        content += buffer.getvalue()
    torch.save([{"image_path": f"/data/{n}.png"} for n in range(2)], one / "aggregate.pt")
    (pipe / "shard_0.bin").write_bytes(content)
    with closing(sqlite3.connect(pipe / "metadata.db")) as database:
        database.execute("CREATE TABLE shard_0(offset, size)")
        database.executemany("INSERT INTO shard_0 VALUES (?, ?)", places)
        database.commit()


def command(*arguments: str) -> object:
    """The program in this process; its exit code."""
    from auravae_cli.cli.app import main

    before, sys.argv = sys.argv, ["auravae", *arguments]
    try:
        with redirect_stdout(_text()), redirect_stderr(_text()):
            main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before
    return None


def _text() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")


def run_target(target: Target, sound: Path, cases: range, seed: int, work: Path) -> Counts:
    """Damage and read; every case in this process, which has limits."""
    counts, inputs = Counts(), work / "in"
    shutil.copytree(sound, inputs)
    os.chdir(inputs)
    files = sorted(path for path in inputs.glob(target.pattern) if path.is_file())
    names = listing(work)
    for number in cases:
        rng = random.Random(f"{seed} {target.name} {number}")
        file = rng.choice(files)
        content = file.read_bytes()
        file.write_bytes(damage(rng, file.name, content))
        (inputs / "out").mkdir()
        counts.cases += 1
        try:
            with limited():
                target.read(inputs, inputs / "out", file)
                if target.commands and number % COMMANDS_EVERY == 0:
                    command(*rng.choice(target.commands))
        except Slow:
            note(counts, "slow", number, "took too long")
        except MemoryError as error:
            note(counts, "memory", number, described(error))
        except Exception as error:
            note(counts, "foreign", number, described(error))
        shutil.rmtree(inputs / "out")
        file.write_bytes(content)
        if (found := listing(work)) != names:
            if strange := [n for n in found ^ names if not n.startswith("in/store/")]:
                note(counts, "outside", number, f"{strange}")
            shutil.rmtree(inputs)
            shutil.copytree(sound, inputs)
    return counts


def note(counts: Counts, kind: str, number: int, text: str) -> None:
    """Count a fault, and keep the first few."""
    setattr(counts, kind, getattr(counts, kind) + 1)
    if len(counts.examples) < 5:
        counts.examples += (f"case {number}: {kind}: {text}",)


def described(error: Exception) -> str:
    """An error in a line, and the last places in the package that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "auravae_cli" in f.filename]
    return f"{type(error).__name__}: {str(error)[:200]!r} at {' > '.join(places[-4:])}"


def listing(folder: Path) -> set[str]:
    """The names of all files below a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@contextmanager
def limited() -> Iterator[None]:
    """Seconds for what is done in it."""

    def end(number: int, frame: object) -> None:
        raise Slow

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def in_child(work: Callable[[], Counts]) -> Counts | None:
    """What ``work`` gives in a process of its own with a limit of memory; None where it died."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        warnings.simplefilter("ignore")  # of zipfile, about the damage that is done here
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        try:
            content = json.dumps(vars(work())).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(content)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return Counts(**json.loads(content)) if content else None


def fuzz(target: Target, sound: Path, cases: int, seed: int) -> Counts:
    """Run a target, so many cases in one process each."""
    total = Counts()
    for first in range(0, cases, CASES_AT_ONCE):
        part = range(first, min(first + CASES_AT_ONCE, cases))
        with tempfile.TemporaryDirectory() as work:
            run = partial(run_target, target, sound, part, seed, Path(work))
            add(total, in_child(run))
    return total


def sound_inputs(folder: Path) -> Path:
    """The folder, with sound files of every kind."""
    here = Path.cwd()
    try:
        make_inputs(folder)
    finally:
        os.chdir(here)
    return folder


def add(total: Counts, part: Counts | None) -> None:
    """Add a part; a process that died is a fault."""
    if part is None:
        total.foreign += 1
        total.examples = (*total.examples, "the process died")
        return
    for name in ("cases", "foreign", "slow", "memory", "outside"):
        setattr(total, name, getattr(total, name) + getattr(part, name))
    total.examples = (*total.examples, *part.examples)[:5]


def main() -> None:
    """Fuzz, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=[t.name for t in TARGETS], metavar="TARGET")
    arguments = parser.parse_args()
    import torch  # once, before the children are made

    torch.set_num_threads(1)
    os.environ["AURAVAE_MODEL"] = "linear"
    targets = [t for t in TARGETS if not arguments.only or t.name in arguments.only]
    print(
        f"{'target':<20}{'cases':>8}{'not ours':>10}{'slow':>6}{'memory':>8}{'outside':>9}{'s':>8}"
    )
    faults: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        sound = sound_inputs(Path(name, "sound"))
        for target in targets:
            started = time.perf_counter()
            found = fuzz(target, sound, arguments.cases, arguments.seed)
            numbers = f"{found.cases:>8}{found.foreign:>10}{found.slow:>6}{found.memory:>8}"
            seconds = time.perf_counter() - started
            print(f"{target.name:<20}{numbers}{found.outside:>9}{seconds:>8.0f}", flush=True)
            for example in found.examples:
                print(f"  {example}")
            faults[target.name] = found.faults
    sys.exit(1 if faults.total() else 0)


if __name__ == "__main__":
    main()
