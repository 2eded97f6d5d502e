"""Programs that log on every number of devices what one device logs."""
