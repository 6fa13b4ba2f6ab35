"""Pictures: read, prepare, write, compare."""
