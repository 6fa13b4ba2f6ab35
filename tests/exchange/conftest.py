"""Files of other projects, as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from auravae_cli.latents.latent_file import LatentFile
from tests.exchange import kit


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., tuple[Path, LatentFile]]:
    """``written("kohya", seed=1, g=H)``: a file of a latent, and the latent."""

    def make(name: str, **options: object) -> tuple[Path, LatentFile]:
        latent = kit.make_latent(**{"seed": 0} | options)
        return kit.write(tmp_path, name, latent)[0], latent

    return make
