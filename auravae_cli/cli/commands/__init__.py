"""One file per command: parse, one call, report."""
