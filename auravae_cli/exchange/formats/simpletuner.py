"""SimpleTuner's latent caches: ``FOLDER/SHA256.pt``, a bare tensor [C, h, w].

Rules: bghira/SimpleTuner, simpletuner/helpers/caching/vae.py (generate_vae_cache_filename, _read_from_storage)
at bc8e6ab7. A file is looked up by the sha256 of the picture's name without folders and suffix
(``hash_filenames``, the default), in the picture's folder below ``cache_dir``. Values are used as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from auravae_cli.exchange.formats.base import Choices, Exported, Format
from auravae_cli.exchange.formats.tensors import read_pickle, saved
from auravae_cli.latents.latent_file import LatentFile


def write(
    latents: LatentFile, names: Sequence[str], number: int, choices: Choices
) -> Iterator[Exported]:
    """Yield one file; the picture's name cannot be read from the file's."""
    folder, slash, stem = names[0].rpartition("/")
    code = hashlib.sha256(stem.encode(errors="surrogatepass")).hexdigest()
    yield Exported(f"{folder}{slash}{code}.pt", lambda: [saved(latents.values, latents.dtype)])


FORMAT = Format(
    name="simpletuner",
    rules="bghira/SimpleTuner, simpletuner/helpers/caching/vae.py at bc8e6ab7",
    suffixes=frozenset((".pt",)),
    write=write,
    read=read_pickle,
    keeps=frozenset(("stored_dtype",)),
    dtypes=("float16", "bfloat16", "float32"),
    by_picture=True,
    needs="torch",
    advice="the output is its cache_dir; a latent must have the size of the trainer's own crop",
)
