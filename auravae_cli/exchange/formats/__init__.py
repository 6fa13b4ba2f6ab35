"""The formats of other projects, one module each."""
