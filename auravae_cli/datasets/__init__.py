"""torch datasets over a store."""
