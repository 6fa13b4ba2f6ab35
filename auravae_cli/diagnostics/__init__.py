"""The checks of auravae doctor."""
