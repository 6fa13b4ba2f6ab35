"""How the network runs on a CPU."""
