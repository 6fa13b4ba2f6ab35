"""Training: from a recipe in ``configs/train`` to a weights file. Needs torch."""
