"""The codec in the forms that other programs expect of an autoencoder."""
