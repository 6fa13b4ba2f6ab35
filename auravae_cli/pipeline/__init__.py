"""Many files: what is read, where results go, and what became of each. No printing here."""
