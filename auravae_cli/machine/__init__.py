"""This computer: memory, meters, recorded speeds, threads."""
