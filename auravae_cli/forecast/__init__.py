"""What a run would take, and how fast this machine is."""
