"""What is seen of models beyond PSNR: colours, the grid of cells, borders, crops of latents, noise.

    python benchmarks/appearance.py PHOTOS.tar -m small -m RUN/model.safetensors [--limit 25]

Whole photographs, latents stored as float16. A line a measure, a column a model:

CIEDE2000           mean over pixels and pictures; 1 is about what the eye just sees
PSNR Cb, Cr         of the planes of BT.601
mean error R, G, B  in levels of 255, over all pictures; and the largest of a single picture
grid                the part of the error of luma that repeats every 8 pixels, on the flattest tenth of
                    all blocks of 64 pixels, and on plain greys: rms in levels of 255
border              mean |z| of the outermost rows and columns over that 2 cells from the edge and more
crops               16 x 16 cells cut out of the latent and decoded: PSNR lost against the same region
                    of the whole decode, 2 cells from the edge
noise               PSNR, latents times 1 + level * n
"""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from auravae_cli import Codec, LatentFile, load_codec, psnr
from auravae_cli.images.colour_difference import ciede2000
from auravae_cli.images.grid import LUMA, grid
from auravae_cli.images.read import Pixels, from_unit, read_image, to_8_bit, to_unit

Floats = NDArray[np.floating]

CELL, BLOCK, FLAT_SHARE = 8, 64, 0.1
GREYS = (40, 90, 128, 170, 220)
EDGE, CROP = 2, 16  # cells
NOISE = (0.0, 0.05, 0.1, 0.2, 0.3)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", "-m", action="append", required=True)
    parser.add_argument("--limit", type=int, default=1000)
    options = parser.parse_args()
    pictures = photographs(options.photos)[: options.limit]
    columns = [measure(load_codec(model), pictures) for model in options.model]
    names = [Path(model).parent.name or model for model in options.model]
    print(f"{'':<24}" + "".join(f"{name[-12:]:>13}" for name in names))
    for line in columns[0]:
        print(f"{line:<24}" + "".join(f"{column[line]:>13.3f}" for column in columns))


def photographs(path: Path) -> list[Pixels]:
    """The pictures of a tar."""
    with tarfile.open(path) as tar:
        files = [tar.extractfile(member) for member in tar.getmembers() if member.isfile()]
        return [to_8_bit(read_image(file.read()).pixels) for file in files if file]


def measure(codec: Codec, pictures: Sequence[Pixels]) -> dict[str, float]:
    """All measures of one model, by their names."""
    latents = [codec.encode_image(picture) for picture in pictures]
    decoded = [codec.decode_latent(latent) for latent in latents]
    return {
        **colours(decoded, pictures),
        **grids(codec, decoded, pictures),
        **borders(codec, latents),
        "crops, dB lost": -crops(codec, latents, pictures),
        **noises(codec, latents, pictures),
    }


def colours(decoded: Sequence[Pixels], pictures: Sequence[Pixels]) -> dict[str, float]:
    """CIEDE2000, the PSNR of the chroma planes, and the tint."""
    pairs = list(zip(decoded, pictures, strict=True))
    errors = [a.astype(float) - b for a, b in pairs]
    chroma = np.mean([np.square(_chroma(error)).mean((0, 1)) for error in errors], 0)
    tints = np.array([error.mean((0, 1)) for error in errors])
    cb, cr = 10 * np.log10(255**2 / chroma)
    return {
        "CIEDE2000": float(np.mean([ciede2000(a, b) for a, b in pairs])),
        "PSNR Cb": cb,
        "PSNR Cr": cr,
        **{f"mean error {c}": tint for c, tint in zip("RGB", tints.mean(0), strict=True)},
        "mean error, worst": float(np.abs(tints).max()),
    }


def _chroma(error: Floats) -> Floats:
    """The error [H, W, 3] in Cb and Cr: [H, W, 2]."""
    luma = error @ LUMA
    return np.stack([(error[..., 2] - luma) / 1.772, (error[..., 0] - luma) / 1.402], -1)


def grids(codec: Codec, decoded: Sequence[Pixels], pictures: Sequence[Pixels]) -> dict[str, float]:
    """The grid on flat areas of photographs and on greys, and what is no grid would show."""
    blocks = []
    for result, picture in zip(decoded, pictures, strict=True):
        error, luma = (result.astype(float) - picture) @ LUMA, picture @ LUMA
        for top in range(0, error.shape[0] - BLOCK + 1, BLOCK):
            for left in range(0, error.shape[1] - BLOCK + 1, BLOCK):
                part = np.s_[top : top + BLOCK, left : left + BLOCK]
                blocks.append((float(luma[part].std()), error[part]))
    blocks.sort(key=lambda block: block[0])
    flattest = [error for _, error in blocks[: max(1, round(FLAT_SHARE * len(blocks)))]]
    greys = []
    for level in GREYS:
        picture = np.full((4 * BLOCK, 4 * BLOCK, 3), level, np.uint8)
        image = codec.decode(codec.encode(to_unit(picture)[None]))[0]
        error = np.moveaxis((image + 1) * 127.5 - level, 0, -1) @ LUMA
        greys.append(error[BLOCK : 2 * BLOCK, BLOCK : 2 * BLOCK])
    return {
        "grid, photographs": rms([grid(error, CELL) for error in flattest]),
        "grid, plain greys": rms([grid(error, CELL) for error in greys]),
    }


def rms(values: Sequence[float]) -> float:
    """The root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


def borders(codec: Codec, latents: Sequence[LatentFile]) -> dict[str, float]:
    """Mean |z| at the borders over that inside, for photographs and for grey."""
    grey = codec.encode(np.zeros((1, 3, 256, 256), np.float32))
    sets = {"photographs": [latent.to_float32() for latent in latents], "grey": list(grey)}
    found: dict[str, float] = {}
    for name, parts in sets.items():
        inside = np.mean([np.abs(z[:, EDGE:-EDGE, EDGE:-EDGE]).mean() for z in parts])
        rows = np.mean([np.abs(z[:, [0, -1]]).mean() for z in parts])
        columns = np.mean([np.abs(z[:, :, [0, -1]]).mean() for z in parts])
        found |= {
            f"rows, {name}": float(rows / inside),
            f"columns, {name}": float(columns / inside),
        }
    return found


def crops(codec: Codec, latents: Sequence[LatentFile], pictures: Sequence[Pixels]) -> float:
    """PSNR of cropped latents less that of the same region, whole; the mean over pictures, one crop each."""
    random, losses = np.random.default_rng(0), []
    for latent, picture in zip(latents, pictures, strict=True):
        z, padding = latent.to_float32(), latent.records[0].padding
        if min(z.shape[1:]) < CROP + 2 * EDGE:
            continue
        top, left = (int(random.integers(EDGE, side - CROP - EDGE + 1)) for side in z.shape[1:])
        part = codec.decode(np.ascontiguousarray(z[None, :, top : top + CROP, left : left + CROP]))
        inner = slice(CELL * EDGE, CELL * (CROP - EDGE))
        rows, columns = (_moved(inner, CELL * start) for start in (top, left))
        wanted = picture[_moved(rows, -padding.top), _moved(columns, -padding.left)]
        whole = codec.decode(z[None])[0][:, rows, columns]
        losses.append(
            psnr(from_unit(part[0][:, inner, inner]), wanted) - psnr(from_unit(whole), wanted)
        )
    return float(np.mean(losses)) if losses else float("nan")


def _moved(where: slice, by: int) -> slice:
    return slice(where.start + by, where.stop + by)


def noises(
    codec: Codec, latents: Sequence[LatentFile], pictures: Sequence[Pixels]
) -> dict[str, float]:
    """PSNR at each level of noise."""
    return {
        f"PSNR at noise {level:g}": float(
            np.mean(
                [
                    psnr(codec.decode_latent(latent, noise=level), picture)
                    for latent, picture in zip(latents, pictures, strict=True)
                ]
            )
        )
        for level in NOISE
    }


if __name__ == "__main__":
    main()
