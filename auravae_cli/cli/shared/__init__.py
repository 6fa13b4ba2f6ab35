"""Option types, argument parsing, completion, signals."""
