"""The neural autoencoder. The only part of the package, with training, that needs torch."""
