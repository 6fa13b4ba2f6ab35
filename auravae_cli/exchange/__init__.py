"""Latents in the files of other projects: one small module a format, plain data between them."""
