"""Many latents in shards: format, write, read, verify, flip."""
