"""Defaults that the library and the command line share."""

DEFAULT_MODEL = "small"
MODEL_VARIABLE = "AURAVAE_MODEL"  # in the environment: another default for the commands
MAX_PIXELS = 178_956_970  # of a picture; where Pillow, too, sees a decompression bomb
STREAM = "-"  # as a name: standard input or output
