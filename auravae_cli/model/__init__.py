"""The neural autoencoder. On a CPU it needs numpy alone, elsewhere torch."""
