"""What this computer can do and did: memory, meters, speeds, threads."""
