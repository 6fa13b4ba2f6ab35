"""Hypothesis draws the same examples on every run, so a failure is a failure everywhere."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("unit", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("unit")
