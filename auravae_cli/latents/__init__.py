"""One latent, or a shard of them: numbers, record, file, checks, statistics."""
