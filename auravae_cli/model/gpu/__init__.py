"""How the network runs on a GPU."""
