"""The flip hook: the group action without a dependency, in the loaders of others."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader, Dataset, default_collate

from auravae_cli import GROUP, H, Irreps, act
from auravae_cli.flip_hook import CONVENTION, RandomFlip, flip

REPOSITORY = Path(__file__).parents[1]
Z = np.random.default_rng(0).normal(size=(3, 16, 4, 6)).astype(np.float32)
Z[0, :, 0, 0] = 0  # whose sign is a bit, too


@pytest.mark.parametrize("g", GROUP, ids=str)
@pytest.mark.parametrize("text", [CONVENTION, "4xee+3xoe+4xeo+5xoo"])
def test_it_is_the_group_action_bit_for_bit(g, text):
    irreps = Irreps.parse(text)
    for dtype in (np.float16, np.float32):
        z = Z.astype(dtype)
        expected = act(g, z, irreps).tobytes()
        assert flip(z, g.horizontal, g.vertical, text).tobytes() == expected
        tensor = torch.from_numpy(z)
        assert flip(tensor, g.horizontal, g.vertical, text).numpy().tobytes() == expected
        assert z.tobytes() == Z.astype(dtype).tobytes()
    half = torch.from_numpy(Z).bfloat16()
    found, expected = flip(half, g.horizontal, g.vertical, text), act(g, half, irreps)
    assert torch.equal(found.view(torch.int16), expected.view(torch.int16))


def test_what_it_cannot_flip_is_refused():
    with pytest.raises(ValueError, match=r"expected \[..., 16, h, w\]"):
        flip(Z[:, :4])
    with pytest.raises(ValueError, match="representation"):
        flip(Z, representation="16")
    for words in (Z.astype(np.uint16), torch.zeros(16, 2, 2, dtype=torch.uint8)):
        with pytest.raises(TypeError, match="floating point"):
            flip(words)


def test_the_file_needs_nothing():
    source = (REPOSITORY / "auravae_cli/flip_hook.py").read_text()
    imported = re.findall(r"^(?:from|import) (\w+)", source, re.MULTILINE)
    assert set(imported) <= sys.stdlib_module_names
    code = "import sys, auravae_cli.flip_hook; sys.exit('numpy' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def flips_of(found, originals):
    """Which originals were flipped; each is itself or its mirror image."""
    irreps = Irreps.parse(CONVENTION)
    flipped = []
    for one, z in zip(found, originals, strict=True):
        one = np.asarray(one)  # noqa: PLW2901
        is_flipped = np.array_equal(one, act(H, z, irreps))
        assert is_flipped or np.array_equal(one, z)
        flipped.append(is_flipped)
    return flipped


def test_a_table_of_hugging_face(tmp_path):
    path = tmp_path / "z.parquet"
    flat = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(Z.reshape(-1)), Z[0].size)
    pyarrow.parquet.write_table(pyarrow.table({"latent": flat, "n": [0, 1, 2]}), path)
    rows = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    hook = RandomFlip("latent", horizontal=1.0)

    def transform(batch):
        arrays = [np.array(flat, np.float32).reshape(16, 4, 6) for flat in batch["latent"]]
        return hook({**batch, "latent": arrays})

    found = rows.with_transform(transform)[:3]
    assert flips_of(found["latent"], Z) == [True] * 3
    assert found["n"] == [0, 1, 2]


def test_samples_of_every_form():
    chances = random.Random(1)
    make = {"chance": chances.random}
    many = np.concatenate([Z] * 8)
    assert set(flips_of(RandomFlip(**make)(many), many)) == {False, True}
    batch = RandomFlip("latent", **make)({"latent": list(many), "caption": ["a"] * 24})
    assert set(flips_of(batch["latent"], many)) == {False, True}
    assert batch["caption"] == ["a"] * 24
    one, label = RandomFlip(0, horizontal=1.0)((Z[0], 7))
    assert flips_of([one], Z[:1]) == [True] and label == 7
    assert flips_of([RandomFlip(horizontal=0.0)(Z[0])], Z[:1]) == [False]
    turned = RandomFlip(horizontal=1.0, vertical=1.0)(Z)
    assert np.array_equal(turned, act(GROUP[3], Z, Irreps.parse(CONVENTION)))
    assert np.array_equal(many[:3], Z)


class Latents(Dataset):
    """A plain dataset of torch, mapped."""

    hook = RandomFlip("latent")

    def __len__(self):
        return 24

    def __getitem__(self, row):
        return self.hook({"latent": torch.from_numpy(Z[row % 3]), "row": row})


def test_a_dataloader_of_torch_draws_anew_in_each_worker():
    found = {}
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        batches = list(DataLoader(Latents(), batch_size=6, num_workers=2, generator=generator))
        rows = torch.cat([batch["latent"] for batch in batches])
        flips = flips_of(rows, [Z[row % 3] for row in range(24)])
        assert flips[:6] != flips[6:12]  # of two workers
        assert found.setdefault(seed, flips) == flips
    assert found[0] != found[1]


def test_a_plain_collate():
    hook = RandomFlip("latent", horizontal=1.0)
    samples = [{"latent": torch.from_numpy(z), "row": row} for row, z in enumerate(Z)]
    loader = DataLoader(samples, 3, collate_fn=lambda rows: default_collate(list(map(hook, rows))))
    (batch,) = loader
    assert flips_of(batch["latent"], Z) == [True] * 3
    assert batch["row"].tolist() == [0, 1, 2]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_webdataset(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for row, z in enumerate(Z):
            buffer = io.BytesIO()
            np.save(buffer, z)
            info = tarfile.TarInfo(f"{row}.latent.npy")
            info.size = len(buffer.getvalue())
            archive.addfile(info, io.BytesIO(buffer.getvalue()))
    data = webdataset.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).decode()
    found = [sample["latent.npy"] for sample in data.map(RandomFlip("latent.npy", horizontal=1.0))]
    assert flips_of(found, Z) == [True] * 3
