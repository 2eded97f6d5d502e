"""Acting: from what the ranks tell each other to the values that are logged."""
