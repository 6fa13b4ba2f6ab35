"""Measurements of models on pictures."""
