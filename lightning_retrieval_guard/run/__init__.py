"""Acting: from what the ranks report to each other to the values that are logged."""
