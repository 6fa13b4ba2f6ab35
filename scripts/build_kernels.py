"""Hatch's build hook: a wheel brings the CPU kernels, built for each level of processors.

A wheel then belongs to one platform, such as ``py3-none-manylinux_2_36_x86_64``, and to any Python. Its
libraries need the C library of the machine that built it, or a later one: build releases on an old system.
Without a compiler it is ``py3-none-any``: kernels are then built at first use, where there is a compiler.
``pip install -e`` builds nothing, since its sources change.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # the sources of this package, not an installed one

from auravae_cli.model.cpu.compiled import build_all


class KernelsHook(BuildHookInterface):
    """Builds into a folder that lives until the wheel is written."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="auravae-kernels-")
        try:
            built = build_all(Path(self._folder.name))
        except OSError as error:
            built = {}
            self.app.display_warning(f"no kernels are built: {error}")
        libraries = [path for level in built.values() for path in level]
        if not libraries:
            self.app.display_warning(
                "this wheel has no CPU kernels: they are built at first use, if there is a C compiler"
            )
            return
        self.app.display_info(f"CPU kernels for {', '.join(built)}")
        inside = "auravae_cli/model/cpu/kernels"
        build_data["force_include"].update(
            {str(path): f"{inside}/{path.name}" for path in libraries}
        )
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def _platform() -> str:
    """Return the tag of systems with this C library or a later one."""
    tags = list(platform_tags())
    return next((tag for tag in tags if "linux_2_" in tag or "linux_1_" in tag), tags[0])
