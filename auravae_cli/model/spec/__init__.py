"""What a model is, without loading it."""
