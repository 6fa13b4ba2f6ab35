"""Memory, strips and operations of a run, by arithmetic."""
