"""The model as a service over HTTP: diffusers' remote VAE, a REST interface, and a page."""
