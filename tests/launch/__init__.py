"""The guard under every way to start several processes."""
