"""The network of torch: modules, strips of rows, weights that stay tied, LPIPS."""
