"""Lines and drawings in a terminal."""
