"""Defaults that the library and the command line share."""

DEFAULT_MODEL = "linear"
MAX_PIXELS = 178_956_970  # of a picture; where Pillow, too, sees a decompression bomb
