"""Checkpoints: read, checked and expanded, as arrays of numpy."""
