"""Latents in the files of other projects: one small module per format, plain data between them."""
