"""The neural autoencoder. Apart from training, the only part of the package that needs torch."""
