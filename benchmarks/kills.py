"""What kills cost: commands ended at random moments, and run again.

    python benchmarks/kills.py [--kills 100] [--full-disks 12] [--rounds 20] [--only NAME] [--seed 0]

Each run fills a store from a folder and tars, and is killed (SIGKILL) at a random moment; every
other time the sources change then. One more run must end with the very bytes, hidden files
included, of an undisturbed run. Full disks are small tmpfs, where one may be mounted, else limits
of a file's size. In ``--rounds`` every command that writes is killed as often: encode, flip, import,
export of each format, and stores on a test server of S3 on this machine (`killrounds.py`). ``--only
"export npz"`` does those alone whose names begin so.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from killrounds import kill_all, local_jobs, remote_jobs
from PIL import Image

from auravae_cli.files.scratch import SCRATCH
from auravae_cli.store.names import MANIFEST, shard_of

PROGRAM = [sys.executable, "-m", "auravae_cli", "encode"]
OPTIONS = ["--layout", "shards", "--shard-size", "16", "-m", "linear", "--json"]
SHARDS = 9  # 65 loose pictures, 16 a shard, and 4 tars


def main() -> None:
    """Kill, go on, compare, and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--full-disks", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if arguments.rounds:
        with tempfile.TemporaryDirectory() as name:
            source = make_source(Path(name, "source"), 0)
            jobs = [*local_jobs(source, Path(name)), *remote_jobs(source, Path(name))]
            named = [job for job in jobs if job.name.startswith(arguments.only)]
            kill_all(named, arguments.rounds, arguments.seed)
    if not arguments.kills:
        return
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sources = [make_source(work / f"source{change}", change) for change in (0, 1)]
        started = time.perf_counter()
        whole = [encode(source, work / f"whole{n}")[1] for n, source in enumerate(sources)]
        longest = (time.perf_counter() - started) / len(sources)
        print(f"an undisturbed run: {longest:.2f} s, {SHARDS} shards, {len(whole[0])} files")
        kinds: Counter[str] = Counter()
        lost: Counter[int] = Counter()
        for number in range(arguments.kills):
            store, change = work / f"store{number}", number % 2
            kind, finished, under_way = kill(sources[0], store, moments.uniform(0, longest))
            skipped, found = encode(sources[change], store)
            kinds[kind] += 1
            lost[under_way] += 1
            if not change and not finished <= skipped:
                raise SystemExit(f"kill {number}: finished shards done again: {finished - skipped}")
            check(found, whole[change], f"kill {number}, {kind}")
        print(f"{arguments.kills} kills, {arguments.kills // 2} with sources changed afterwards:")
        for kind in ("before the first commit", "between commits", "within a commit", "at the end"):
            print(f"  {kinds[kind]:4} {kind}")
        print(f"  shards lost per kill: {dict(sorted(lost.items()))}; finished shards lost: 0")
        print("  every store ended as the undisturbed one, byte for byte")
        fill_disks(sources[0], whole[0], work, arguments.full_disks)


def make_source(folder: Path, change: int) -> Path:
    """64 pictures in a folder and 4 tars of 16; with ``change``, one of each is another."""
    folder.mkdir()
    for number in range(128):
        seed = number + 1000 * (change and number % 64 == 5)
        height = 128 + 16 * (seed % 3)
        pixels = np.random.default_rng(seed).integers(0, 256, (height, 128, 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        content = buffer.getvalue()
        if number < 64:
            (folder / f"{number:03d}.png").write_bytes(content)
            continue
        with tarfile.open(folder / f"{number // 16:05d}.tar", "a") as archive:
            member = tarfile.TarInfo(f"{number:03d}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    (folder / "bad.png").write_bytes(b"no picture")
    for path in folder.iterdir():  # the same time but for what changes, as manifests remember it
        is_other = change and path.name in ("005.png", "00004.tar")
        os.utime(path, (1, 2 if is_other else 1))
    return folder


def encode(source: Path, store: Path) -> tuple[set[str], dict[str, bytes]]:
    """Run to the end: the shards that were finished before, and the whole tree of the store."""
    command = [*PROGRAM, str(source), "-o", str(store), *OPTIONS]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 1 or result.stderr:  # one picture is bad
        raise SystemExit(f"the run ended with {result.returncode}: {result.stderr}")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {row["shard"] for row in rows if row["status"] == "skipped"}, tree(store)


def kill(source: Path, store: Path, after: float) -> tuple[str, set[str], int]:
    """Kill a run: where it was, the shards that it had finished, and how many were under way."""
    command = [*PROGRAM, str(source), "-o", str(store), *OPTIONS]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after)
    process.kill()
    process.wait()
    names = set(tree(store))
    finished = {name.removesuffix(MANIFEST) for name in names if name.endswith(MANIFEST)}
    torn = {shard_of(name) for name in names if not name.startswith(SCRATCH)} - finished - {None}
    begun = {match[1] for name in names if (match := re.search(r"(?:spool|output)-(\d+)-", name))}
    if len(finished) == SHARDS:
        kind = "at the end"
    elif torn:
        kind = "within a commit"
    else:
        kind = "between commits" if finished else "before the first commit"
    return kind, finished, max(len(begun), len(torn))


def fill_disks(source: Path, whole: dict[str, bytes], work: Path, count: int) -> None:
    """Runs whose disk is full at some point, and one more with room."""
    total = sum(map(len, whole.values()))
    can_mount = mount(work / "probe", 1 << 20)
    ended: Counter[int] = Counter()
    for number in range(count):
        store, room = work / f"full{number}", 3 * total * (number + 1) // count
        limit = None if can_mount else partial(limit_file_size, room // SHARDS)
        with ExitStack() as stack:
            if can_mount:
                mount(store, room)
                stack.callback(subprocess.run, ["umount", str(store)], check=True)
            command = [*PROGRAM, str(source), "-o", str(store), *OPTIONS]
            result = subprocess.run(
                command, capture_output=True, text=True, check=False, preexec_fn=limit
            )
            if "Traceback" in result.stderr:
                raise SystemExit(f"disk of {room} bytes: {result.stderr}")
            full = result.stderr.startswith("error: cannot write")
            ended[full] += 1
            if can_mount:
                more = ["mount", "-o", f"remount,size={20 * total}", str(store)]
                subprocess.run(more, check=True)
            check(encode(source, store)[1], whole, f"disk of {room} bytes")
    kind = "full tmpfs" if can_mount else "limits of file sizes"
    print(f"{count} {kind}: {ended[True]} runs ended by it with a reason, {ended[False]} had room")
    print("  every store ended as the undisturbed one, byte for byte")


def mount(folder: Path, size: int) -> bool:
    """Mount a tmpfs; whether one may."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if mounted and folder.name == "probe":
        subprocess.run(["umount", str(folder)], check=True)
    return mounted


def limit_file_size(size: int) -> None:
    """For the process that calls it."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def tree(folder: Path) -> dict[str, bytes]:
    """All that lies below a folder, hidden or not."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def check(found: dict[str, bytes], whole: dict[str, bytes], what: str) -> None:
    """End the program unless two trees are the same."""
    names = {name for name in found | whole if found.get(name) != whole.get(name)}
    if names:
        raise SystemExit(f"{what}: differs from the undisturbed store in {sorted(names)}")


if __name__ == "__main__":
    main()
