"""What commands do with many inputs."""
