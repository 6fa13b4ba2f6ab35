"""The torch network: layers, halves, tied weights, checkpoints."""
