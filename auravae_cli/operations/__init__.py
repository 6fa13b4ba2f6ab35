"""What a command does to many inputs."""
