"""The flips: the group, its representations and its action, on latents, padding and boxes."""
