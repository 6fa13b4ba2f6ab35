"""Every command that writes, killed at random moments and run again: the place must end as if nothing had been."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from auravae_cli.exchange.registry import FORMATS

PROGRAM = [sys.executable, "-m", "auravae_cli"]
SQUARES = ["--resize", "64", "--center-crop", "64"]  # which some formats insist on
Tree = dict[str, bytes]


@dataclass(frozen=True)
class Job:
    """A command whose last argument is the place that it writes to.

    ``look`` lists all that is there; ``watched`` is the folder that fills once the run begins to
    write: that place, unless it is named.
    """

    name: str
    command: list[str]
    place: str
    look: Callable[[str], Tree]
    code: int = 0
    watched: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, place: str) -> subprocess.Popen[bytes]:
        command = [*PROGRAM, *self.command, "-o", place]
        environment = os.environ | self.environment
        return subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def wait_for_writes(self, process: subprocess.Popen[bytes], place: str) -> float:
        """Wait until a run begins to write, or ends; when that was."""
        folder = Path(self.watched or place)
        while process.poll() is None and not (folder.is_dir() and any(folder.iterdir())):
            time.sleep(0.002)
        return time.perf_counter()

    def run(self, place: str) -> Tree:
        """Run to the end; all that is there then."""
        process = self.start(place)
        _, err = process.communicate()
        if process.returncode != self.code:
            raise SystemExit(f"{self.name}: ended with {process.returncode}: {err.decode()}")
        return self.look(place)


def kill_all(jobs: list[Job], rounds: int, seed: int) -> None:
    """Kill each job ``rounds`` times, run it again, and compare with an undisturbed run."""
    for job in jobs:
        moments = random.Random(f"{seed} {job.name}")
        process = job.start(f"{job.place}/timed")
        begun = job.wait_for_writes(process, f"{job.place}/timed")
        process.communicate()
        busy = time.perf_counter() - begun
        whole = job.run(f"{job.place}/whole")
        inside = unfinished = 0
        for number in range(rounds):
            place = f"{job.place}/{number}"
            process = job.start(place)
            job.wait_for_writes(process, place)
            time.sleep(moments.uniform(0, busy))
            process.kill()
            process.communicate()
            left = job.look(place)
            inside += left != whole and bool(left)
            unfinished += any("/." in f"/{name}" for name in left)
            found = job.run(place)
            names = {name for name in found | whole if found.get(name) != whole.get(name)}
            if names:
                raise SystemExit(f"{job.name}, kill {number}: differs in {sorted(names)}")
        print(
            f"{job.name:24} {rounds} kills within {busy:.2f} s of writing, {inside} with some of it done, "
            f"{unfinished} with unfinished files: all ended as the undisturbed run",
            flush=True,
        )


def local_jobs(source: Path, work: Path) -> list[Job]:
    """Encode, flip, import and every export, on this machine."""
    store = work / "squares"
    encode = ["encode", str(source), "-m", "linear", *SQUARES]
    shards = ["--layout", "shards", "--shard-size", "16"]
    Job("store", [*encode, *shards], "", tree, 1).run(str(store))
    Job("npz", ["export", str(store), "--to", "npz"], "", tree).run(str(work / "npz"))
    take = ["import", str(work / "npz"), "--from", "npz"]
    commands = {
        "encode to a store": [*encode, *shards],
        "encode to files": [*encode, "--layout", "files"],
        "flip a store": ["flip", str(store), "-H"],
        "import to files": take,
        "import to a store": [*take, *shards],
    } | {
        f"export {name}": ["export", str(store), "--to", name]
        for name, form in FORMATS.items()
        if form.write
    }
    return [
        Job(name, command, str(work / name.replace(" ", "-")), tree, int(command[0] == "encode"))
        for name, command in commands.items()
    ]


def remote_jobs(source: Path, work: Path) -> list[Job]:
    """A store on S3, from pictures and from another store; its scratch must be gone, too."""
    import fsspec
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *_: object) -> None:
            pass

    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    temporary = work / "tmp"
    temporary.mkdir()
    environment = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TMPDIR": str(temporary),
    }
    os.environ.update({name: value for name, value in environment.items() if name != "TMPDIR"})
    files = fsspec.filesystem("s3")
    files.mkdir("bucket")

    def look(place: str) -> Tree:
        files.invalidate_cache()
        prefix = place.removeprefix("s3://")
        names = files.find(prefix)
        objects = {name[len(prefix) + 1 :]: files.cat_file(name) for name in names}
        return objects | {f"tmp/.{name}": data for name, data in tree(str(temporary)).items()}

    encode = ["encode", str(source), "-m", "linear", *SQUARES, "--layout", "shards"]
    flip = ["flip", str(work / "squares"), "-H"]
    return [
        Job("encode to S3", encode, "s3://bucket/encoded", look, 1, str(temporary), environment),
        Job("flip to S3", flip, "s3://bucket/flipped", look, 0, str(temporary), environment),
    ]


def tree(folder: str) -> Tree:
    """All that lies below a folder, hidden or not; a folder as its name with a slash."""
    return {
        path.relative_to(folder).as_posix() + "/" * path.is_dir(): (
            b"" if path.is_dir() else path.read_bytes()
        )
        for path in Path(folder).rglob("*")
    }
