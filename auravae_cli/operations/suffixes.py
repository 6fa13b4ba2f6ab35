"""The names of the files that commands look for in folders. What a file is, its content decides."""

PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
    + (".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".qoi", ".dib", ".mpo", ".apng", ".avifs")
    + (".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".heic", ".heif", ".hif", ".jxl")
)
LATENTS = frozenset((".safetensors",))

# What results carry beside their inputs. In a folder such files are results, not inputs.
DECODED, ROUNDTRIP, SHEET = ".decoded", ".roundtrip", ".sheet"
PICTURE_TAGS = frozenset((DECODED, ROUNDTRIP, SHEET))
FLIP_TAGS = frozenset((".h", ".v", ".hv"))
