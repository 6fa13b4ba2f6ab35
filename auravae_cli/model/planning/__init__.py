"""Memory, strips and operations of a run, computed without running it."""
