"""The codec with the interfaces that other programs expect of an autoencoder."""
