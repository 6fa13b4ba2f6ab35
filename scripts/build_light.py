"""Build auravae-light: the same package for installations without PyTorch.

    python scripts/build_light.py [--output dist]

It has the same modules under another name of the distribution, and does not depend on torch: install it
instead of auravae, not beside it. Without torch, models run on a CPU by the kernels alone.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
TREE = ("auravae", "auravae_cli", "configs", "scripts", "README.md", "LICENSE")
CHANGES = {
    'name = "auravae"': 'name = "auravae-light"',
    "flip without the model": "flip without the model: without PyTorch",
    '  "torch>=2.6",\n': "",
    '"auravae[hub,': '"auravae-light[hub,',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("dist"))
    build_light(parser.parse_args().output)


def build_light(output: Path) -> None:
    """Build the wheel into a folder. Raises ValueError if the settings are not those that it changes."""
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        if text.count(old) != 1:
            raise ValueError(f"pyproject.toml: expected {old!r} once")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        for name in TREE:
            source, target = REPOSITORY / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        Path(folder, "pyproject.toml").write_text(text, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--outdir",
            str(output.resolve()),
            folder,
        ]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
