"""Build what is published, and check it: contents, sizes, metadata, types, and a start without PyTorch.

    pip install build twine && python scripts/check_release.py [--output dist]

The wheel for installations without PyTorch is tried in an empty environment, so the package index must be
within reach. The exit code is 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

from build_light import build_light

REPOSITORY = Path(__file__).parents[1]
NEEDED = (
    *(
        "auravae_cli/py.typed",
        "auravae/py.typed",
        "auravae/__init__.py",
        "auravae_cli/model/cpu/native.c",
    ),
    *(f"auravae_cli/weights/{model}.safetensors" for model in ("linear", "small", "small-1")),
    *(
        f"auravae_cli/configs/{name}.toml"
        for name in ("model/small", "train/small", "protocol/kodak")
    ),
    "licenses/LICENSE",
)
FOREIGN = ("tests/", "benchmarks/", "findings/", "__pycache__", ".pyc")
MOST_BYTES = {"wheel": 16 << 20, "sdist": 24 << 20}
# What has to work without torch, in a folder with coffee.jpg; "!" where it has to say that it cannot.
WITHOUT_TORCH = """
encode coffee.jpg -m linear
flip coffee.safetensors -H
info coffee.safetensors
show coffee.safetensors --width 20
decode coffee.h.safetensors
encode coffee.jpg -m linear -o store --layout shards
verify store
flip store -H -o mirrored
export store --to kohya -o cache
import cache --from kohya --assume-model linear -o back
eval coffee.jpg -m linear --quick --lpips none --protocol kodak
encode coffee.jpg -o other
decode other/coffee.safetensors
!encode coffee.jpg --dtype float16 -o other
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("dist"))
    output = parser.parse_args().output.resolve()
    run(sys.executable, "-m", "build", "--outdir", output, REPOSITORY)
    build_light(output)
    found = sorted(output.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *found)
    faults = [fault for path in found for fault in contents(path)]
    (light,) = (path for path in found if path.name.startswith("auravae_light"))
    faults += list(without_torch(light))
    print(*faults or ["sound"], sep="\n")
    sys.exit(bool(faults))


def run(*command: object, **options: object) -> None:
    """Run a program. Raises CalledProcessError if it fails."""
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]


def contents(path: Path) -> Iterator[str]:
    """Yield what a distribution lacks, what should not be in it, and whether it is too large."""
    is_wheel = path.suffix == ".whl"
    if is_wheel:
        names = zipfile.ZipFile(path).namelist()
    else:
        with tarfile.open(path) as tar:
            names = tar.getnames()
    print(f"{path.name}: {len(names)} files, {path.stat().st_size / 2**20:.1f} MiB")
    if path.stat().st_size > MOST_BYTES["wheel" if is_wheel else "sdist"]:
        yield f"{path.name}: {path.stat().st_size} bytes are more than expected"
    if is_wheel:
        yield from (
            f"{path.name}: lacks {name}"
            for name in NEEDED
            if not any(found.endswith(name) for found in names)
        )
        yield from (
            f"{path.name}: has {name}" for name in names if any(part in name for part in FOREIGN)
        )


def without_torch(wheel: Path) -> Iterator[str]:
    """Yield what fails in an empty environment, and whether types are seen there."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        venv.create(place / "venv", with_pip=True)
        programs = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = programs / "python"
        constraints = REPOSITORY / "constraints.txt"
        run(python, "-m", "pip", "install", "--quiet", "-c", constraints, wheel, "mypy")
        size = sum(p.stat().st_size for p in (place / "venv").rglob("*") if p.is_file())
        print(f"{wheel.name}: {size / 2**20:.0f} MiB installed, mypy included")
        (place / "coffee.jpg").write_bytes((REPOSITORY / "samples" / "coffee.jpg").read_bytes())
        for line in WITHOUT_TORCH.split("\n"):
            words = line.lstrip("!").split()
            if not words:
                continue
            done = subprocess.run(
                [programs / "auravae", *words],
                check=False,
                cwd=place,
                capture_output=True,
                text=True,
            )
            if done.returncode != (3 if line.startswith("!") else 0):
                yield f"auravae {line}: exit code {done.returncode}: {done.stderr}"
        script = place / "users_script.py"
        script.write_bytes((REPOSITORY / "tests" / "users_script.py").read_bytes())
        options = ["--strict", "--ignore-missing-imports", "--follow-imports", "silent"]
        done = subprocess.run(
            [python, "-m", "mypy", *options, script],
            check=False,
            cwd=place,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            yield f"mypy on a user's script: {done.stdout}{done.stderr}"


if __name__ == "__main__":
    main()
