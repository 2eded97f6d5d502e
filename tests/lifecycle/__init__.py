"""The guard in the life of a Trainer: what it sees, what it shows, what it leaves behind."""
