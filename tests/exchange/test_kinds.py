"""What every format writes is recognised by commands for other files, with the name to import it."""

from __future__ import annotations

import pytest

from auravae_cli.files.kinds import kind_of, kind_of_file
from tests.exchange import kit

ALIKE = {
    "edm2": "npy",
    "lightningdit": "safetensors",
    "simpletuner": "pt",
}  # where the first bytes do not tell


UNTOLD = {"webdataset", "sana", "litdata"}  # tars, and a file that does not say what it is


@pytest.mark.parametrize("name", sorted(kit.WRITTEN.keys() - UNTOLD))
def test_a_file_of_another_project_is_recognised(name, written):
    start = written(name)[0].read_bytes().replace(b'"auravae":', b'"unknown":')  # not our export
    assert f"`auravae import --from {ALIKE.get(name, name)}`" in str(kind_of(start))


def test_a_tar_is_for_a_store(written):
    assert "a tar: `auravae encode TAR -o STORE`" in str(kind_of_file(written("webdataset")[0]))
