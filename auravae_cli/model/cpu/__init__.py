"""The network in strips of rows, by our own kernels and numpy."""
