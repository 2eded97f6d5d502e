"""Static lint: what the source alone makes certain. Code is parsed, never run, and nothing here needs torch."""
