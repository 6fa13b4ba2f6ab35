"""The predicted cost of a run, and the speed of this machine."""
