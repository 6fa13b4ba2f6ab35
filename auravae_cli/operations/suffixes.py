"""The names of the files that commands look for in folders. What a file is, its content decides."""

PICTURES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif")
    + (".ppm", ".pgm", ".pbm", ".jp2", ".tga")
)
LATENTS = frozenset((".safetensors",))

# What results carry beside their inputs. In a folder such files are results, not inputs.
DECODED, ROUNDTRIP, SHEET = ".decoded", ".roundtrip", ".sheet"
PICTURE_TAGS = frozenset((DECODED, ROUNDTRIP, SHEET))
FLIP_TAGS = frozenset((".h", ".v", ".hv"))
