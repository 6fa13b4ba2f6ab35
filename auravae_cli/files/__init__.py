"""Bytes and paths: what files hold and where they are. Knows neither pictures nor latents."""
