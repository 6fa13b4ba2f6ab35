"""What auravae doctor checks."""
