"""Bytes and places: what files hold and where they lie. Knows no picture and no latent."""
